"""Captioners with conditions, of every kind that takes them: teacher forcing, decoding, guidance, what stays."""

import copy
import dataclasses

import pytest
import torch
from tiny_captioners import CONDITIONS, HF_CONFIGS, TAKE_NONE, TEXT, VISION, batch_for, build, tiny_tokenizer

from capkit.decoding.config import Decoding
from capkit.decoding.guide import Guide
from capkit.errors import UsageError
from capkit.models.captioners.clip_prefix import ClipPrefix
from capkit.models.captioners.hf_captioner import HFCaptioner
from capkit.models.captioners.hf_families import FAMILIES
from capkit.types import CaptionBatch

CLOSE = {"atol": 3e-5, "rtol": 1e-4}
METHODS = [
    (Decoding(max_length=8), 1),
    (Decoding("sample", max_length=8, temperature=0.8), 2),
    (Decoding("beam", num_beams=3, max_length=8), 2),
]
BOX = torch.tensor([0.1, 0.2, 0.6, 0.7])


@pytest.fixture
def batch(conditioned):
    """Four images, two captions each: bins of images, lengths and boxes of captions, some not given."""
    batch = batch_for(conditioned)[0:4]
    batch.conditions = {
        "alignment": torch.tensor([0.0, 3.0, torch.nan, 1.0]),
        "length": torch.tensor([[1.0, 2.0], [5.0, 6.0], [torch.nan, 4.0], [9.0, 30.0]]),
        "box": (BOX + torch.arange(8).view(4, 2, 1) / 40).masked_fill(torch.arange(8).view(4, 2, 1) == 3, torch.nan),
    }
    return batch


def of_images(batch, **values):
    batch = copy.copy(batch)
    batch.conditions = {name: torch.full((len(batch),), value) for name, value in values.items()}
    return batch


def logprobs(captioner, batch):
    return captioner.logprobs(captioner.encode(batch), batch.tokens, batch.mask)


def test_logprobs_and_losses_are_those_of_the_logits_and_conditions_change_them(conditioned, batch):
    context = conditioned.encode(batch)
    logits = conditioned(context, batch.tokens, batch.mask)[:, :, :-1].log_softmax(-1)
    expected = logits.gather(-1, batch.tokens[..., 1:, None])[..., 0].masked_fill(~batch.mask[..., 1:], 0)
    torch.testing.assert_close(logprobs(conditioned, batch), expected, **CLOSE)
    torch.testing.assert_close(conditioned.token_losses(context, batch.tokens, batch.mask, 0.0), -expected, **CLOSE)
    for name, values in batch.conditions.items():
        other = copy.copy(batch)
        other.conditions = {**batch.conditions, name: torch.full_like(values, torch.nan)}
        assert (logprobs(conditioned, other) - expected).abs().max() > 1e-2, name


@pytest.mark.parametrize(("decoding", "num_samples"), METHODS, ids=lambda value: getattr(value, "method", ""))
def test_stepwise_decoding_equals_teacher_forcing_in_any_batch(conditioned, batch, decoding, num_samples):
    context = conditioned.encode(batch)
    whole = conditioned.generate(context, decoding, num_samples)
    assert whole.tokens.shape[:2] == (4, 2 * num_samples)
    forced = conditioned.logprobs(context, whole.tokens, whole.mask, temperature=decoding.temperature)
    torch.testing.assert_close(whole.logprobs, forced, **CLOSE)
    parts = [conditioned.generate(conditioned.encode(batch[i : i + 2]), decoding, num_samples).texts for i in (0, 2)]
    assert whole.texts == parts[0] + parts[1]
    assert len({text for texts in whole.texts for text in texts}) > 1


@pytest.mark.parametrize(("decoding", "num_samples"), METHODS, ids=lambda value: getattr(value, "method", ""))
def test_a_value_of_an_image_equals_the_same_value_of_each_of_its_captions(conditioned, batch, decoding, num_samples):
    value = torch.tensor([1.0, torch.nan, 4.0, 9.0])
    of_image, of_each = copy.copy(batch), copy.copy(batch)
    of_image.conditions, of_each.conditions = {"length": value}, {"length": value[:, None].expand(4, 2)}
    torch.testing.assert_close(logprobs(conditioned, of_image), logprobs(conditioned, of_each), **CLOSE)
    one, two = (conditioned.encode(some) for some in (of_image, of_each))
    alone = conditioned.generate(one, decoding, 2 * num_samples if decoding.method == "sample" else num_samples)
    each = conditioned.generate(two, decoding, num_samples)
    if decoding.method == "sample":
        assert each.texts == alone.texts
    else:
        assert each.texts == [texts * 2 for texts in alone.texts]


def test_captions_with_conditions_of_their_own_share_one_encoding(conditioned, batch):
    """Of images that the network looks at: those that pass through its image part."""
    seen = []
    image_part = conditioned._image_part if hasattr(conditioned, "_image_part") else conditioned.image_encoder
    image_part.register_forward_hook(lambda module, args, output: seen.append(1))
    context = conditioned.encode(batch)
    for decoding, num_samples in METHODS:
        conditioned.generate(context, decoding, num_samples)
    conditioned.logprobs(context, batch.tokens, batch.mask)
    assert seen == [1] and len(context.states) == 4 and context.conditions.shape[:2] == (4, 2)


@pytest.mark.parametrize(("decoding", "num_samples"), METHODS, ids=lambda value: getattr(value, "method", ""))
def test_guidance_of_scale_one_is_plain_decoding_and_keeps_the_conditions(conditioned, batch, decoding, num_samples):
    settings = {name: getattr(decoding, name) for name in ("method", "num_beams", "max_length", "temperature")}
    context = conditioned.encode(batch)
    plain, same, other = (
        conditioned.generate(context, Decoding(**settings, guide=guide), num_samples)
        for guide in (None, Guide(1.0), Guide(3.0))
    )
    assert torch.equal(plain.tokens, same.tokens) and plain.texts != other.texts
    torch.testing.assert_close(plain.logprobs, same.logprobs, atol=5e-6, rtol=0)
    assert torch.equal(context.without_image().conditions, context.conditions)


def test_guidance_compares_with_a_missing_image_under_the_same_conditions(conditioned, batch):
    """Twice the log-probabilities with the image less those without it, both with teacher forcing, worked out here."""
    context = conditioned.encode(batch)
    written = conditioned.generate(context, Decoding(max_length=5, guide=Guide(2.0)))
    with_image, without = (
        conditioned(some, written.tokens, written.mask)[:, :, :-1].log_softmax(-1)
        for some in (context, context.without_image())
    )
    expected = (2 * with_image - without).log_softmax(-1).gather(-1, written.tokens[..., 1:, None])[..., 0]
    torch.testing.assert_close(written.logprobs, expected.masked_fill(~written.mask[..., 1:], 0), **CLOSE)


def test_a_missing_image_has_no_conditions_given(conditioned, batch):
    null = conditioned.null_context(4, "cpu")
    torch.testing.assert_close(null.conditions, conditioned.encode(of_images(batch)).conditions)


def test_what_stands_behind_changes_nothing_before(conditioned, batch):
    """Conditions in front do not move the mask: a token sees itself and what is before it, and all conditions."""
    context, changed = conditioned.encode(batch), batch.tokens.clone()
    changed[..., 5:] = 9
    before, after = (conditioned(context, tokens, batch.mask) for tokens in (batch.tokens, changed))
    torch.testing.assert_close(before[:, :, :5], after[:, :, :5], **CLOSE)
    assert (before[:, :, 5] - after[:, :, 5]).abs().max() > 1e-3


def test_micro_batches_in_another_order_take_their_conditions_along(conditioned, batch):
    rows = [2, 0, 3, 1]
    torch.testing.assert_close(logprobs(conditioned, batch.select(rows)), logprobs(conditioned, batch)[rows], **CLOSE)


def test_every_trainable_parameter_gets_a_gradient(conditioned, batch):
    conditioned.train()
    conditioned.token_losses(conditioned.encode(batch), batch.tokens, batch.mask, 0.1).sum().backward()
    assert [name for name, p in conditioned.named_parameters() if p.requires_grad and p.grad is None] == []
    parts = conditioned.conditions.named_parameters()
    assert all(parameter.grad.any() for name, parameter in parts)


def test_other_numbers_of_captions_than_of_conditions_are_refused(conditioned, batch):
    three = torch.cat([batch.tokens, batch.tokens[:, :1]], 1)
    with pytest.raises(UsageError, match="as many captions of an image as it has conditions"):
        conditioned.logprobs(conditioned.encode(batch), three, three > -1)


def test_candidates_and_a_greedy_baseline_are_of_images(conditioned, batch):
    context = conditioned.encode(batch)
    with pytest.raises(UsageError, match="num_candidates=2 are candidates of an image"):
        conditioned.generate(context, Decoding("sample", max_length=4, num_candidates=2), 2)
    with pytest.raises(UsageError, match="with_greedy goes with"):
        conditioned.generate(context, Decoding("sample", max_length=4), 2, with_greedy=True)
    alone = conditioned.encode(of_images(batch, length=3.0))
    assert conditioned.generate(alone, Decoding("sample", max_length=4), 2, with_greedy=True).tokens.shape[1] == 3


@pytest.mark.parametrize("name", ["encoder_decoder", "prefix_gpt2_mlp", "vit_gpt2"])
def test_without_conditions_weights_are_the_same_and_with_them_all_others(name):
    plain, conditioned = (build(name, 20, is_conditioned) for is_conditioned in (False, True))
    own, with_parts = plain.state_dict(), conditioned.state_dict()
    assert not [key for key in own if key.startswith("conditions")]
    assert {key for key in with_parts if not key.startswith("conditions.parts.")} == own.keys()
    batch = batch_for(plain)
    assert plain.encode(batch).conditions is None
    batch.conditions = {"length": torch.ones(len(batch))}
    assert plain.encode(batch).conditions is None  # of a data source that has some; this captioner reads none


def positions_of(captioner):
    """The learned positions of a captioner's decoder."""
    names = ("decoder.positions", "lm.transformer.wpe.weight", "model.decoder.transformer.wpe.weight")
    names = (*names, "model.decoder.bert.embeddings.position_embeddings.weight")
    return next(parameter for name, parameter in captioner.named_parameters() if name in names)


@pytest.mark.parametrize("name", ["encoder_decoder", "prefix_gpt2_without_bos", "vit_gpt2", "vit_bert"])
def test_a_token_keeps_its_position_behind_conditions(name):
    """The positions that are read, by the rows of their table that get a gradient, are those without conditions."""
    read = []
    for is_conditioned in (False, True):
        captioner = copy.deepcopy(build(name, is_conditioned=is_conditioned))
        logprobs(captioner, batch_for(captioner)).sum().backward()
        read.append(positions_of(captioner).grad.any(-1).nonzero().flatten().tolist())
    assert read[0] == read[1] == list(range(len(read[0])))


@pytest.mark.parametrize("model_type", ["roberta", "camembert"])
def test_decoders_that_count_positions_from_behind_the_padding(model_type):
    """Their first token is at position 1 + the padding's id; written step by step and read at once they agree."""
    read = []
    for conditions in (None, CONDITIONS):
        torch.manual_seed(0)
        encoder, decoder = {"model_type": "vit", **VISION}, {"model_type": model_type, **TEXT, "pad_token_id": 0}
        captioner = HFCaptioner(
            encoder=encoder, decoder=decoder, tokenizer=tiny_tokenizer(), max_length=24, conditions=conditions
        )
        for parameter in captioner.parameters():
            parameter.data.normal_(std=0.25)
        batch = batch_for(captioner.eval())
        batch.conditions = {"length": torch.tensor([1.0, 2.0, torch.nan, 4.0] * 2)}
        logprobs(captioner, batch).sum().backward()
        table = captioner.model.decoder.base_model.embeddings.position_embeddings.weight
        read.append(table.grad.any(-1).nonzero().flatten().tolist())
        context = captioner.encode(batch)
        written = captioner.generate(context, Decoding(max_length=8))
        forced = captioner.logprobs(context, written.tokens, written.mask)
        torch.testing.assert_close(written.logprobs, forced, **CLOSE)
    assert read[0] == read[1] == list(range(1, 1 + len(read[0])))


@pytest.mark.parametrize("name", sorted(set(TAKE_NONE) & set(HF_CONFIGS)))
def test_models_that_take_none_say_why_before_they_are_built(name, monkeypatch):
    kind = HF_CONFIGS[name]["model_type"]
    monkeypatch.setitem(FAMILIES, kind, dataclasses.replace(FAMILIES[kind], model_class=None))
    with pytest.raises(UsageError, match=f"got {kind}, which takes none: "):
        HFCaptioner(config=HF_CONFIGS[name], tokenizer=tiny_tokenizer(), conditions=CONDITIONS)


def test_language_models_that_count_their_own_positions_are_refused():
    lm = {"model_type": "bloom", "hidden_size": 16, "n_layer": 1, "n_head": 2}
    with pytest.raises(UsageError, match="whose positions can be given, since conditions have none; bloom counts"):
        ClipPrefix(lm, tiny_tokenizer(), feature_width=4, prefix_length=2, conditions=CONDITIONS)


def test_a_batch_takes_its_conditions_along():
    batch = CaptionBatch(["a", "b", "c"], conditions={"length": torch.arange(3.0), "box": torch.rand(3, 2, 4)})
    assert batch.select([2, 0]).conditions["length"].tolist() == [2, 0]
    assert torch.equal(batch[1:3].conditions["box"], batch.conditions["box"][1:])
