"""ZeRO stages 1, 2 and 3 (Rajbhandari et al. 2020, arXiv 1910.02054) by DeepSpeed, as a Lightning strategy.

Why not Lightning's DeepSpeedStrategy: it refuses a CPU, so that nothing could be tested; it wraps a whole training step
in one forward pass of the engine, in which several backward passes silently overwrite each other's gradients; its
bf16-mixed trains bfloat16 weights, where DDP's means autocast; and its checkpoints are folders that only the same
number of ranks can read. Here, a run differs from DDP in memory only.
"""

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Annotated, Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import set_checkpoint_early_stop

from capkit.distributed import zero_partitions as partitions
from capkit.distributed.build_locks import clear_stale_locks
from capkit.distributed.collectives import world_size
from capkit.distributed.strategies import Refuses, Rest, StepOutcome
from capkit.errors import UsageError
from capkit.upstream.lightning import UnwrappedDDPStrategy
from capkit.utils.ranges import NonNegativeInt, Range, check_ranges

PRECISIONS = ("32-true", "bf16-mixed")
# Gradients reduced at once. DeepSpeed's default of 500 million takes 2 GB on every rank, even for a small model.
BUCKET_NUMBERS = 50_000_000


@check_ranges
class Zero(UnwrappedDDPStrategy):
    """Shards optimizer states (stage 1), also gradients (2), also weights (3) over the ranks.

    Weights are float32 (stage 3: each rank's shard of them), and bf16-mixed computes under autocast. Validation,
    prediction and checkpoints see whole weights on every rank, gathered temporarily in stage 3, so that ranks may have
    different numbers of batches and caption lengths. Checkpoints hold whole tensors: a run can resume under any
    strategy and number of ranks. As under DDP, a parameter that a step does not use has a gradient of zero.

    Args:
        stage: ZeRO stage, 1 to 3.
        offload: keep this rank's optimizer states, float32 weights and gradients for AdamW, and in stage 3 its weight
            shard, in host memory, and update on the CPU. Stages 2 and 3 only.
        persistence_threshold: stage 3 keeps weights with at most this many elements whole on every rank.
    """

    def __init__(
        self,
        stage: Annotated[int, Range(1, 3)] = 2,
        offload: bool = False,
        persistence_threshold: NonNegativeInt = 100_000,
    ) -> None:
        if offload and stage == 1:
            raise UsageError(
                "strategy.offload: expected strategy.stage 2 or 3, got 1; choose trainer=deepspeed_2_offload"
            )
        super().__init__()
        self.stage, self.offload, self.persistence_threshold = stage, offload, persistence_threshold
        self.engine: Any = None
        self._discards = False  # the gradient of the next update
        self._groups: list[list[nn.Parameter]] = []
        self._whole = False
        self._failed = False

    # -- starting the engine

    def setup(self, trainer: pl.Trainer) -> None:
        """Allocate moments last: Lightning moves all optimizer state to the GPU, even what offload keeps off it."""
        super().setup(trainer)
        if self.engine is not None:
            partitions.allocate_moments(self.engine)

    def setup_optimizers(self, trainer: pl.Trainer) -> None:
        super().setup_optimizers(trainer)
        if str(trainer.precision) not in PRECISIONS:
            raise UsageError(
                f"expected trainer.precision to be {' or '.join(PRECISIONS)} under ZeRO; got {trainer.precision}"
            )
        (optimizer,) = self.optimizers
        if type(optimizer) is not torch.optim.AdamW:
            raise UsageError(
                f"expected optimizer=adamw under ZeRO, got {type(optimizer).__name__}: each rank updates slices of "
                "flattened weights, which is correct only for optimizers that treat elements independently"
            )
        module: Any = self.lightning_module
        if self.stage == 3 and getattr(module.objective, "writes_in_training", False):
            raise UsageError(
                "expected strategy.stage 1 or 2 with objective.sampling, got 3: words are sampled within a step, where "
                "no rank has whole weights; choose trainer=deepspeed_2, or objective.sampling=0"
            )
        self._groups = [list(group["params"]) for group in optimizer.param_groups]
        self.engine = self._start_engine(module.model, optimizer, module.optimizer_factory.clip_norm)
        self.optimizers = [self.engine.optimizer]

    def _start_engine(self, model: nn.Module, optimizer: Any, clip_norm: float | None) -> Any:
        on_cpu = self.root_device.type == "cpu"
        if on_cpu:
            os.environ["DS_ACCELERATOR"] = "cpu"  # read at the first import of deepspeed
        os.environ.setdefault("LOCAL_RANK", str(self.local_rank))
        clear_stale_locks()
        import deepspeed

        chosen = deepspeed.get_accelerator().device_name()
        if chosen.split(":")[0] != self.root_device.type:
            raise UsageError(
                f"expected deepspeed to be imported for {self.root_device.type}, got {chosen}: it was imported before "
                f"the trainer chose its device; set DS_ACCELERATOR={self.root_device.type} in the environment"
            )
        warnings.filterwarnings("ignore", "`torch.distributed.* is deprecated", FutureWarning)  # DeepSpeed's own calls
        partitions.leave_out_unused_operator()
        for parameter in model.parameters():
            parameter.data = parameter.data.contiguous()  # DeepSpeed flattens parameters
        for part in model.modules():
            if getattr(part, "gathered_at_once", False):  # else ranks would gather for each run of each layer in it
                deepspeed.utils.set_z3_leaf_module(part, True)
        with _ScalarsAsBytes():
            engine, *_ = deepspeed.initialize(
                model=_Call(model),
                model_parameters=[p for p in model.parameters() if p.requires_grad],
                optimizer=optimizer,
                config=self._config([p.numel() for p in model.parameters() if p.requires_grad], clip_norm),
            )
        return engine

    def _config(self, sizes: list[int], clip_norm: float | None) -> dict[str, Any]:
        in_memory = {"device": "cpu", "pin_memory": True}
        offload = {"offload_optimizer": in_memory} if self.offload else {}
        if self.offload and self.stage == 3:
            offload["offload_param"] = in_memory
        return {
            "train_micro_batch_size_per_gpu": 1,  # required; only the throughput log uses it
            "managed_gradient_accumulation": False,  # every backward pass accumulates; `engine.step` ends the step
            "gradient_clipping": clip_norm or 0.0,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "zero_optimization": {
                "stage": self.stage,
                "reduce_bucket_size": max(max(sizes), min(sum(sizes), BUCKET_NUMBERS)),
                "stage3_param_persistence_threshold": self.persistence_threshold,
                **offload,
            },
        }

    # -- one optimizer step

    @property
    def retries_steps(self) -> bool:
        """A backward pass that stopped half way leaves gradients in DeepSpeed's buffers."""
        return False

    def add_gradient(self, share: Callable[[], tuple[Tensor, Rest]], last: bool = True) -> Rest:
        """Run one forward and one backward pass of the engine on the loss `share()[0]`; return `share()[1]`."""
        rest: Rest

        def forward() -> Tensor:
            # Autocast is entered here, since the engine's forward disables any autocast around it. Stage 3 relies on
            # every module's forward to return, which the early stop of activation checkpointing would prevent.
            nonlocal rest
            with self.precision_plugin.forward_context(), set_checkpoint_early_stop(self.stage < 3):
                loss, rest = share()
            return loss

        loss = self.engine(forward)
        self.engine.backward(loss * world_size())  # turns DeepSpeed's mean over ranks into the sum
        return rest

    def backward(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("under ZeRO, backward passes must go through `TrainModule.add_gradient`")

    def step(self, optimizer: Any, update: Callable[[], Any], refuses: Refuses) -> StepOutcome:
        """DeepSpeed clips and knows the norm within the update, and itself skips one whose gradient is not finite.

        It decides on the host, which waits for the gradient.
        """
        self._discards = bool(refuses(None))
        update()
        norm = torch.as_tensor(self.engine.get_global_grad_norm(), device=self.root_device).detach()
        skipped = torch.full((), partitions.skipped_update(self.engine), device=self.root_device)
        return StepOutcome(norm, skipped)

    def optimizer_step(self, optimizer: Any, closure: Callable[[], Any], *args: Any, **kwargs: Any) -> Any:
        """Clip to the optimizer factory's `clip_norm` and update."""
        closure()
        with partitions.discarding(self.engine) if self._discards else nullcontext():
            self.engine.step()
        self._discards = False
        partitions.clear_gradients(self.engine)
        partitions.clamp_parameters(self.engine)

    # -- whole weights

    @contextmanager
    def whole_weights(self) -> Iterator[None]:
        """Gather weights once for everything that runs inside, such as generation. All ranks enter and leave."""
        gathered = self._gather()
        try:
            yield
        finally:
            if gathered and not self._failed:
                self._partition()

    def on_validation_start(self) -> None:
        self._gather()

    def on_validation_end(self) -> None:
        self._partition()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Whole weights on rank 0, which writes checkpoints; empty on other ranks."""
        gathered = self._gather()
        state = super().lightning_module_state_dict()
        state = {name: value.cpu().clone() for name, value in state.items()} if self.is_global_zero else {}
        if gathered:
            self._partition()
        return state

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        return partitions.optimizer_state(self.engine, self._groups)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        (saved,) = checkpoint["optimizer_states"]
        partitions.load_optimizer_state(self.engine, self._groups, saved)

    def on_exception(self, exception: BaseException) -> None:
        self._failed = True  # no more collectives: other ranks may not take part

    def teardown(self) -> None:
        """Leave a plain model with whole weights."""
        if self.engine is not None and not self._failed:
            self._gather()
            self.engine.destroy()
        self.engine, self._whole = None, False
        super().teardown()

    def _gather(self) -> bool:
        """Gather whole weights; returns whether they were sharded before."""
        if self.engine is None or self.stage < 3 or self._whole:
            return False
        with torch.inference_mode(False):
            partitions.gather_weights(self.engine)
        self._whole = True
        return True

    def _partition(self) -> None:
        if self._whole:
            with torch.inference_mode(False):
                partitions.partition_weights(self.engine)
            self._whole = False


class _Call(nn.Module):
    """The module that the engine wraps: its forward calls a function, since a training step is one."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[[], Tensor]) -> Tensor:
        return function()


class _ScalarsAsBytes(TorchFunctionMode):
    """Workaround: DeepSpeed 0.19 broadcasts weights viewed as bytes, which 0-dimensional tensors do not allow."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.view and args[1:] == (torch.uint8,) and args[0].ndim == 0:
            args = (args[0].view(1), torch.uint8)
        return func(*args, **(kwargs or {}))
