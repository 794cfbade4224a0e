"""HFCaptioner against transformers' own forward passes and generation of the same models."""

import pickle

import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import Blip2ForConditionalGeneration, PreTrainedTokenizerFast

from capkit.decoding.config import Decoding
from capkit.errors import UsageError
from capkit.models.captioners.hf_captioner import HFCaptioner
from capkit.models.captioners.hf_families import align_special_tokens
from capkit.models.pretrained import build_config
from capkit.text.tokenizers import decode_captions, encode_captions, word_tokenizer
from capkit.types import CaptionBatch

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
VISION = SIZES | {"num_hidden_layers": 1, "image_size": 32, "patch_size": 16}
TEXT = SIZES | {"max_position_embeddings": 48}
GPT2 = {"model_type": "gpt2", "n_embd": 20, "n_layer": 2, "n_head": 2, "n_positions": 48}
VIT_GPT2 = {"model_type": "vision-encoder-decoder", "encoder": {"model_type": "vit", **VISION}, "decoder": GPT2}
VIT_BERT = VIT_GPT2 | {"decoder": {"model_type": "bert", **TEXT}}
BLIP = {"model_type": "blip", "vision_config": VISION, "text_config": TEXT | {"encoder_hidden_size": 16}}
GIT = {"model_type": "git", "vision_config": VISION, **TEXT}
OPT = {"model_type": "opt", "ffn_dim": 24, "word_embed_proj_dim": 16, **TEXT}
BLIP2 = {
    "model_type": "blip-2",
    "vision_config": VISION,
    "qformer_config": SIZES | {"cross_attention_frequency": 2},
    "text_config": OPT,
    "num_query_tokens": 3,
    "image_token_index": 3,  # a word that no test writes
}
CONFIGS = {"vit_gpt2": VIT_GPT2, "vit_bert": VIT_BERT, "blip": BLIP, "blip2": BLIP2, "git": GIT}


def build(config, **settings):
    torch.manual_seed(0)
    tokenizer = word_tokenizer(["a photo of b c d e f ."])
    captioner = HFCaptioner(config=config, tokenizer=tokenizer, max_length=20, **settings)
    for parameter in captioner.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(std=0.25)
    return captioner.eval()


def own_logits(captioner, pixels, tokens):
    """transformers' forward of the whole model on images and one caption each."""
    model = captioner.model
    if captioner.model_type == "vision-encoder-decoder":
        return model(pixel_values=pixels, decoder_input_ids=tokens).logits
    if captioner.model_type == "blip":
        return model(pixel_values=pixels, input_ids=tokens).logits
    if captioner.model_type == "blip-2":
        tokens = torch.cat([tokens.new_full((len(tokens), 3), 3), tokens], dim=1)
        return model(pixel_values=pixels, input_ids=tokens).logits[:, 3:]
    return model(pixel_values=pixels, input_ids=tokens).logits[:, -tokens.shape[1] :]


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_equal_transformers_own_forward(name):
    captioner = build(CONFIGS[name])
    pixels, tokens = torch.randn(3, 3, 32, 32), torch.randint(4, len(captioner.tokenizer), (3, 1, 7))
    context = captioner.encode(CaptionBatch(["x", "y", "z"], pixels))
    logits = captioner(context, tokens, torch.ones_like(tokens, dtype=torch.bool))
    torch.testing.assert_close(logits[:, 0], own_logits(captioner, pixels, tokens[:, 0]), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_greedy_captions_equal_transformers_own_generation(name):
    captioner = build(CONFIGS[name], prompt="a photo of")
    pixels = torch.randn(3, 3, 32, 32)
    samples = captioner.generate(captioner.encode(CaptionBatch(["x", "y", "z"], pixels)), Decoding(max_length=6))
    start = samples.tokens[:, 0, :4]
    settings = {"max_new_tokens": 6, "do_sample": False, "num_beams": 1, "use_cache": False}
    settings |= {"eos_token_id": captioner.tokenizer.eos_token_id, "pad_token_id": captioner.tokenizer.pad_token_id}
    if captioner.model_type == "vision-encoder-decoder":
        own = captioner.model.generate(pixels, decoder_input_ids=start, **settings)
    elif captioner.model_type == "blip":
        states = captioner.model.vision_model(pixels).last_hidden_state
        own = captioner.model.text_decoder.generate(start, encoder_hidden_states=states, **settings)
    elif captioner.model_type == "blip-2":
        behind = torch.cat([start.new_full((3, 3), 3), start], dim=1)
        own = captioner.model.generate(pixel_values=pixels, input_ids=behind, **settings)[:, 3:]
    else:
        own = captioner.model.generate(pixel_values=pixels, input_ids=start, **settings)
    assert own.tolist() == samples.tokens[:, 0, : own.shape[1]].tolist()


@pytest.mark.parametrize("name", ["vit_gpt2", "blip", "blip2", "git"])
def test_saved_model_loads_by_name_with_its_tokenizer(tmp_path, name):
    captioner = build(CONFIGS[name])
    captioner.model.save_pretrained(tmp_path)
    captioner.tokenizer.save_pretrained(tmp_path)
    loaded = HFCaptioner(name=str(tmp_path), max_length=20).eval()
    tokens, mask, _ = encode_captions(captioner.tokenizer, [["a b c."], ["d"]], "", 12)
    batch = CaptionBatch(["x", "y"], torch.randn(2, 3, 32, 32), None, tokens, mask)
    expected = captioner.logprobs(captioner.encode(batch), tokens, mask)
    torch.testing.assert_close(loaded.logprobs(loaded.encode(batch), tokens, mask), expected, atol=1e-5, rtol=1e-5)
    fresh = HFCaptioner(name=str(tmp_path), max_length=20, pretrained=False)
    assert not torch.allclose(fresh.logprobs(fresh.encode(batch), tokens, mask), expected)


def test_start_token_one_past_the_tokenizer_is_added_as_in_blip():
    tokenizer = word_tokenizer(["a b"])
    size = len(tokenizer)
    align_special_tokens(tokenizer, {"bos": size, "eos": tokenizer.eos_token_id})
    assert tokenizer.bos_token_id == size
    assert len(tokenizer) == size + 1
    tokens, _, _ = encode_captions(tokenizer, [["a b"]], "", 8)
    assert tokens[0, 0].tolist() == [size, 4, 5, 2]


def test_special_tokens_of_the_weights_win_over_those_of_the_tokenizer():
    tokenizer = word_tokenizer(["a b"])
    align_special_tokens(tokenizer, {"bos": 3, "eos": None})
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (3, 2)
    with pytest.raises(UsageError, match="id 99"):
        align_special_tokens(tokenizer, {"bos": 99, "eos": None})


def test_frozen_image_part_stays_in_eval_mode_and_gets_no_gradient():
    config = VIT_GPT2 | {"encoder": {"model_type": "vit", "hidden_dropout_prob": 0.5, **VISION}}
    captioner = build(config, freeze_image_encoder=True).train()
    tokens, mask, _ = encode_captions(captioner.tokenizer, [["a b c."]], "", 12)
    batch = CaptionBatch(["x"], torch.randn(1, 3, 32, 32), None, tokens, mask)
    assert torch.equal(captioner.encode(batch).states, captioner.encode(batch).states)
    captioner.token_losses(captioner.encode(batch), tokens, mask, 0.0).sum().backward()
    assert all(p.grad is None for p in captioner.model.encoder.parameters())
    assert all(p.grad is not None for p in captioner.model.decoder.parameters())


@pytest.mark.parametrize("frozen", [{"freeze_language_model": True}, {"freeze_image_encoder": True}])
def test_what_is_frozen_of_blip2_gets_no_gradient_and_the_q_former_learns(frozen):
    """As published: a language model that is not trained, through which the Q-Former learns what to ask."""
    config = BLIP2 | {"text_config": OPT | {"dropout": 0.5}}
    captioner = build(config, **frozen).train()
    tokens, mask, _ = encode_captions(captioner.tokenizer, [["a b c."]], "", 12)
    batch = CaptionBatch(["x"], torch.randn(1, 3, 32, 32), None, tokens, mask)
    captioner.token_losses(captioner.encode(batch), tokens, mask, 0.0).sum().backward()
    parts = {
        "freeze_language_model": captioner.model.language_model,
        "freeze_image_encoder": captioner.model.vision_model,
    }
    for name, part in parts.items():
        assert part.training != (name in frozen)
        assert all((p.grad is None) == (name in frozen) for p in part.parameters() if p.requires_grad or name in frozen)
    assert all(p.grad is not None for p in captioner.model.qformer.parameters())
    assert captioner.model.query_tokens.grad.abs().sum() > 0


def test_blip2_by_opt_begins_with_its_bos_and_ends_with_a_line_break(tmp_path):
    """Published weights say so in the config of their language model alone; OPT's tokenizer ends with </s>."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    ids = {token: number for number, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", *letters, "<image>"])}
    core = Tokenizer(BPE(ids, []))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=core, **special).save_pretrained(tmp_path)
    ends = {"bos_token_id": 2, "eos_token_id": ids["\u010a"], "pad_token_id": 1, "vocab_size": len(ids) + 3}
    config = BLIP2 | {"text_config": OPT | ends, "image_token_index": ids["<image>"]}
    Blip2ForConditionalGeneration(build_config(config, "captioner")).save_pretrained(tmp_path)
    captioner = HFCaptioner(name=str(tmp_path), max_length=40).eval()
    tokens, mask, _ = encode_captions(captioner.tokenizer, [["a dog"]], "", 40)
    assert tokens[0, 0, [0, -1]].tolist() == [2, ids["\u010a"]]
    assert decode_captions(captioner.tokenizer, tokens, mask, 1) == [["a dog"]]
    captioner._head.bias = torch.nn.Parameter(torch.zeros(captioner.vocab_size))
    captioner._head.bias.data[ids["\u010a"]] = 50.0
    pixels = torch.randn(1, 3, 32, 32)
    samples = captioner.generate(captioner.encode(CaptionBatch(["x"], pixels)), Decoding(max_length=6))
    assert samples.texts == [[""]] and samples.ended.all()
    own = captioner.model.generate(pixel_values=pixels, max_new_tokens=6, do_sample=False)
    assert own[0, -1] == samples.tokens[0, 0, 1] == ids["\u010a"] and own.shape[1] == 3 + 2


def test_blip2_asks_nothing_of_padding_among_cached_tokens_of_images():
    captioner = build(BLIP2)
    features, seen = torch.randn(1, 5, 16), torch.ones(1, 5, dtype=torch.bool)
    padded = torch.cat([features, 9 * torch.ones(1, 2, 16)], dim=1), torch.cat([seen, ~seen[:, :2]], dim=1)
    contexts = [
        captioner.encode(CaptionBatch(["x"], features=tokens, features_mask=mask))
        for tokens, mask in ((features, seen), padded)
    ]
    assert contexts[0].states.shape == (1, 3, 16)
    torch.testing.assert_close(contexts[0].states, contexts[1].states, atol=1e-6, rtol=1e-5)


def test_a_missing_image_has_as_many_queries_in_blip2_as_one_that_is_there():
    """So that the text has the same positions behind it, alone and in a batch where others are there."""
    captioner = build(BLIP2)
    there = captioner.encode(CaptionBatch(["x", "y"], torch.randn(2, 3, 32, 32)))
    assert captioner.null_context(2, "cpu").states.shape == there.states.shape


def test_whole_captioner_can_be_pickled():
    captioner = build(BLIP)
    copy = pickle.loads(pickle.dumps(captioner))
    batch = CaptionBatch(["x"], torch.randn(1, 3, 32, 32))
    assert torch.equal(copy.encode(batch).states, captioner.encode(batch).states)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({}, "name or a config"),
        ({"config": {"model_type": "vit"}}, "vision-encoder-decoder, blip, blip-2, git"),
        ({"config": {}}, "model_type"),
        ({"name": "/nowhere/at/all"}, "/nowhere/at/all"),
        ({"config": GIT, "max_length": 60}, "48 positions"),
        ({"config": BLIP2, "max_length": 46}, "45 positions"),
        ({"config": BLIP2 | {"text_config": {"model_type": "t5", "d_model": 16}}}, "blip2-opt.*got one with t5"),
        ({"config": GIT, "max_length": 20, "freeze_language_model": True}, "expected BLIP-2.*got git"),
    ],
)
def test_wrong_arguments_are_usage_errors(wrong, words):
    with pytest.raises(UsageError, match=words):
        HFCaptioner(tokenizer=word_tokenizer(["a b"]), **wrong)
