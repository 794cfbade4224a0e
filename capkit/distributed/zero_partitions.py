"""Conversion between ZeRO's sharded state and whole tensors: weights, optimizer state, bounds.

Everything that depends on DeepSpeed's partition layout, or on other names that it does not document, is in this file.
All ranks must call each function.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from capkit.types import BoundedModule

MOMENTS = ("exp_avg", "exp_avg_sq")  # AdamW's state of a parameter, besides its step


def leave_out_unused_operator() -> None:
    """Keep DeepSpeed from compiling an inference op at the first start on a CPU, which capkit never calls.

    If that compiler is killed, it leaves a lock on which every later start hangs.
    """
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def gather_weights(engine: Any) -> None:
    """Stage 3: gather every parameter on every rank, and remove DeepSpeed's hooks from the model."""
    offload = engine.optimizer.parameter_offload
    offload.partition_all_parameters()
    for hook in [*offload.forward_hooks, *offload.backward_hooks, offload.fwd_pre_hook]:
        hook.remove()
    offload.forward_hooks, offload.backward_hooks = [], []
    parameters = list(engine.module.parameters())
    parameters[0].all_gather(param_list=parameters)


def partition_weights(engine: Any) -> None:
    """The inverse of `gather_weights`. Changes made to the whole weights are dropped."""
    parameters = list(engine.module.parameters())
    parameters[0].partition(param_list=parameters, has_been_updated=False)
    engine.optimizer.parameter_offload.setup_zero_stage3_hooks()


def allocate_moments(engine: Any) -> None:
    """Allocate AdamW's state before its first step: DeepSpeed's map of it would cover only one parameter group."""
    optimizer = engine.optimizer
    stage_3 = hasattr(optimizer, "fp32_partitioned_groups_flat")
    for flat in optimizer.fp32_partitioned_groups_flat if stage_3 else optimizer.single_partition_of_fp32_groups:
        step = torch.zeros((), device=flat.device if flat.is_cuda else "cpu")  # where (fused) AdamW expects it
        optimizer.optimizer.state[flat] = {"step": step, **{name: torch.zeros_like(flat) for name in MOMENTS}}
    if not stage_3:
        optimizer._lazy_init_hp_params_optimizer_state()


def clear_gradients(engine: Any) -> None:
    """Zero DeepSpeed's gradient buffers after a step: old values would become the gradient of unused parameters."""
    optimizer = engine.optimizer
    stage_3 = hasattr(optimizer, "fp32_partitioned_groups_flat")
    buffers = [optimizer.grad_partitions_flat_buffer] if stage_3 else []
    flats = optimizer.fp32_partitioned_groups_flat if stage_3 else optimizer.single_partition_of_fp32_groups
    buffers += [flat.grad for flat in flats if flat.grad is not None]
    buffers += getattr(optimizer, "accumulated_grads_in_cpu", {}).values()
    for buffer in buffers:
        buffer.zero_()


def optimizer_state(engine: Any, groups: list[list[nn.Parameter]]) -> dict[str, Any]:
    """AdamW's state dict on the CPU, as in one process without ZeRO. `groups`: the optimizer's parameter groups."""
    from deepspeed.utils import safe_get_full_optimizer_state

    step = next(iter(engine.optimizer.optimizer.state.values()))["step"]
    state: dict[int, dict[str, Tensor]] = {}
    numbers: list[list[int]] = []
    for group in groups:
        numbers.append(list(range(len(state), len(state) + len(group))))
        for parameter in group:
            moments = {name: safe_get_full_optimizer_state(parameter, name).cpu() for name in MOMENTS}
            state[len(state)] = {"step": step.cpu().clone(), **moments}
    options = [{k: v for k, v in group.items() if k != "params"} for group in engine.optimizer.param_groups]
    return {
        "state": state,
        "param_groups": [{**o, "params": params} for o, params in zip(options, numbers, strict=True)],
    }


def load_optimizer_state(engine: Any, groups: list[list[nn.Parameter]], saved: dict[str, Any]) -> None:
    """The inverse of `optimizer_state`, for any number of ranks."""
    for group, options in zip(engine.optimizer.param_groups, saved["param_groups"], strict=True):
        group.update({k: v for k, v in options.items() if k != "params"})
    for state in engine.optimizer.optimizer.state.values():
        state["step"].copy_(saved["state"][0]["step"])
    for number, parameter in enumerate(parameter for group in groups for parameter in group):
        for name in MOMENTS:
            _set_full(parameter, saved["state"][number][name], name)


def skipped_update(engine: Any) -> bool:
    """Whether the last step left the weights as they were: the gradient was not finite, or discarded."""
    return bool(engine.optimizer.overflow)


@contextmanager
def discarding(engine: Any) -> Iterator[None]:
    """Context in which a step drops the gradient, as DeepSpeed drops one that is not finite; nothing else changes."""
    optimizer: Any = engine.optimizer
    stage_3 = hasattr(optimizer, "fp32_partitioned_groups_flat")
    infinite = torch.tensor(math.inf)
    name, norm = ("_get_norm_groups", [infinite]) if stage_3 else ("scaled_global_norm", infinite)
    setattr(optimizer, name, lambda *args, **kwargs: norm)
    try:
        yield
    finally:
        delattr(optimizer, name)


def clamp_parameters(engine: Any) -> None:
    """Keep the float32 copies that ZeRO updates within the bounds that modules declare (`BoundedModule`)."""
    from deepspeed.utils import safe_get_full_fp32_param

    for module in engine.module.modules():
        if isinstance(module, BoundedModule):
            for name, (smallest, largest) in module.parameter_bounds().items():
                parameter = getattr(module, name)
                if parameter.requires_grad:
                    _set_full(parameter, safe_get_full_fp32_param(parameter).clamp(smallest, largest))


def _set_full(parameter: Any, value: Tensor, moment: str | None = None) -> None:
    """Set this rank's shard of a parameter's float32 copy, or of one of its moments, from the whole tensor."""
    from deepspeed import comm
    from deepspeed.utils import safe_set_local_fp32_param, safe_set_local_optimizer_state

    arguments = () if moment is None else (moment,)
    if not hasattr(parameter, "ds_id"):
        parameter.set_full_hp_param(value.to(parameter.device), *arguments)
        return
        # DeepSpeed's safe_set_full_* fail if the parameter does not divide evenly over ranks.
    size = parameter.ds_tensor.numel()
    padded = torch.zeros(size * comm.get_world_size(), dtype=value.dtype, device=parameter.device)
    padded[: value.numel()] = value.flatten()
    part = padded.narrow(0, size * comm.get_rank(), size)
    if moment is None:
        safe_set_local_fp32_param(parameter, part)
    else:
        safe_set_local_optimizer_state(parameter, part, moment)
