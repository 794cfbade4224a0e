"""What every captioner that answers prompts must do; both kinds of text writers are held to it.

`batch_for(model, prompts, captions)` makes a batch of three images with two prompts each.
"""

import copy

import torch

from capkit.decoding.config import Decoding

CLOSE = {"atol": 3e-5, "rtol": 1e-4}
PROMPTS = [["red", "a red circle is left of"], ["the blue square near one star .", "small"], ["green star", "a a a"]]
CAPTIONS = [
    ["a red circle.", "star"],
    ["a blue square is left of the circle.", "one"],
    ["near", "a small green star ."],
]
METHODS = {
    "greedy": (Decoding(max_length=8), 1),
    "sample": (Decoding("sample", max_length=8, temperature=0.8), 2),
    "beam": (Decoding("beam", num_beams=3, max_length=8), 2),
}


def draw_weights(model, std):
    """Weights large enough that captions differ; those of adapters stay as they are."""
    torch.manual_seed(1)  # adapters have drawn
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and "lora_" not in name:
            parameter.data.normal_(std=std)
    return model.eval()


def logprobs_of(model, batch):
    return model.logprobs(model.encode(batch), batch.tokens, batch.mask)


def assert_logprobs_and_gradients(model, batch, rows):
    """They are those of `rows`: the log-probabilities of each caption's tokens, one prompt at a time."""
    found = logprobs_of(model, batch)
    expected = torch.stack([torch.nn.functional.pad(row, (0, found.shape[-1] - len(row))) for row in rows])
    torch.testing.assert_close(found.flatten(0, 1), expected, **CLOSE)
    losses = model.token_losses(model.encode(batch), batch.tokens, batch.mask, 0.0)
    torch.testing.assert_close(losses, -found, **CLOSE)
    weight = model.lm.get_input_embeddings().weight
    gradients = [torch.autograd.grad(value, weight)[0] for value in (losses.sum(), -torch.cat(rows).sum())]
    assert gradients[0].abs().max() > 1e-2
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-3)


def assert_prompts_matter_and_padding_does_not(model, batch_for):
    batch, wider = batch_for(model), batch_for(model)
    found = logprobs_of(model, batch)
    wider.prompts = torch.nn.functional.pad(batch.prompts, (5, 0), value=7)  # whatever stands in the padding
    wider.prompts_mask = torch.nn.functional.pad(batch.prompts_mask, (5, 0))
    torch.testing.assert_close(logprobs_of(model, wider), found, **CLOSE)
    other = batch_for(model, [["star", "star"]] * 3)
    assert (logprobs_of(model, other) - found).abs().amax((1, 2)).min() > 1e-2
    trimmed = wider.trim()
    assert torch.equal(trimmed.prompts, batch.prompts) and torch.equal(trimmed.prompts_mask, batch.prompts_mask)


def assert_decoding_is_teacher_forcing(model, batch, decoding, num_samples, num_given=0):
    """Whatever else is in the batch. The first `num_given` tokens are no choice of the model's. Returns the texts."""
    context = model.encode(batch)
    whole = model.generate(context, decoding, num_samples)
    assert whole.tokens.shape[:2] == (3, 2 * num_samples)
    forced = model.logprobs(context, whole.tokens, whole.mask, temperature=decoding.temperature)
    torch.testing.assert_close(whole.logprobs[..., num_given:], forced[..., num_given:], **CLOSE)
    alone = []
    for row in range(3):
        part = batch.select([row]).trim()
        alone += model.generate(model.encode(part), decoding, num_samples).texts
    assert whole.texts == alone
    assert len({text for texts in whole.texts for text in texts}) > 3
    return whole.texts


def assert_one_prompt_serves_all(model, batch):
    """With one prompt of an image, all captions answer it, as with an equal one of each. Returns the context."""
    of_image, of_each = copy.copy(batch), copy.copy(batch)
    of_image.prompts, of_image.prompts_mask = batch.prompts[:, :1], batch.prompts_mask[:, :1]
    of_each.prompts, of_each.prompts_mask = (x.expand(-1, 2, -1) for x in (of_image.prompts, of_image.prompts_mask))
    torch.testing.assert_close(logprobs_of(model, of_image), logprobs_of(model, of_each), **CLOSE)
    one, two = (model.encode(some) for some in (of_image, of_each))
    sample = Decoding("sample", max_length=8)
    assert model.generate(one, sample, 4).texts == model.generate(two, sample, 2).texts
    return one


def assert_missing_captions_cost_nothing(model, batch_for):
    batch = batch_for(model, [["red"], PROMPTS[1], PROMPTS[2]], [["a red circle."], *CAPTIONS[1:]])
    assert not batch.prompts_mask[0, 1].any()
    losses = model.token_losses(model.encode(batch), batch.tokens, batch.mask, 0.1)
    losses.sum().backward()
    assert losses.isfinite().all() and (losses[0, 1] == 0).all()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def assert_adapters_alone_train(plain, adapted, batch):
    torch.testing.assert_close(logprobs_of(plain, batch), logprobs_of(adapted, batch), **CLOSE)
    trained = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert trained and all("lora_" in name for name in trained)
