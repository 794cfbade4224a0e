"""DDP and every ZeRO stage do what one process does with the whole batch, in one micro-batch and in several.

Likelihood, contrastive, self-critical and self-retrieval objectives; docs/strategies.md has the table.
"""

import pickle
from pathlib import Path

import lightning.pytorch as pl
import pytest
import replay
import torch
from held import held_under
from sent import sent_under
from steps import CLIP_NORM, MODULES, Outcome, batches, batches_of_all_ranks, dual_encoder, loader, train, trainer_of
from tiers import chosen_tier

import capkit.train.dual_encoder_module
from capkit.distributed import zero
from capkit.distributed.cost_model import FLOAT, StepWorkload, model_state_bytes, traffic
from capkit.testing.distributed import run_distributed

pytestmark = pytest.mark.integration

KINDS = ("captioner", "dual_encoder", "self_critical", "self_retrieval")
STAGES = ("zero1", "zero2", "zero3")
OFFLOADED = ("zero2_offload", "zero3_offload")
WHOLE = [(kind, strategy, size) for kind in KINDS for strategy in ("ddp", *STAGES) for size in (None, 2)]
WHOLE += [(kind, strategy, 2) for kind in KINDS for strategy in OFFLOADED]
SELDOM = [("seldom_used", strategy, 2) for strategy in (*STAGES, *OFFLOADED)]
DROPOUT = [(kind, strategy, 2, 0.3) for kind in ("captioner", "dual_encoder") for strategy in ("ddp", *STAGES)]
BF16 = [(kind, strategy, 2, 0.0, "bf16-mixed") for kind in ("captioner", "dual_encoder") for strategy in STAGES]
BF16 += [(kind, "zero2", 2, 0.0, "bf16-mixed") for kind in ("self_critical", "self_retrieval")]
CASES = [*WHOLE, *SELDOM, *DROPOUT, *BF16]


def is_nightly(case: tuple) -> bool:
    """All but a cover of pairs: objective with stage, objective with micro-batches, stage with micro-batches.

    Stages that keep their states on the CPU go with the two objectives that differ most.
    """
    kind, strategy, size, *precision = case
    if kind == "seldom_used":
        return strategy in OFFLOADED
    if strategy in OFFLOADED:
        return kind not in ("captioner", "self_retrieval")
    odd = (KINDS.index(kind) + ("ddp", *STAGES).index(strategy)) % 2
    if len(precision) == 2:  # bf16: two of each likelihood and contrast, one of each policy
        return kind in ("captioner", "dual_encoder") and not odd
    if precision:  # dropout: its stage is compared with DDP, and one stage is left to either kind
        return strategy != "ddp" and not odd
    return size != (None, 2)[odd]


def tiered(cases: list[tuple]) -> list:
    return [pytest.param(case, marks=[pytest.mark.nightly] * is_nightly(case)) for case in cases]


# Whose bytes are counted, in two micro-batches: likelihood, contrast in one backward pass, frozen weights, rollouts.
SENT = [("captioner", strategy) for strategy in ("ddp", *STAGES)]
SENT += [("dual_encoder", "zero2"), ("adapters", "zero3"), ("self_critical", "zero3")]
RTOL = 5e-5


def train_all(cases: list[tuple], tape: bytes, folder: Path) -> tuple[list[Outcome], dict, dict]:
    """All runs in one process: starting Python and DeepSpeed takes longer than a run. And bytes: held, sent."""
    replay.TAPE.update(pickle.loads(tape))
    zero.BUCKET_NUMBERS = 5_000  # gradients then go in several pieces, as those of a large model do
    outcomes = [train(*case) for case in cases]
    for strategy in ("zero1", "zero3"):
        save_adapters(strategy, folder / f"{strategy}.ckpt")
    held = {strategy: held_under(strategy) for strategy in (*STAGES, "zero3_offload")}
    return outcomes, held, {case: sent_under(*case, 2) for case in SENT}


class Save(pl.Callback):
    def __init__(self, path: Path):
        self.path = path

    def on_train_end(self, trainer, pl_module):
        trainer.save_checkpoint(self.path)


def save_adapters(strategy: str, path: Path) -> None:
    trainer_of(strategy, [Save(path)]).fit(MODULES["adapters"](2), loader(batches()[:2]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="module")
def alone() -> dict[str, Outcome]:
    return {kind: train(kind, "auto", None) for kind in (*KINDS, "seldom_used")}


@pytest.fixture(scope="module")
def cases(pytestconfig) -> list[tuple]:
    return [case for case in CASES if chosen_tier(pytestconfig) > 1 or not is_nightly(case)]


@pytest.fixture(scope="module")
def ranks(alone, folder, cases) -> list[tuple[list[Outcome], dict, dict]]:
    tape = pickle.dumps(replay.TAPE)  # what `alone` sampled
    return run_distributed(train_all, 2, cases, tape, folder, timeout_s=900)


@pytest.fixture(scope="module")
def two_ranks(ranks, cases) -> dict[tuple, list[Outcome]]:
    outcomes = [outcomes for outcomes, *_ in ranks]
    return {case: list(both) for case, *both in zip(cases, *outcomes, strict=True)}


def relative_differences(a: Outcome, b: Outcome) -> torch.Tensor:
    """Signed, of loss and gradient norm at each step; a policy's loss passes through zero, and 0.1 counts there."""
    ours, theirs = (torch.tensor(outcome.rows, dtype=torch.float64) for outcome in (a, b))
    return (ours - theirs) / theirs.abs().clamp(min=0.1)


def same_trajectory(a: Outcome, b: Outcome) -> bool:
    return bool((relative_differences(a, b).abs() <= RTOL).all())


def same_gradient(a: Outcome, b: Outcome) -> bool:
    """At the first step."""
    ours, theirs = a.gradients[0], b.gradients[0]
    cosine = torch.cosine_similarity(ours, theirs, dim=0)
    return bool(cosine > 1 - 1e-6 and abs(ours.norm() / theirs.norm() - 1) < 1e-5)


@pytest.mark.parametrize("case", tiered(WHOLE), ids=str)
def test_losses_and_gradient_norms_are_those_of_one_process(alone, two_ranks, case):
    first, second = two_ranks[case]
    assert first.rows == second.rows
    assert same_trajectory(first, alone[case[0]])


@pytest.mark.parametrize("strategy", ["ddp", *STAGES, *OFFLOADED])
def test_what_rounding_changes_has_no_side(alone, two_ranks, strategy):
    found = [
        relative_differences(two_ranks[c][0], alone[c[0]]).flatten()
        for c in WHOLE
        if c[1] == strategy and c in two_ranks
    ]
    differences = torch.cat(found)
    assert abs(differences.mean()) < RTOL / 20
    above, below = (differences > 0).sum(), (differences < 0).sum()
    assert min(above, below) >= 0.1 * (above + below)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("micro_batch_size", [1, 3, 4])
def test_micro_batches_of_one_process_are_its_whole_batch(alone, kind, micro_batch_size):
    cut = train(kind, "auto", micro_batch_size)
    assert same_trajectory(cut, alone[kind])
    assert same_gradient(cut, alone[kind])


@pytest.mark.parametrize("case", tiered(WHOLE), ids=str)
def test_the_clipped_gradient_that_reaches_the_optimizer_is_that_of_one_process(alone, two_ranks, case):
    assert same_gradient(two_ranks[case][0], alone[case[0]])


@pytest.mark.parametrize("case", tiered(WHOLE), ids=str)
def test_the_gradient_that_reaches_the_optimizer_obeys_clip_norm_at_each_step(two_ranks, case):
    outcome = two_ranks[case][0]
    assert max(norm for _, norm in outcome.rows) > 1.5 * CLIP_NORM
    for (_, norm), gradient in zip(outcome.rows, outcome.gradients, strict=True):
        assert float(gradient.norm()) == pytest.approx(min(norm, CLIP_NORM), rel=1e-4)


@pytest.mark.parametrize("case", tiered(WHOLE), ids=str)
def test_trained_weights_are_those_of_one_process(alone, two_ranks, case):
    one, zero = alone[case[0]].weights, two_ranks[case][0].weights
    assert list(one) == list(zero)
    assert two_ranks[case][1].weights == {} or case[1] == "ddp"
    for name, value in one.items():
        torch.testing.assert_close(zero[name], value, rtol=1e-3, atol=1e-3, msg=name)


@pytest.mark.parametrize("case", tiered(WHOLE), ids=str)
def test_validation_is_that_of_one_process_when_a_rank_has_more_batches(alone, two_ranks, case):
    first, second = two_ranks[case]
    assert first.validated == second.validated == pytest.approx(alone[case[0]].validated, rel=1e-3)


def test_a_lost_micro_batch_would_be_noticed(alone, monkeypatch):
    half = [batch[:4] for batch in batches_of_all_ranks()]
    monkeypatch.setattr("steps.batches", lambda: half)
    for kind in KINDS:
        lost = train(kind, "auto", None)
        assert not same_trajectory(lost, alone[kind])
        assert not same_gradient(lost, alone[kind])


@pytest.mark.parametrize("case", tiered(SELDOM), ids=str)
def test_a_parameter_that_a_step_does_not_use_has_no_gradient_of_an_earlier_one(alone, two_ranks, case):
    ours, one = two_ranks[case][0], alone["seldom_used"]
    assert same_trajectory(ours, one)
    assert torch.allclose(ours.weights["model.seldom"], one.weights["model.seldom"], rtol=1e-6)


@pytest.mark.parametrize("case", tiered([case for case in DROPOUT if case[1] != "ddp"]), ids=str)
def test_with_dropout_zero_draws_what_ddp_draws(alone, two_ranks, case):
    kind = case[0]
    ddp, zero = two_ranks[kind, "ddp", 2, 0.3][0], two_ranks[case][0]
    assert same_trajectory(zero, ddp)
    assert same_gradient(zero, ddp)
    assert not same_trajectory(zero, alone[kind])


@pytest.mark.parametrize("case", tiered(BF16), ids=str)
def test_mixed_precision_trains_float32_weights_to_about_the_same_loss(alone, two_ranks, case):
    outcome = two_ranks[case][0]
    assert {value.dtype for value in outcome.weights.values() if value.is_floating_point()} == {torch.float32}
    assert outcome.rows[0][0] == pytest.approx(alone[case[0]].rows[0][0], rel=0.05)
    assert outcome.rows != alone[case[0]].rows


def work_of(kind: str) -> tuple[StepWorkload, int]:
    """Of a rank in two micro-batches, and bytes that padding may take."""
    parameters = list(MODULES[kind](2).model.parameters())
    trainable = sum(p.numel() for p in parameters if p.requires_grad)
    frozen = sum(p.numel() for p in parameters) - trainable
    passes = 4.0 if kind == "dual_encoder" else 3.0
    work = StepWorkload(trainable, frozen, 4, 2, gflop=0.0, activation_mib=0.0, mixed=False, passes=passes)
    return work, 4 * (len(parameters) + 16)


@pytest.mark.parametrize("case", SENT, ids=str)
def test_a_rank_sends_what_the_plan_says(ranks, case):
    kind, strategy = case
    work, _ = work_of(kind)
    wanted = traffic(work, strategy, 2)
    if kind == "self_critical":  # gathers for the rollout, and once more for the first pass, whose order is forgotten
        wanted += 1 / 2 * 2 * FLOAT * (work.trainable + work.frozen)
    for _, _, sent in ranks:
        assert sent[case] == pytest.approx(wanted, rel=2e-3)  # also norms, counts, and what objectives exchange


@pytest.mark.parametrize("strategy", [*STAGES, "zero3_offload"])
def test_a_rank_holds_what_the_plan_says(ranks, strategy):
    work, padding = work_of("dual_encoder")
    wanted = model_state_bytes(work, strategy, 2)
    for _, held, _ in ranks:
        found, bucket = held[strategy]
        for name in ("weights", "master", "moments"):
            assert wanted[name] - padding <= found[name] <= wanted[name] + padding, name
        if strategy == "zero3":
            assert wanted["gradients"] - padding <= found["gradients"] <= wanted["gradients"] + padding
        elif strategy in ("zero1", "zero2"):
            assert found["gradients"] == 0  # the update freed them
        assert bucket <= 4 * work.trainable  # not DeepSpeed's 2 GB


@pytest.mark.parametrize("strategy", ["zero1", "zero3"])
def test_a_checkpoint_of_adapters_holds_them_whole_and_nothing_else(two_ranks, folder, strategy):
    saved = torch.load(folder / f"{strategy}.ckpt", weights_only=True)["state_dict"]
    model = MODULES["adapters"](None).model
    wanted = {f"model.{name}": p.shape for name, p in model.named_parameters() if p.requires_grad}
    assert {name: value.shape for name, value in saved.items()} == wanted
    assert all("lora_" in name and value.numel() > 0 for name, value in saved.items())
    assert all(value.any() for value in saved.values())  # B starts as zero, and was trained


def test_the_second_pass_of_a_micro_batch_replays_the_dropout_of_the_first(monkeypatch):
    cached = train("dual_encoder", "auto", 2, dropout=0.3)
    monkeypatch.setattr(
        capkit.train.dual_encoder_module, "checkpoint", lambda model, *inputs, use_reentrant: model(*inputs)
    )
    kept = train("dual_encoder", "auto", 2, dropout=0.3)
    assert cached.rows == kept.rows
    assert torch.equal(cached.gradients[0], kept.gradients[0])


def test_a_second_pass_with_other_dropout_would_be_noticed(monkeypatch):
    replayed = train("dual_encoder", "auto", 2, dropout=0.3)

    def other_dropout(model, *inputs, use_reentrant):
        return torch.utils.checkpoint.checkpoint(model, *inputs, use_reentrant=False, preserve_rng_state=False)

    monkeypatch.setattr(capkit.train.dual_encoder_module, "checkpoint", other_dropout)
    assert not same_gradient(train("dual_encoder", "auto", 2, dropout=0.3), replayed)


def test_the_dual_encoder_here_has_what_is_hard():
    model = dual_encoder(None).model
    assert model.scale.log_scale.ndim == 0
    assert any(not p.requires_grad for p in model.parameters())
    assert any(p.requires_grad and p.numel() % 2 for p in model.parameters())
