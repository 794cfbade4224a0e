"""Training steps on a GPU: none waits for it, and they are those of a CPU.

On a GPU: `python -m pytest tests/train/test_host_waits.py`.
"""

import warnings

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from rl_steps import OBJECTIVES, batches_of_all_ranks, captioner, module_of
from torch.utils.data import DataLoader

from capkit.decoding.config import Decoding
from capkit.models.captioners.logprobs import chunked_token_losses
from capkit.objectives.cross_entropy import CrossEntropy
from capkit.optim.optimizers import AdamW
from capkit.optim.schedules import Linear
from capkit.testing.distributed import bare_trainer
from capkit.train.callbacks.guard import SkipBadSteps
from capkit.train.callbacks.recorder import Recorder
from capkit.train.mle_module import MLEModule
from capkit.train.rl.module import RLModule

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]
STEPS = 6


class Waits(Callback):
    """Makes a wait of the host an error from the third step to the last but one; the last is written.

    `from_update`: not at all; others see to updates.
    """

    def __init__(self, from_update=False):
        self.from_update, self.losses, self.skipped = from_update, [], []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if batch_idx == 2 and not self.from_update:
            torch.cuda.set_sync_debug_mode("error")
        if batch_idx == STEPS - 1:
            torch.cuda.set_sync_debug_mode("default")

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.losses.append(outputs["loss"])
        self.skipped.append(outputs["skipped"])

    def on_train_end(self, trainer, module):
        torch.cuda.set_sync_debug_mode("default")
        self.losses, self.skipped = ([float(x) for x in some] for some in (self.losses, self.skipped))


class Updates(RLModule):
    """A wait is an error from the rewards on: the rollout's texts have to come to the host."""

    def backward_parts(self, *args, **kwargs):
        torch.cuda.set_sync_debug_mode("error")
        return super().backward_parts(*args, **kwargs)

    def update(self, *args, **kwargs):
        super().update(*args, **kwargs)
        torch.cuda.set_sync_debug_mode("default")


def on(device, batches):
    return DataLoader([batch.to(device) for batch in batches], batch_size=None)


def fit(module, batches, device, watch, precision="32-true"):
    trainer = bare_trainer(
        accelerator="gpu" if device == "cuda" else "cpu", precision=precision, max_steps=STEPS, limit_val_batches=0,
        callbacks=[SkipBadSteps(), Recorder(every_steps=100), watch],
    )  # fmt: skip
    try:
        trainer.fit(module, on(device, batches))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return module


def mle(**settings):
    return MLEModule(captioner(), CrossEntropy(0.1), AdamW(lr=0.01, eps=1e-4), Linear(), Decoding(), **settings)


def poisoned():
    batches = batches_of_all_ranks(STEPS)
    for step in (3, 4):
        batches[step].features[3] = torch.nan
    return batches


@pytest.mark.filterwarnings("ignore:step")
@pytest.mark.parametrize("settings", [{}, {"recompute": True}])
def test_a_likelihood_step_never_waits_and_is_that_of_a_cpu(settings):
    """Two of the steps are left out: the device decides that, and moments and learning rate agree with a CPU's."""
    there, here = Waits(), Waits()
    on_gpu = fit(mle(**settings), poisoned(), "cuda", there)
    on_cpu = fit(mle(), poisoned(), "cpu", here)
    assert there.skipped == here.skipped == [0, 0, 0, 1, 1, 0]
    assert [x for x in there.losses if x == x] == pytest.approx([x for x in here.losses if x == x], rel=1e-3)
    for name, value in on_cpu.model.state_dict().items():
        torch.testing.assert_close(on_gpu.model.state_dict()[name].cpu(), value, rtol=1e-2, atol=1e-3)
    assert on_gpu.guard.skipped_steps == on_cpu.guard.skipped_steps == 2


def test_a_wait_is_noticed():
    class Asks(MLEModule):
        def backward_batch(self, batch, step):
            logs = super().backward_batch(batch, step)
            float(logs["loss"])
            return logs

    module = Asks(captioner(), CrossEntropy(), AdamW(lr=0.01), Linear(), Decoding())
    with pytest.raises(RuntimeError, match="synchroniz"):
        fit(module, batches_of_all_ranks(STEPS), "cuda", Waits())


@pytest.mark.parametrize("name", ["leave_one_out", "ppo_k2", "weighted_sum"])
def test_an_update_by_rewards_never_waits(name):
    given = module_of(OBJECTIVES[name]())
    given.__class__ = type("Given", (Updates, type(given)), {})
    fit(given, batches_of_all_ranks(STEPS), "cuda", Waits(from_update=True))


@pytest.mark.unchecked  # compiled code cannot run the checks of shapes
def test_compiled_layers_learn_as_they_are_written():
    """In bfloat16, whose rounding fused kernels change; lengths are filled up to multiples of 4."""
    plain, compiled = Waits(), Waits()
    fit(mle(), batches_of_all_ranks(STEPS), "cuda", plain, "bf16-mixed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = mle(compile=True)
        compiled.from_update = True  # compiling itself waits
        fit(module, batches_of_all_ranks(STEPS), "cuda", compiled, "bf16-mixed")
    assert compiled.losses == pytest.approx(plain.losses, rel=0.02)
    assert module.model.length_multiple == 1


def test_the_head_of_many_words_is_that_of_float64():
    """Padded products in bfloat16, forward and gradient, at a vocabulary that is no multiple of 64."""
    torch.manual_seed(0)
    hidden = torch.randn(4, 3, 10, 64, device="cuda", requires_grad=True)
    head = torch.nn.Linear(64, 5003, bias=False, device="cuda")
    mask = torch.rand(4, 3, 10, device="cuda") < 0.7
    targets = torch.randint(5003, mask.shape, device="cuda")
    with torch.autocast("cuda", torch.bfloat16):
        ours = chunked_token_losses(hidden, head, targets, mask, 5003, 0.1, 50 * 5003)
    logits = hidden.bfloat16().double() @ head.weight.bfloat16().double().T
    naive = torch.nn.functional.cross_entropy(
        logits.flatten(0, 2), targets.flatten(), reduction="none", label_smoothing=0.1
    )
    naive = naive.view(mask.shape).masked_fill(~mask, 0)
    assert float((ours - naive).norm() / naive.norm()) < 5e-3
    for one, other in zip(
        torch.autograd.grad(ours.sum(), [hidden, head.weight]),
        torch.autograd.grad(naive.sum(), [hidden, head.weight]),
        strict=True,
    ):
        assert float((one - other).norm() / other.norm()) < 1e-2
