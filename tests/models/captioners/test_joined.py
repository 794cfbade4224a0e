"""VisionEncoderDecoders joined of two networks: they compute what transformers computes, and end their captions."""

import re
from pathlib import Path

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
)

from capkit.decoding.config import Decoding
from capkit.errors import UsageError
from capkit.models.captioners.distilbert import bert_config, bert_weights
from capkit.models.captioners.hf_captioner import HFCaptioner
from capkit.models.pretrained import build_config
from capkit.text.tokenizers import encode_captions, load_tokenizer, word_tokenizer
from capkit.types import CaptionBatch

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
GRID = SIZES | {"image_size": 32, "patch_size": 16}
ENCODERS = {
    **{kind: {"model_type": kind, **GRID} for kind in ("vit", "deit", "beit")},
    "swin": {
        "model_type": "swin", "image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 1],
        "num_heads": [2, 2], "window_size": 4,
    },
}  # fmt: skip
TEXT = SIZES | {"hidden_size": 20, "num_hidden_layers": 2, "max_position_embeddings": 48}
DISTILBERT = {"dim": 20, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "max_position_embeddings": 48}
DECODERS = {
    "bert": {"model_type": "bert", **TEXT},
    "roberta": {"model_type": "roberta", **TEXT},
    "gpt2": {"model_type": "gpt2", "n_embd": 20, "n_layer": 2, "n_head": 2, "n_positions": 48},
    "distilbert": {"model_type": "distilbert", **DISTILBERT},
}
CAPTIONS = ["um cão marrom", "uma criança na praça", "água"]


def tokenizer(pad="<pad>"):
    made = word_tokenizer(CAPTIONS)
    made.pad_token = pad
    return made


def like_gpt2(special="<eos>"):
    """A tokenizer whose one special token starts, ends and pads, as GPT-2's does."""
    made = word_tokenizer(CAPTIONS)
    made.bos_token = made.pad_token = made.eos_token = special
    return made


def build(encoder, decoder, tokenizer, spread=True):
    torch.manual_seed(0)
    captioner = HFCaptioner(encoder=encoder, decoder=decoder, tokenizer=tokenizer, max_length=20)
    for parameter in captioner.parameters() if spread else ():
        if parameter.ndim > 1:
            parameter.data.normal_(std=0.25)
    return captioner.eval()


@pytest.mark.parametrize(
    ("encoder", "decoder"), [("vit", "bert"), ("deit", "roberta"), ("beit", "gpt2"), ("swin", "distilbert")]
)
def test_logits_and_generation_are_those_of_transformers(encoder, decoder):
    captioner = build(ENCODERS[encoder], DECODERS[decoder], like_gpt2() if decoder == "gpt2" else tokenizer())
    pixels, tokens = torch.randn(3, 3, 32, 32), torch.randint(4, len(captioner.tokenizer), (3, 1, 7))
    context = captioner.encode(CaptionBatch(["x", "y", "z"], pixels))
    logits = captioner(context, tokens, torch.ones_like(tokens, dtype=torch.bool))
    own = captioner.model(pixel_values=pixels, decoder_input_ids=tokens[:, 0]).logits
    torch.testing.assert_close(logits[:, 0], own, atol=2e-5, rtol=1e-4)
    captions = captioner.generate(context, Decoding(max_length=6)).tokens[:, 0]
    # How captions start, end and are padded, transformers reads from the model.
    generated = captioner.model.generate(pixels, max_new_tokens=6, do_sample=False, num_beams=1)
    assert generated.tolist() == captions[:, : generated.shape[1]].tolist()


@pytest.mark.parametrize("decoder", ["bert", "gpt2"])
def test_networks_by_folder_keep_their_weights_and_bring_the_tokenizer(decoder, tmp_path):
    torch.manual_seed(0)
    words = like_gpt2() if decoder == "gpt2" else tokenizer()
    image = AutoModel.from_config(build_config(ENCODERS["vit"], "image encoder"))
    # GPorTuguese-2 is such a model: its config has the English vocabulary's last id for the end, its tokenizer has 0.
    text = AutoModelForCausalLM.from_config(
        build_config(
            {**DECODERS[decoder], "vocab_size": len(words), "bos_token_id": 7, "eos_token_id": 7, "pad_token_id": None},
            "text decoder",
        )
    )
    image.save_pretrained(tmp_path / "image")
    text.save_pretrained(tmp_path / "text")
    words.save_pretrained(tmp_path / "text")
    captioner = HFCaptioner(encoder=str(tmp_path / "image"), decoder=str(tmp_path / "text"), max_length=20)
    for network, part in ((image, captioner.model.encoder), (text, captioner.model.decoder)):
        weights = part.state_dict()
        assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())
    new = set(captioner.model.decoder.state_dict()) - set(text.state_dict())
    assert new and all("crossattention" in name or "ln_cross_attn" in name for name in new)
    expected = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id}
    expected |= {"pad_token_id": words.pad_token_id, "decoder_start_token_id": words.bos_token_id}
    for config in (captioner.model.config, captioner.model.generation_config):
        assert {name: getattr(config, name) for name in expected} == expected
    fresh = HFCaptioner(
        encoder=str(tmp_path / "image"), decoder=str(tmp_path / "text"), max_length=20, pretrained=False
    )
    name = "embeddings.patch_embeddings.projection.weight"
    assert not torch.equal(fresh.model.encoder.state_dict()[name], image.state_dict()[name])


def test_the_tokens_of_a_bert_are_its_cls_and_sep(tmp_path):
    words = word_tokenizer(CAPTIONS)
    words.add_special_tokens({"cls_token": "[CLS]", "sep_token": "[SEP]"})
    words.bos_token = words.eos_token = None
    ids = [("[CLS]", words.cls_token_id), ("[SEP]", words.sep_token_id)]
    words.backend_tokenizer.post_processor = TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ids)
    words.save_pretrained(tmp_path)
    captioner = HFCaptioner(
        encoder=ENCODERS["vit"], decoder=DECODERS["bert"], tokenizer=load_tokenizer(str(tmp_path)), max_length=20
    )
    config = captioner.model.config
    assert (config.decoder_start_token_id, config.eos_token_id) == (words.cls_token_id, words.sep_token_id)
    tokens, mask, _ = encode_captions(captioner.tokenizer, [["um cão"]], "", 12)
    assert tokens[0, 0].tolist()[0] == words.cls_token_id and tokens[0, 0].tolist()[-1] == words.sep_token_id
    assert mask.all() and tokens.shape[-1] == 4  # the start once, not twice


def test_a_distilbert_and_its_weights_under_berts_names_give_equal_logits():
    torch.manual_seed(0)
    distilled = DistilBertForMaskedLM(DistilBertConfig(vocab_size=30, **DISTILBERT)).eval()
    for parameter in distilled.parameters():
        parameter.data.normal_(std=0.3)
    settings = bert_config(distilled.config).to_dict() | {"is_decoder": False, "add_cross_attention": False}
    bert = BertForMaskedLM(BertConfig(**settings)).eval()
    bert.load_state_dict(bert_weights(distilled.state_dict()))  # strict: each weight has its place
    tokens = torch.randint(0, 30, (2, 9))
    torch.testing.assert_close(bert(tokens).logits, distilled(tokens).logits, atol=1e-5, rtol=1e-5)


def test_a_distilbert_by_folder_is_a_bert_with_its_weights(tmp_path):
    words = tokenizer()
    distilled = DistilBertForMaskedLM(DistilBertConfig(vocab_size=len(words), **DISTILBERT))
    distilled.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    decoder = HFCaptioner(encoder=ENCODERS["vit"], decoder=str(tmp_path), max_length=20).model.decoder
    assert decoder.config.model_type == "bert" and decoder.config.num_hidden_layers == 2
    weights = decoder.state_dict()
    expected = bert_weights(distilled.state_dict())
    assert len(expected) > 30 and all(torch.equal(value, weights[name]) for name, value in expected.items())


@pytest.mark.parametrize("decoder", ["bert", "gpt2"])
def test_the_end_has_a_label_where_it_is_also_the_padding(decoder):
    captioner = build(ENCODERS["vit"], DECODERS[decoder], like_gpt2())
    tokens, mask, _ = encode_captions(captioner.tokenizer, [CAPTIONS], "", 12)
    end = captioner.tokenizer.eos_token_id
    assert tokens[0, 2].tolist()[2:] == [end] * 4 and mask[0, 2].tolist() == [True] * 3 + [False] * 3
    context = captioner.encode(CaptionBatch(["x"], torch.randn(1, 3, 32, 32)))
    losses = captioner.token_losses(context, tokens, mask, 0.0)[0, 2]
    expected = -captioner(context, tokens, mask)[0, 2, 1].log_softmax(-1)[end]
    torch.testing.assert_close(losses[1], expected)
    assert losses[1] > 0.5 and not losses[2:].any()


@pytest.mark.parametrize("decoder", ["bert", "gpt2"])
def test_captions_end_by_themselves_where_the_end_is_also_the_padding(decoder):
    """The control leaves out every label that has the padding's id, as a loss with `ignore_index=pad` does: such a
    captioner writes on to the limit."""

    def captions(learns_end):
        one_layer = {"gpt2": {"n_layer": 1}, "bert": {"num_hidden_layers": 1}}[decoder]
        captioner = build(ENCODERS["vit"], DECODERS[decoder] | one_layer, like_gpt2(), spread=False).train()
        pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        batch = CaptionBatch(["x", "y", "z"], pixels)
        tokens, mask, _ = encode_captions(captioner.tokenizer, [[caption] for caption in CAPTIONS], "", 12)
        if not learns_end:
            mask &= tokens != captioner.tokenizer.pad_token_id
        optimizer = torch.optim.Adam(captioner.parameters(), lr=1e-2)
        for _ in range(40):
            losses = captioner.token_losses(captioner.encode(batch), tokens, mask, 0.0)
            optimizer.zero_grad()
            losses.sum().backward()
            optimizer.step()
        samples = captioner.eval().generate(captioner.encode(batch), Decoding(max_length=10))
        return [texts[0] for texts in samples.texts], samples.ended[:, 0].tolist()

    assert captions(learns_end=True) == (CAPTIONS, [True] * 3)
    assert not any(captions(learns_end=False)[1])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"encoder": ENCODERS["vit"]}, "an encoder and a decoder"),
        ({"encoder": ENCODERS["vit"], "decoder": DECODERS["bert"], "name": "x"}, "an encoder and a decoder"),
        ({"encoder": ENCODERS["vit"], "decoder": {"model_type": "llama", **TEXT}}, "got llama.*model=clip_prefix"),
        ({"encoder": {"model_type": "resnet"}, "decoder": DECODERS["bert"]}, "image transformer.*got resnet"),
        ({"encoder": "/nowhere/at/all", "decoder": DECODERS["bert"]}, "/nowhere/at/all"),
        ({"encoder": ENCODERS["vit"], "decoder": DECODERS["roberta"], "max_length": 48}, "47 positions"),
    ],
)
def test_wrong_parts_are_usage_errors(wrong, words):
    with pytest.raises(UsageError, match=words):
        HFCaptioner(tokenizer=tokenizer(), **wrong)


def test_the_swin_of_the_models_page_is_built():
    page = (Path(__file__).parents[3] / "docs/models.md").read_text()
    (encoder,) = re.findall(r"'(model\.encoder=\{model_type:swin.*?\})'", page)
    config = OverridesParser.create().parse_override(encoder).value()
    model = HFCaptioner(encoder=config, decoder=DECODERS["bert"], tokenizer=tokenizer(), max_length=20)
    context = model.encode(CaptionBatch(["0"], torch.zeros(1, 3, config["image_size"], config["image_size"])))
    assert context.states.shape[:2] == (1, 4)
