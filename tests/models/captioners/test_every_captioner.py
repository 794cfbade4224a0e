"""What the protocol promises, for every captioner."""

import pickle

import pytest
import torch

from capkit.decoding.config import Decoding
from capkit.models.captioners.base import Captioner
from capkit.types import CaptionBatch

CLOSE = {"atol": 3e-5, "rtol": 1e-4}


def logprobs(captioner, batch, **settings):
    return captioner.logprobs(captioner.encode(batch), batch.tokens, batch.mask, **settings)


def test_follows_the_protocol(captioner):
    assert isinstance(captioner, Captioner)


def test_logprobs_are_the_log_softmax_of_the_logits_gathered(captioner, batch):
    for temperature in (1.0, 0.7):
        logits = captioner(captioner.encode(batch), batch.tokens, batch.mask)[:, :, :-1]
        expected = (logits / temperature).log_softmax(-1).gather(-1, batch.tokens[..., 1:, None]).squeeze(-1)
        expected = expected.masked_fill(~batch.mask[..., 1:], 0)
        torch.testing.assert_close(logprobs(captioner, batch, temperature=temperature), expected, **CLOSE)


def test_losses_without_smoothing_are_the_negative_logprobs(captioner, batch):
    losses = captioner.token_losses(captioner.encode(batch), batch.tokens, batch.mask, 0.0)
    torch.testing.assert_close(losses, -logprobs(captioner, batch), **CLOSE)


def test_one_batch_of_eight_equals_two_of_four(captioner, batch):
    parts = torch.cat([logprobs(captioner, batch[0:4]), logprobs(captioner, batch[4:8])])
    torch.testing.assert_close(logprobs(captioner, batch), parts, **CLOSE)


def test_two_captions_sharing_an_encoding_equal_one_at_a_time(captioner, batch):
    context = captioner.encode(batch)
    both = captioner(context, batch.tokens, batch.mask)
    for k in range(2):
        alone = captioner(context, batch.tokens[:, k : k + 1], batch.mask[:, k : k + 1])
        torch.testing.assert_close(both[:, k : k + 1], alone, **CLOSE)


def test_more_padding_changes_nothing(captioner, batch):
    padded = torch.nn.functional.pad(batch.tokens, (0, 4), value=captioner.tokenizer.pad_token_id)
    mask = torch.nn.functional.pad(batch.mask, (0, 4), value=False)
    wider = captioner.logprobs(captioner.encode(batch), padded, mask)
    torch.testing.assert_close(wider[..., :-4], logprobs(captioner, batch), **CLOSE)
    assert (wider[..., -4:] == 0).all()


def test_what_stands_in_padding_changes_nothing(captioner, batch):
    other = torch.where(batch.mask, batch.tokens, 7)
    written = captioner.logprobs(captioner.encode(batch), other, batch.mask)
    torch.testing.assert_close(written, logprobs(captioner, batch), **CLOSE)


def test_logits_do_not_see_later_tokens(captioner, batch):
    context = captioner.encode(batch)
    changed = batch.tokens.clone()
    changed[..., 5:] = 9
    before, after = (captioner(context, tokens, batch.mask) for tokens in (batch.tokens, changed))
    torch.testing.assert_close(before[:, :, :5], after[:, :, :5], **CLOSE)
    assert (before[:, :, 5] - after[:, :, 5]).abs().max() > 1e-3


def test_another_image_gives_other_logits(captioner, batch):
    same = CaptionBatch(batch.keys, batch.pixels.flip(0), None, batch.tokens, batch.mask)
    assert (logprobs(captioner, batch) - logprobs(captioner, same)).abs().max() > 1e-2


def test_masked_context_positions_are_not_attended(captioner, batch):
    """The second position: a prefix's last one may stand in the place of BOS, where the first word is predicted."""
    context = captioner.encode(batch)
    context.mask = torch.ones(context.states.shape[:2], dtype=torch.bool)
    context.mask[:, 1] = False
    hidden = captioner.logprobs(context, batch.tokens, batch.mask)
    context.states = context.states.clone()
    context.states[:, 1] = 3.0
    torch.testing.assert_close(captioner.logprobs(context, batch.tokens, batch.mask), hidden, **CLOSE)
    context.mask[:, 1] = True
    assert (captioner.logprobs(context, batch.tokens, batch.mask) - hidden).abs().max() > 1e-3


def test_missing_image_is_one_context_for_all(captioner, batch):
    context = captioner.null_context(8, "cpu")
    assert len(context.keys) == 8
    values = captioner.logprobs(context, batch.tokens, batch.mask)
    torch.testing.assert_close(values[0], values[2], **CLOSE)  # captions 0 and 2 are equal, the images would differ
    assert (values - logprobs(captioner, batch)).abs().max() > 1e-2
    assert captioner.generate(context, Decoding(max_length=4)).tokens.shape[:2] == (8, 1)


def test_missing_image_can_stand_in_for_some_images_of_a_batch(captioner, batch):
    context, null = captioner.encode(batch), captioner.null_context(8, "cpu")
    dropped = torch.arange(8) % 2 == 0
    context.states = torch.where(dropped[:, None, None], null.states, context.states)
    mixed = captioner.logprobs(context, batch.tokens, batch.mask)
    torch.testing.assert_close(mixed[1::2], logprobs(captioner, batch)[1::2], **CLOSE)


def test_every_trainable_parameter_gets_a_gradient_and_no_other(captioner, batch):
    captioner.train()
    captioner.token_losses(captioner.encode(batch), batch.tokens, batch.mask, 0.1).sum().backward()
    missing = [n for n, p in captioner.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []
    assert all(p.grad is None for p in captioner.parameters() if not p.requires_grad)
    image_part = captioner._image_part if hasattr(captioner, "_image_part") else captioner.image_encoder
    assert any(p.grad is not None and p.grad.any() for p in image_part.parameters())


def test_a_caption_that_an_image_has_not_weighs_nothing_beside_the_others(captioner, batch):
    mask = batch.mask.clone()
    mask[2, 1] = False  # as of an image with fewer regions than others
    context = captioner.encode(batch)
    losses = captioner.token_losses(context, batch.tokens, mask, 0.1)
    whole = captioner.token_losses(context, batch.tokens, batch.mask, 0.1)
    whole[2, 1] = 0
    torch.testing.assert_close(losses, whole, **CLOSE)
    losses.sum().backward()
    assert all(p.grad.isfinite().all() for p in captioner.parameters() if p.grad is not None)


def test_batch_without_any_real_target_is_zero_and_keeps_the_graph(captioner, batch):
    mask = torch.zeros_like(batch.mask)
    loss = captioner.token_losses(captioner.encode(batch), batch.tokens, mask, 0.1).sum()
    loss.backward()
    assert loss.item() == 0
    trainable = [p for p in captioner.parameters() if p.requires_grad]
    assert all(p.grad is not None and not p.grad.any() for p in trainable)


@pytest.mark.parametrize(
    ("decoding", "num_samples"),
    [
        (Decoding(max_length=9), 1),
        (Decoding("sample", max_length=9, temperature=0.8), 3),
        (Decoding("beam", num_beams=3, max_length=9), 2),
    ],
)
def test_generation_equals_teacher_forcing_in_any_batch(captioner, batch, decoding, num_samples):
    context = captioner.encode(batch)
    whole = captioner.generate(context, decoding, num_samples)
    forced = captioner.logprobs(context, whole.tokens, whole.mask, temperature=decoding.temperature)
    torch.testing.assert_close(whole.logprobs, forced, **CLOSE)
    parts = [captioner.generate(captioner.encode(batch[i : i + 4]), decoding, num_samples).texts for i in (0, 4)]
    assert whole.texts == parts[0] + parts[1]
    assert len({text for image in whole.texts for text in image}) > 1


def test_cached_features_replace_pixels(captioner, batch):
    encoder = captioner._image_tokens if hasattr(captioner, "_image_tokens") else captioner.image_encoder
    encoder_of_images = getattr(captioner, "image_encoder", None)
    if encoder_of_images is not None:
        encoder_of_images.requires_grad_(False)  # features are those of an encoder that stays as it is
    features = encoder(batch.pixels).detach()
    cached = CaptionBatch(batch.keys, None, features, batch.tokens, batch.mask)
    torch.testing.assert_close(logprobs(captioner, cached), logprobs(captioner, batch), **CLOSE)


def test_weights_and_modes_survive_pickling(captioner, batch):
    copy = pickle.loads(pickle.dumps(captioner.state_dict()))
    expected = logprobs(captioner, batch)
    for parameter in captioner.parameters():
        parameter.data.zero_()
    captioner.load_state_dict(copy)
    torch.testing.assert_close(logprobs(captioner, batch), expected)


def test_captions_start_with_the_words_of_the_decoding(captioner, batch):
    """Written with the cache, their scores are those of teacher forcing on the whole caption."""
    context = captioner.encode(batch)
    samples = captioner.generate(context, Decoding(max_length=5, prompt="blue star"))
    assert all(text.startswith("blue star") for (text,) in samples.texts)
    forced = captioner.logprobs(context, samples.tokens, samples.mask)
    torch.testing.assert_close(samples.logprobs[..., 2:], forced[..., 2:], **CLOSE)
