import pytest
import torch
from text_tower_examples import BERT, CLIP, SIZES, TEXTS, build, embed, words
from transformers import (
    AlignConfig,
    AlignModel,
    BertConfig,
    BertModel,
    BertTokenizerFast,
    ChineseCLIPConfig,
    ChineseCLIPModel,
    CLIPConfig,
    CLIPModel,
    SiglipConfig,
    SiglipModel,
)

from capkit.errors import UsageError
from capkit.models.dual_encoders.sentence_encoder import SentenceEncoder
from capkit.models.dual_encoders.text_towers.hf import HFTextTower

VISION = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
VISION |= {"image_size": 32, "patch_size": 16}
SMALL_EFFICIENTNET = {"num_block_repeats": [1], "in_channels": [8], "out_channels": [8], "kernel_sizes": [3]}
SMALL_EFFICIENTNET |= {"strides": [1], "expand_ratios": [1], "depthwise_padding": [], "hidden_dim": 8}
WHOLES = {
    "clip": (CLIPModel, CLIPConfig, VISION),
    "siglip": (SiglipModel, SiglipConfig, VISION),
    "chinese_clip": (ChineseCLIPModel, ChineseCLIPConfig, VISION),
    "align": (AlignModel, AlignConfig, SMALL_EFFICIENTNET),
}


def text_settings(tokenizer):
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return {"vocab_size": len(tokenizer), "max_position_embeddings": 12, **ids, **SIZES}


@pytest.mark.parametrize("kind", WHOLES)
def test_the_text_half_of_a_whole_dual_encoder_is_taken_with_its_weights(kind, tmp_path):
    model_class, config_class, vision = WHOLES[kind]
    tokenizer = words()
    whole = model_class(config_class(text_config=text_settings(tokenizer), vision_config=vision)).eval()
    whole.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    tower = HFTextTower(name=str(tmp_path), pooling="cls" if kind in ("chinese_clip", "align") else "eos").eval()
    tokens, mask = tower.tokenize(TEXTS)
    with torch.no_grad():
        states = whole.text_model(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
    last = mask.sum(1) - 1 if tower.pooling == "eos" else torch.zeros(len(TEXTS), dtype=torch.int64)
    torch.testing.assert_close(embed(tower, TEXTS), states[torch.arange(len(TEXTS)), last])
    assert tokens.shape[1] == 12 if kind == "siglip" else tokens.shape[1] < 12
    with pytest.raises(AssertionError):
        random = HFTextTower(name=str(tmp_path), pooling=tower.pooling, pretrained=False).eval()
        torch.testing.assert_close(embed(random, TEXTS), embed(tower, TEXTS))


def test_eos_pooling_is_what_clip_itself_pools():
    tower = HFTextTower(config={**CLIP, "eos_token_id": 4}, tokenizer=words()).eval()
    tokens, mask = tower.tokenize(TEXTS)
    tokens = tokens.where(tokens != 4, 5).where(tokens != 2, 4)  # one EOS a text, of an id that is no word's
    with torch.no_grad():
        own = tower.model(input_ids=tokens, attention_mask=mask.long()).pooler_output
        torch.testing.assert_close(tower(tokens, mask), own)


def test_clips_text_is_causal_and_berts_is_not():
    for name, causal in (("clip_eos", True), ("bert_cls", False)):
        tower = build(name)
        tokens, mask = tower.tokenize(["a red star"])
        other = tokens.clone()
        other[0, -1] = 7
        with torch.no_grad():
            states = [tower.model(input_ids=t, attention_mask=mask.long()).last_hidden_state for t in (tokens, other)]
        assert torch.allclose(states[0][0, :-1], states[1][0, :-1], atol=1e-6) == causal


def test_mean_pooling_of_a_bert_is_the_frozen_sentence_encoder(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "star"]))
    BertModel(BertConfig(vocab_size=8, **SIZES)).save_pretrained(tmp_path)
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    texts = ["a red star", "a", "star a star a star"]
    tower = HFTextTower(name=str(tmp_path), pooling="mean").eval()
    encoder = SentenceEncoder(str(tmp_path))
    unit = torch.nn.functional.normalize(embed(tower, texts), dim=-1)
    torch.testing.assert_close(unit, encoder.encode_text(texts), atol=1e-6, rtol=1e-5)


def test_what_pooling_does_not_read_is_frozen():
    frozen = {name for name, p in build("bert_cls").named_parameters() if not p.requires_grad}
    assert frozen == {"model.pooler.dense.weight", "model.pooler.dense.bias"}
    frozen = {name for name, p in build("siglip_eos").named_parameters() if not p.requires_grad}
    assert frozen == {"model.head.weight", "model.head.bias"}
    assert all(p.requires_grad for p in build("clip_eos").parameters())


def test_building_a_tower_leaves_it_in_training_mode_and_draws_no_random_number_after_its_weights():
    torch.manual_seed(3)
    tower = HFTextTower(config=BERT, tokenizer=words())
    after = torch.rand(1)
    assert tower.training and tower.model.training
    torch.manual_seed(3)
    BertModel(tower.model.config)
    torch.testing.assert_close(torch.rand(1), after)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "a name or a config"),
        ({"name": "x", "config": CLIP}, "set one of them"),
        ({"config": CLIP}, "tokenizer=word"),
        ({"config": CLIP, "tokenizer": words(), "pooling": "max"}, "eos, cls, mean"),
        ({"config": CLIP, "tokenizer": words(), "max_length": 21}, "20 positions"),
        ({"config": {**CLIP, "vocab_size": 5}, "tokenizer": words()}, "embeds only 5"),
        ({"config": {"model_type": "chinese_clip_text_model"}, "tokenizer": words()}, "chinese_clip_text_model"),
        ({"config": {"model_type": "clip_txt"}, "tokenizer": words()}, "clip_txt"),
    ],
)
def test_unfit_arguments_are_usage_errors(arguments, message):
    with pytest.raises(UsageError, match=message):
        HFTextTower(**arguments)


def test_robertas_first_positions_hold_no_token():
    tower = build("roberta_mean")
    assert tower.tokenize.max_length == 20  # of 21: padding has id 0, positions start at 1
    assert embed(tower, ["a red star " * 20]).isfinite().all()
