"""ZeRO stages 1, 2 and 3 (Rajbhandari et al. 2020, arXiv 1910.02054) by DeepSpeed, as a Lightning strategy.

Why not Lightning's own DeepSpeedStrategy: it refuses a CPU, so that nothing could be tested; it runs a whole training
step in one forward pass of the engine, and then several backward passes overwrite each other's gradients without a
word; its bf16-mixed trains in bfloat16 weights, where DDP's means autocast; and its checkpoints are folders that only
the same number of ranks can read. Here a run differs from DDP in memory alone.
"""

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Annotated, Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import set_checkpoint_early_stop

from capkit.distributed import zero_partitions as partitions
from capkit.distributed.build_locks import clear_stale_locks
from capkit.errors import UsageError
from capkit.utils.ranges import NonNegativeInt, Range, check_ranges

PRECISIONS = ("32-true", "bf16-mixed")
# Gradients that are exchanged at once. DeepSpeed's own 500 million take 2 GB on every rank, for a small model too.
BUCKET_NUMBERS = 50_000_000


@check_ranges
class Zero(DDPStrategy):
    """Optimizer states (stage 1), also gradients (2), also weights (3) are divided over the ranks.

    Each rank keeps float32 weights (stage 3: its part of them), and bf16-mixed computes under autocast. Validation,
    prediction and checkpoints see whole weights on every rank, in stage 3 gathered for the time it takes: a rank may
    then have more batches or longer captions than another. Checkpoints hold whole tensors: any strategy and any
    number of ranks can resume them. A parameter that a step does not use has a gradient of zero in it, as under DDP.

    `offload`: this rank's part of the optimizer states, the float32 weights and gradients that AdamW updates, and in
    stage 3 of the weights too, lie in the machine's memory, and the processor does the update. Stages 2 and 3.

    `persistence_threshold`: in stage 3, weights of at most so many numbers stay whole on every rank.
    """

    def __init__(
        self,
        stage: Annotated[int, Range(1, 3)] = 2,
        offload: bool = False,
        persistence_threshold: NonNegativeInt = 100_000,
    ) -> None:
        if offload and stage == 1:
            raise UsageError(
                "strategy.offload wants strategy.stage of 2 or 3; got 1; choose trainer=deepspeed_2_offload"
            )
        super().__init__()
        self.stage, self.offload, self.persistence_threshold = stage, offload, persistence_threshold
        self.engine: Any = None
        self.discard_gradient = False  # of the next update
        self._groups: list[list[nn.Parameter]] = []
        self._whole = False
        self._failed = False

    # -- starting the engine

    def setup(self, trainer: pl.Trainer) -> None:
        """Moments come last: Lightning moves all that an optimizer has to the GPU, also what offload keeps off it."""
        super().setup(trainer)
        if self.engine is not None:
            partitions.allocate_moments(self.engine)

    def configure_ddp(self) -> None:
        """DeepSpeed exchanges gradients, not DDP."""

    def setup_optimizers(self, trainer: pl.Trainer) -> None:
        super().setup_optimizers(trainer)
        if str(trainer.precision) not in PRECISIONS:
            raise UsageError(f"under ZeRO trainer.precision is {' or '.join(PRECISIONS)}; got {trainer.precision}")
        (optimizer,) = self.optimizers
        if type(optimizer) is not torch.optim.AdamW:
            raise UsageError(
                f"under ZeRO optimizer=adamw is wanted; got {type(optimizer).__name__}: each rank updates slices of "
                "weights laid end to end, where only rules that treat every number alone stay what they are"
            )
        module: Any = self.lightning_module
        self._groups = [list(group["params"]) for group in optimizer.param_groups]
        self.engine = self._start_engine(module.model, optimizer, module.optimizer_factory.clip_norm)
        self.optimizers = [self.engine.optimizer]

    def _start_engine(self, model: nn.Module, optimizer: Any, clip_norm: float | None) -> Any:
        on_cpu = self.root_device.type == "cpu"
        if on_cpu:
            os.environ["DS_ACCELERATOR"] = "cpu"  # read when deepspeed is first imported
        os.environ.setdefault("LOCAL_RANK", str(self.local_rank))
        clear_stale_locks()
        import deepspeed

        chosen = deepspeed.get_accelerator().device_name()
        if chosen.split(":")[0] != self.root_device.type:
            raise UsageError(
                f"deepspeed was imported for {chosen} before the trainer chose {self.root_device.type}; "
                f"start with DS_ACCELERATOR={self.root_device.type} in the environment"
            )
        warnings.filterwarnings("ignore", "`torch.distributed.* is deprecated", FutureWarning)  # DeepSpeed's own calls
        # An op for inference that would be compiled at the first start on a CPU; a compiler killed half way leaves a
        # lock on which every later start hangs. Nothing here calls it.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        for parameter in model.parameters():
            parameter.data = parameter.data.contiguous()  # DeepSpeed flattens them
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
            "train_micro_batch_size_per_gpu": 1,  # only its throughput log reads it
            "managed_gradient_accumulation": False,  # every backward adds; `step` is the boundary
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

    def add_gradient(self, share: Callable[[], tuple[Tensor, Any]], scale: float) -> Any:
        """One forward and one backward pass of the engine through the loss that `share` gives; its second value."""
        rest: Any = None

        def forward() -> Tensor:
            # DeepSpeed switches an autocast around it off. Stage 3 counts on every module's forward to return, which
            # the early stop of activation checkpointing cuts short.
            nonlocal rest
            with self.precision_plugin.forward_context(), set_checkpoint_early_stop(self.stage < 3):
                loss, rest = share()
            return loss

        loss = self.engine(forward)
        self.engine.backward(loss * scale)
        return rest

    def backward(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("under ZeRO a backward pass outside `TrainModule.add_gradient` would be lost")

    def optimizer_step(self, optimizer: Any, closure: Callable[[], Any], *args: Any, **kwargs: Any) -> Any:
        """Clips by the optimizer's `clip_norm` and updates."""
        closure()
        with partitions.discarding(self.engine) if self.discard_gradient else nullcontext():
            self.engine.step()
        self.discard_gradient = False
        partitions.clear_gradients(self.engine)
        partitions.clamp_log_scales(self.engine)

    @property
    def skipped(self) -> bool:
        """Whether the last update was left out: its gradient was not finite, or was to be discarded."""
        return bool(self.engine.optimizer.overflow)

    @property
    def grad_norm(self) -> Tensor:
        """Of the whole gradient of the last step, before clipping."""
        return torch.as_tensor(self.engine.get_global_grad_norm(), device=self.root_device).detach()

    # -- whole weights

    @contextmanager
    def whole_weights(self) -> Iterator[None]:
        """Gathered once for all that runs inside, such as the steps of a generation. All ranks enter and leave."""
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
        """Whole weights, on rank 0 alone, where they are written."""
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
        self._failed = True  # other ranks may not come to a meeting any more

    def teardown(self) -> None:
        """Leaves a plain model with whole weights."""
        if self.engine is not None and not self._failed:
            self._gather()
            self.engine.destroy()
        self.engine, self._whole = None, False
        super().teardown()

    def _gather(self) -> bool:
        """Whether there was something to do."""
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
    """What the engine wraps: DeepSpeed starts from a module's forward, a training step from a function."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[[], Tensor]) -> Tensor:
        return function()


class _ScalarsAsBytes(TorchFunctionMode):
    """DeepSpeed 0.19 broadcasts weights viewed as bytes, which a tensor without a dimension refuses."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.view and args[1:] == (torch.uint8,) and args[0].ndim == 0:
            args = (args[0].view(1), torch.uint8)
        return func(*args, **(kwargs or {}))
