"""DDP and every ZeRO stage do what one process does with the whole batch, in one micro-batch and in several."""

import pytest
import torch
from steps import Outcome, batches_of_all_ranks, dual_encoder, train, train_all

import capkit.pair_module
from capkit.testing import run_distributed

pytestmark = pytest.mark.slow

KINDS = ("captioner", "dual_encoder")
STAGES = ("zero1", "zero2", "zero3")
WHOLE = [(kind, strategy, size) for kind in KINDS for strategy in ("ddp", *STAGES) for size in (None, 2)]
DROPOUT = [(kind, strategy, 2, 0.3) for kind in KINDS for strategy in ("ddp", *STAGES)]
BF16 = [(kind, strategy, 2, 0.0, "bf16-mixed") for kind in KINDS for strategy in STAGES]


@pytest.fixture(scope="module")
def alone() -> dict[str, Outcome]:
    return {kind: train(kind, "auto", None) for kind in KINDS}


@pytest.fixture(scope="module")
def two_ranks() -> dict[tuple, list[Outcome]]:
    cases = [*WHOLE, *DROPOUT, *BF16]
    outcomes = run_distributed(train_all, 2, cases, timeout_s=400)
    return {case: list(ranks) for case, *ranks in zip(cases, *outcomes, strict=True)}


def same_trajectory(a: Outcome, b: Outcome) -> bool:
    return torch.allclose(torch.tensor(a.rows), torch.tensor(b.rows), rtol=5e-5, atol=0)


def same_gradient(a: Outcome, b: Outcome) -> bool:
    cosine = torch.cosine_similarity(a.gradient.double(), b.gradient.double(), dim=0)
    return bool(cosine > 1 - 1e-6 and abs(a.gradient.norm() / b.gradient.norm() - 1) < 1e-5)


@pytest.mark.parametrize("case", WHOLE, ids=str)
def test_losses_and_gradient_norms_are_those_of_one_process(alone, two_ranks, case):
    first, second = two_ranks[case]
    assert first.rows == second.rows
    assert same_trajectory(first, alone[case[0]])


@pytest.mark.parametrize("case", WHOLE, ids=str)
def test_the_clipped_gradient_that_reaches_the_optimizer_is_that_of_one_process(alone, two_ranks, case):
    assert same_gradient(two_ranks[case][0], alone[case[0]])
    assert float(alone[case[0]].gradient.norm()) == pytest.approx(0.1, rel=1e-4)  # clip_norm


@pytest.mark.parametrize("case", WHOLE, ids=str)
def test_trained_weights_are_those_of_one_process(alone, two_ranks, case):
    one, zero = alone[case[0]].weights, two_ranks[case][0].weights
    assert list(one) == list(zero)
    assert two_ranks[case][1].weights == {} or case[1] == "ddp"
    for name, value in one.items():
        torch.testing.assert_close(zero[name], value, rtol=1e-3, atol=1e-3, msg=name)


@pytest.mark.parametrize("case", WHOLE, ids=str)
def test_validation_is_that_of_one_process_when_a_rank_has_more_batches(alone, two_ranks, case):
    first, second = two_ranks[case]
    assert first.val_loss == second.val_loss == pytest.approx(alone[case[0]].val_loss, rel=1e-3)


def test_a_lost_micro_batch_would_be_noticed(alone, monkeypatch):
    half = [batch[:4] for batch in batches_of_all_ranks()]
    monkeypatch.setattr("steps.batches", lambda: half)
    for kind in KINDS:
        lost = train(kind, "auto", None)
        assert not same_trajectory(lost, alone[kind])
        assert not same_gradient(lost, alone[kind])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stage", STAGES)
def test_with_dropout_zero_draws_what_ddp_draws(alone, two_ranks, kind, stage):
    ddp, zero = (two_ranks[kind, strategy, 2, 0.3][0] for strategy in ("ddp", stage))
    assert same_trajectory(zero, ddp)
    assert same_gradient(zero, ddp)
    assert not same_trajectory(zero, alone[kind])


@pytest.mark.parametrize("case", BF16, ids=str)
def test_mixed_precision_trains_float32_weights_to_about_the_same_loss(alone, two_ranks, case):
    outcome = two_ranks[case][0]
    assert {value.dtype for value in outcome.weights.values() if value.is_floating_point()} == {torch.float32}
    assert outcome.rows[0][0] == pytest.approx(alone[case[0]].rows[0][0], rel=0.05)
    assert outcome.rows != alone[case[0]].rows


def test_the_second_pass_of_a_micro_batch_replays_the_dropout_of_the_first(monkeypatch):
    cached = train("dual_encoder", "auto", 2, dropout=0.3)
    monkeypatch.setattr(capkit.pair_module, "checkpoint", lambda model, *inputs, use_reentrant: model(*inputs))
    kept = train("dual_encoder", "auto", 2, dropout=0.3)
    assert cached.rows == kept.rows
    assert torch.equal(cached.gradient, kept.gradient)


def test_a_second_pass_with_other_dropout_would_be_noticed(monkeypatch):
    replayed = train("dual_encoder", "auto", 2, dropout=0.3)

    def other_dropout(model, *inputs, use_reentrant):
        return torch.utils.checkpoint.checkpoint(model, *inputs, use_reentrant=False, preserve_rng_state=False)

    monkeypatch.setattr(capkit.pair_module, "checkpoint", other_dropout)
    assert not same_gradient(train("dual_encoder", "auto", 2, dropout=0.3), replayed)


def test_the_dual_encoder_here_has_what_is_hard():
    model = dual_encoder(None).model
    assert model.scale.log_scale.ndim == 0
    assert any(not p.requires_grad for p in model.parameters())
    assert any(p.requires_grad and p.numel() % 2 for p in model.parameters())
