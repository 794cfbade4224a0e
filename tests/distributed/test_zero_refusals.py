"""What does not work under ZeRO is refused in words."""

from types import SimpleNamespace

import pytest
from steps import MODULES, batches, loader, trainer_of

from capkit.distributed.zero import Zero
from capkit.errors import UsageError
from capkit.objectives.modular import ModularLikelihood
from capkit.optim.optimizers import LAMB
from capkit.testing.distributed import run_distributed


def told_by(
    strategy: str,
    precision: str = "32-true",
    lamb: bool = False,
    by_hand: bool = False,
    samples: bool = False,
    ways: tuple[str, ...] = (),
) -> str:
    module = MODULES["captioner" if ways else "dual_encoder"](None)
    vars(module).update(dict.fromkeys(ways, True))
    if samples:
        module.objective = ModularLikelihood(sampling=0.1)
    if lamb:
        module.optimizer_factory = LAMB(lr=0.01)
    if by_hand:
        module.backward_batch = lambda batch, step: module.manual_backward(module.model(batch).images.sum())
    with pytest.raises((UsageError, RuntimeError)) as told:
        trainer_of(strategy, [], precision).fit(module, loader(batches()))
    return f"{type(told.value).__name__}: {told.value}"


def all_told() -> list[str]:
    told = [told_by("zero2", "bf16-true"), told_by("zero2", lamb=True), told_by("zero2", by_hand=True)]
    ways = [told_by("zero3", ways=("compiled",)), told_by("zero3", ways=("recompute",))]
    return [*told, told_by("zero3", samples=True), *ways]


@pytest.mark.integration
def test_zero_tells_what_it_cannot_do():
    (messages,) = run_distributed(all_told, 1)
    precision, optimizer, by_hand, samples, compiled, recompute = messages
    assert precision.startswith(
        "UsageError: expected trainer.precision to be 32-true or bf16-mixed under ZeRO; got bf16-true"
    )
    assert optimizer.startswith("UsageError: expected optimizer=adamw under ZeRO, got Lamb")
    assert by_hand.startswith("RuntimeError") and "add_gradient" in by_hand
    assert samples.startswith("UsageError: expected strategy.stage 1 or 2 with objective.sampling, got 3")
    assert compiled.startswith("UsageError: compile=true") and "got trainer=deepspeed_3" in compiled
    assert recompute.startswith("UsageError: recompute=true") and "set recompute=false" in recompute


def test_stages_are_1_to_3():
    with pytest.raises(UsageError, match="expected an integer from 1 to 3, got 0"):
        Zero(stage=0)


def test_stage_1_is_not_offloaded():
    with pytest.raises(UsageError, match=r"expected strategy\.stage 2 or 3"):
        Zero(stage=1, offload=True)


def test_other_sharding_strategies_are_refused():
    module = MODULES["dual_encoder"](None)
    module._trainer = SimpleNamespace(strategy=type("FSDPStrategy", (), {})())
    with pytest.raises(UsageError, match="FSDPStrategy is not supported"):
        module.setup("fit")
