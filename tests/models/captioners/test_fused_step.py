"""Steps written by fused operations, here by the plain operations they stand for, against the usual forward pass.

On a GPU tests/decoding/test_graphs.py holds the kernels against the same.
"""

import dataclasses

import pytest
import torch

from capkit.decoding.config import Decoding
from capkit.models.captioners import encoder_decoder, gpt2_step
from capkit.models.captioners.clip_prefix import ClipPrefix
from capkit.models.captioners.encoder_decoder import EncoderDecoder
from capkit.models.captioners.hf_captioner import HFCaptioner
from capkit.text.tokenizers import prompt_ids, word_tokenizer
from capkit.types import CaptionBatch

TOKENIZER = word_tokenizer([" ".join(f"w{number}" for number in range(30))])
GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2}
VISION = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def encoder_decoder_model():
    return EncoderDecoder(TOKENIZER, feature_width=16, width=16, num_layers=2, num_heads=2, max_length=20)


def clip_prefix_model(activation="gelu_new", **settings):
    lm = {**GPT2, "activation_function": activation}
    return ClipPrefix(lm, TOKENIZER, feature_width=16, prefix_length=3, max_length=20, **settings)


def adapted_model():
    model = clip_prefix_model("relu", lora={"rank": 2})
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.5)
    return model


def vision_encoder_decoder_model():
    vision = {"model_type": "vit", "image_size": 8, "patch_size": 4, **VISION}
    config = {"model_type": "vision-encoder-decoder", "encoder": vision, "decoder": GPT2}
    return HFCaptioner(config=config, tokenizer=TOKENIZER, max_length=20)


MODELS = [encoder_decoder_model, clip_prefix_model, adapted_model, vision_encoder_decoder_model]


@pytest.fixture(params=MODELS, ids=lambda build: build.__name__)
def model(request):
    torch.manual_seed(0)
    built = request.param()
    for name, parameter in built.named_parameters():
        if "lora" not in name:  # norms too: no two are alike
            parameter.data.add_(0.4 * torch.randn_like(parameter))
    return built.eval()


@pytest.fixture
def fuse(monkeypatch):
    """Let the captioners write by fused operations; returns the number of tokens written so far."""
    written = []

    def switch_on():
        for module in (encoder_decoder, gpt2_step):
            monkeypatch.setattr(module, "can_fuse", lambda part, device: not part.training)
        original = encoder_decoder.add_norm

        def counted(x, change, norm):
            written.extend([None] * (change is None))  # once a step
            return original(x, change, norm)

        for module in (encoder_decoder, gpt2_step):
            monkeypatch.setattr(module, "add_norm", counted)
        return written

    return switch_on


def features(count=3):
    return torch.randn(count, 5, 16, generator=torch.Generator().manual_seed(0))


def batch(count=3):
    return CaptionBatch([str(number) for number in range(count)], features=features(count))


def context_of(model):
    if isinstance(model, HFCaptioner):
        model._image_part.requires_grad_(False)  # cached features are of a frozen encoder
    with torch.no_grad():
        return model.encode(batch())


SAMPLE, BEAMS = Decoding("sample", max_length=9), Decoding("beam", max_length=6, num_beams=3)


@pytest.mark.parametrize("prompt", ["", "w1 w2"])
def test_captions_are_those_of_the_usual_step(model, prompt, fuse):
    model.prompt = prompt
    context = context_of(model)
    usual = model.generate(context, SAMPLE, 4, with_greedy=True)
    steps = fuse()
    fused = model.generate(context, SAMPLE, 4, with_greedy=True)
    assert len(steps) == 8  # all but the first token, which comes from the prompt's logits
    assert torch.equal(fused.tokens, usual.tokens) and fused.texts == usual.texts
    torch.testing.assert_close(fused.logprobs, usual.logprobs, atol=2e-5, rtol=1e-5)
    forced = model.logprobs(context, fused.tokens, fused.mask)
    given = len(prompt_ids(TOKENIZER, prompt)) - 1
    torch.testing.assert_close(fused.logprobs[:, :4, given:], forced[:, :4, given:], atol=2e-5, rtol=1e-5)


def test_captions_under_conditions_are_those_of_the_usual_step(model, fuse):
    """Each caption of an image under its own length; its tokens' positions do not count the conditions in front."""
    model._add_conditions({"length": {"kind": "length", "longest": 9}, "box": "box"}, 16)
    for parameter in model.conditions.parameters():
        parameter.data.normal_()
    lengths, boxes = torch.tensor([[1.0, 2.0], [torch.nan, 4.0], [9.0, 9.0]]), torch.rand(3, 4)
    given = dataclasses.replace(batch(), conditions={"length": lengths, "box": boxes})
    context_of(model)
    with torch.no_grad():
        context = model.encode(given)
    usual = [model.generate(context, decoding, 3) for decoding in (SAMPLE, BEAMS)]
    steps = fuse()
    fused = [model.generate(context, decoding, 3) for decoding in (SAMPLE, BEAMS)]
    assert len(steps) >= 8 and len({text for texts in fused[0].texts for text in texts}) > 5
    for one, other in zip(usual, fused, strict=True):
        assert torch.equal(one.tokens, other.tokens) and one.tokens.shape[1] == 6
        torch.testing.assert_close(one.logprobs, other.logprobs, atol=2e-5, rtol=1e-5)


def test_captions_do_not_depend_on_how_many_share_an_image(model, fuse):
    context = context_of(model)
    fuse()
    many, few = (model.generate(context, SAMPLE, count).texts for count in (5, 2))
    assert [texts[:2] for texts in many] == few
    assert len({text for texts in many for text in texts}) > 5


def test_beams_are_those_of_the_usual_step(model, fuse):
    context = context_of(model)
    usual = model.generate(context, BEAMS, 2)
    steps = fuse()
    assert model.generate(context, BEAMS, 2).texts == usual.texts and steps


def test_masked_context_takes_the_usual_step(model, fuse):
    context = context_of(model)
    whole = model.generate(context, SAMPLE, 3).texts
    context.mask = torch.ones(context.states.shape[:2], dtype=torch.bool)
    assert model.generate(context, SAMPLE, 3).texts == whole  # a mask of ones changes nothing
    context.mask[:, 1] = False
    masked = model.generate(context, SAMPLE, 3)
    steps = fuse()
    again = model.generate(context, SAMPLE, 3)
    assert again.texts == masked.texts != whole and not steps
    context.states[:, 1] = 7.0  # hidden
    assert model.generate(context, SAMPLE, 3).texts == masked.texts
