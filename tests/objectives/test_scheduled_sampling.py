"""Scheduled sampling: what is read in place of the reference's words, by hand and against a loop."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_modular_likelihood import batch_for, build

from capkit.errors import UsageError
from capkit.objectives.modular import ModularLikelihood
from capkit.objectives.scheduled_sampling import _drawn, sampled_inputs
from capkit.optim.schedules import Linear
from capkit.utils import rng


def inputs_of(model, batch, probability, step=0):
    return sampled_inputs(model, model.encode(batch), batch, probability, 0, step)


def test_a_word_is_drawn_by_hand():
    logits = torch.tensor([0.2, 0.3, 0.5]).log().expand(5, 3)
    assert _drawn(logits, torch.tensor([0.0, 0.19, 0.21, 0.51, 0.999])).tolist() == [0, 0, 1, 2, 2]


@pytest.mark.parametrize("kind", ["lstm", "self_attention"])
@torch.no_grad()
def test_it_is_the_loop_that_reads_all_words_anew_at_each_place(kind):
    model = build(blocks=2, controller=kind)
    batch = batch_for(model)
    found, expected = inputs_of(model, batch, 0.6, step=3), batch.tokens[..., :-1].clone()
    context, changed = model.encode(batch), 0
    for image, k in np.ndindex(2, 2):
        own = np.array([rng.stable_hash(0, "scheduled_sampling", 3, batch.keys[image], k)], dtype=np.int64)
        for place in range(batch.prompt_length, expected.shape[-1]):
            if not batch.mask[image, k, place] or rng.uniform(own, 2 * place)[0] >= 0.6:
                continue
            hidden, _ = model.with_weights(context, expected[..., :place])
            passed = model.head(hidden)[image, k, -1].double().softmax(-1).cumsum(-1)
            expected[image, k, place] = int((passed <= rng.uniform(own, 2 * place + 1)[0]).sum())
            changed += int(expected[image, k, place] != batch.tokens[image, k, place])
    assert found.equal(expected) and changed >= 2


def test_draws_do_not_depend_on_the_batch_and_spare_the_prompt_and_padding():
    model = build()
    batch = batch_for(model)
    found = inputs_of(model, batch, 1.0)
    parts = torch.cat([inputs_of(model, batch[row : row + 1], 1.0) for row in range(2)])
    assert parts.equal(found)
    kept = ~batch.mask[..., :-1]
    kept[..., : batch.prompt_length] = True
    assert found[kept].equal(batch.tokens[..., :-1][kept])
    assert inputs_of(model, batch, 0.0).equal(batch.tokens[..., :-1])
    assert not inputs_of(model, batch, 1.0, step=1).equal(found)
    prompted = inputs_of(model, replace(batch, prompt_length=3), 1.0)
    assert prompted[..., :3].equal(batch.tokens[..., :3]) and not found[..., :3].equal(batch.tokens[..., :3])


def test_a_sure_captioner_reads_its_own_greedy_words():
    model = build()
    with torch.no_grad():
        model.head.weight.mul_(1e4)
    batch = batch_for(model)
    found, context = inputs_of(model, batch, 1.0), model.encode(batch)
    hidden, _ = model.with_weights(context, found)
    said = model.head(hidden).argmax(-1)[..., :-1]
    words = batch.mask[..., 1:-1]
    assert found[..., 1:][words].equal(said[words])


def test_the_loss_is_that_of_the_references_after_the_words_that_were_read():
    model = build()
    batch = batch_for(model)
    output = ModularLikelihood(0.0, sampling=Linear(0.0, 1.0), total_steps=10, seed=0)(model, batch, 7)
    inputs = sampled_inputs(model, model.encode(batch), batch, 0.7, 0, 7)
    assert not inputs.equal(batch.tokens[..., :-1])
    hidden, _ = model.with_weights(model.encode(batch), inputs)
    logprobs = model.head(hidden).log_softmax(-1).gather(-1, batch.tokens[..., 1:, None]).squeeze(-1)
    expected = -(logprobs * batch.mask[..., 1:]).sum()
    torch.testing.assert_close(output.loss_sum, expected)
    parameters = list(model.parameters())
    pairs = (
        torch.autograd.grad(x, parameters, retain_graph=True, allow_unused=True) for x in (output.loss_sum, expected)
    )
    for one, other in zip(*pairs, strict=True):
        if other is not None:
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    with torch.no_grad():  # validation reads the references
        plain = ModularLikelihood(0.0)(model, batch, 7).loss_sum
        torch.testing.assert_close(ModularLikelihood(0.0, sampling=1.0)(model, batch, 7).loss_sum, plain)


def test_a_schedule_needs_the_length_of_training_and_another_model_is_refused():
    with pytest.raises(UsageError, match=r"objective\.sampling is a schedule, which needs objective\.total_steps"):
        ModularLikelihood(sampling=Linear())
    batch = batch_for(build())
    with pytest.raises(UsageError, match="expected model=modular, got object"):
        ModularLikelihood(sampling=0.5)(object(), batch, 0)

    class AtOnce:
        def encode(self, batch):
            return None

        def token_losses_and_weights(self, *arguments):
            raise AssertionError

    with pytest.raises(UsageError, match="expected a captioner that reads word by word, got AtOnce"):
        ModularLikelihood(sampling=0.5)(AtOnce(), batch, 0)
