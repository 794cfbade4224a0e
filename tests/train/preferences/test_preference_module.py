"""A step on preferences is the same however its batch is cut; references, and the alarm."""

import math
from dataclasses import replace

import pytest
import torch
from rl_steps import NUM_IMAGES, Keep, captioner, differences, tokenizer, trainer_of
from torch.utils.data import DataLoader

from capkit.data.preference_pairs import PAIR
from capkit.decoding.config import Decoding
from capkit.distributed.collectives import rank, world_size
from capkit.errors import UsageError
from capkit.objectives.cross_entropy import CrossEntropy
from capkit.objectives.preference.dpo import DPO
from capkit.optim.optimizers import AdamW
from capkit.optim.schedules import Linear
from capkit.testing.distributed import run_distributed
from capkit.text.tokenizers import encode_captions
from capkit.train.preferences.module import PreferenceModule
from capkit.types import CaptionBatch

CHOSEN = ["a", "a red ball", "one two three four five six", "a b", "c", "x y z", "u", "p q r s t"]
REJECTED = ["a b", "a ball", "one", "c", "x y z a b", "z y x", "a u", "p q"]


class Recording(PreferenceModule):
    rollouts = ()


def batches(num_steps=2):
    texts = [[chosen, rejected] for chosen, rejected in zip(CHOSEN, REJECTED, strict=True)]
    tokens, mask, prompt_length = encode_captions(tokenizer(), texts, prompt="", max_length=12)
    features = torch.randn(num_steps, NUM_IMAGES, 5, 6, generator=torch.Generator().manual_seed(1))
    metadata = [{PAIR: {"number": number}} for number in range(NUM_IMAGES)]
    keys = [str(number) for number in range(NUM_IMAGES)]
    return [CaptionBatch(keys, None, part, tokens, mask, prompt_length, metadata=metadata) for part in features]


def module_of(lora=False, dropout=0.0, lr=0.01, objective=None, **settings):
    optimizer = AdamW(lr=lr, clip_norm=0.5, eps=1e-4)
    chosen = objective or DPO(beta=0.5, label_smoothing=0.1, likelihood=0.1)
    return Recording(captioner(dropout, lora), chosen, optimizer, Linear(), Decoding(), **settings)


def train(strategy="auto", lora=False, dropout=0.0, objective=None, kept=False, **settings):
    keep, module = Keep(), module_of(lora, dropout, objective=objective, **settings)
    rows = list(range(rank(), NUM_IMAGES, world_size()))
    if kept:
        (whole,) = batches(1)
        module.reference_logprobs = {"train": module.logprobs_of(whole)}
    module.keep_reference()
    steps = batches(1) * 2 if kept is not None else batches()
    loader = DataLoader([batch.select(rows) for batch in steps], batch_size=None)
    trainer_of(strategy, 2, [keep]).fit(module, loader)
    return keep.outcome


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("lora", [False, True])
def test_micro_batches_equal_the_whole_batch(lora, size):
    whole = train(lora=lora)
    assert differences(whole, train(lora=lora, micro_batch_size=size)) == []
    assert all(row["grad_norm"] > 1e-3 for row in whole.rows)


def both():
    return [train("ddp"), train("ddp", micro_batch_size=2)]


@pytest.mark.integration
def test_two_processes_of_four_pairs_equal_one_of_eight():
    whole = train()
    for ranks in zip(*run_distributed(both, 2, timeout_s=300), strict=True):
        for outcome in ranks:
            assert differences(whole, outcome) == []


def adapted_and_partitioned():
    lora = [train("ddp", lora=True), train("ddp", lora=True, micro_batch_size=2), train("zero2", lora=True)]
    return [*lora, train("zero2"), train("zero2", micro_batch_size=2), train("zero2", kept=True)]


@pytest.mark.nightly
def test_two_processes_with_adapters_under_zero_2_and_with_a_kept_reference_equal_one():
    whole = [*[train(lora=True)] * 3, *[train()] * 2, train(kept=True)]
    for one, *ranks in zip(whole, *run_distributed(adapted_and_partitioned, 2, timeout_s=300), strict=True):
        for outcome in ranks:
            known = one if outcome.weights else replace(one, weights={})  # of ZeRO rank 0 alone has them all
            assert differences(known, outcome) == []
        assert ranks[0].weights


def test_the_first_step_is_at_the_reference_and_the_second_is_not():
    """Whatever dropout the model has: it is off, so that every margin is 0 at the start."""
    first, second = train(dropout=0.3).rows
    assert first["preference/margin"] == pytest.approx(0, abs=1e-6) and first["preference/accuracy"] == 0.5
    assert second["preference/margin"] > 0.01 and second["preference/accuracy"] > 0.5
    assert first["preference/chosen_logprob"] < 0


@pytest.mark.parametrize("lora", [False, True])
def test_log_probabilities_kept_before_the_run_equal_those_of_the_reference(lora):
    assert differences(train(lora=lora), train(lora=lora, kept=True)) == []


def test_a_copy_and_adapters_that_are_off_are_the_policy_before():
    for lora in (False, True):
        module = module_of(lora)
        module.keep_reference()
        assert (module.reference.frozen is None) == lora
        (batch,) = batches(1)
        before = module.logprobs_of(batch)
        for parameter in module.model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.1
        torch.testing.assert_close(module.reference_of(batch, "val"), before)
        assert (module.logprobs_of(batch) - before).abs().min() > 1e-4
        if module.reference.frozen is not None:
            assert not any(parameter.requires_grad for parameter in module.reference.frozen.parameters())


def test_the_loss_and_the_gradient_of_a_step_are_the_mean_over_pairs_by_hand():
    """At the reference, of plain DPO: the loss is log 2, and h's gradient counts half."""
    (batch,) = batches(1)
    model = module_of().model
    logprobs = model.logprobs(model.encode(batch), batch.tokens, batch.mask)
    said = (logprobs * CrossEntropy.target_mask(batch)).sum(-1)
    loss = -0.5 * 0.5 * sum(said[row, 0] - said[row, 1] for row in range(8)) / 8
    gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    norm = torch.stack([gradient.norm() for gradient in gradients if gradient is not None]).norm()
    for size in (None, 3):
        row = train(objective=DPO(beta=0.5), micro_batch_size=size).rows[0]
        assert row["grad_norm"] == pytest.approx(norm.item(), rel=1e-4)
        assert row["loss"] == pytest.approx(math.log(2), rel=1e-5)


def test_a_checkpoint_of_other_pairs_is_not_resumed():
    module, checkpoint = module_of(), {}
    module.pairs = "these"
    module.on_save_checkpoint(checkpoint)
    module.on_load_checkpoint(checkpoint)
    module.pairs = "others"
    with pytest.raises(UsageError, match="trained on, these, got others; give that file"):
        module.on_load_checkpoint(checkpoint)


def test_a_chosen_caption_that_becomes_improbable_is_told_once():
    with pytest.warns(UserWarning, match=r"less probable, by .* nats a token.*max_drop=0.01") as told:
        train(objective=_Falling(max_drop=0.01), lr=0.05)
    assert sum("less probable" in str(warning.message) for warning in told) == 1


class _Falling(DPO):
    """Lowers both captions."""

    def __call__(self, logprobs, reference, mask):
        output = super().__call__(logprobs, reference, mask)
        output.loss_sum = (logprobs * mask).sum()
        return output


@pytest.mark.unchecked
def test_an_objective_of_another_kind_is_refused():
    with pytest.raises(UsageError, match="expected objective=dpo"):
        module_of(objective=CrossEntropy())
