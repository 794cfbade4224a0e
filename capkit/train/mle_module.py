"""MLEModule: trains a captioner with a likelihood objective. Methods differ in their objective."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from capkit.decoding.config import Decoding
from capkit.distributed.collectives import all_reduce_sum
from capkit.metrics.base import TextScore
from capkit.objectives.base import Objective, objectives_of
from capkit.optim.optimizers import OptimizerFactory
from capkit.optim.schedules import Schedule
from capkit.train.captioner_module import CaptionerModule
from capkit.train.conditions import UNCONDITIONED, Requested
from capkit.types import CaptionBatch, ObjectiveOutput, Samples


def micro_batches(batch: CaptionBatch, size: int | None) -> Iterator[CaptionBatch]:
    """Split a batch into micro-batches of captions of similar length, each trimmed to its longest to save padding.

    A whole batch stays as it is on a GPU: the loader pads to the longest caption, and to look again would wait.
    """
    size = size or len(batch)
    if size >= len(batch) and batch.mask is not None and batch.mask.is_cuda:
        yield batch
        return
    order = list(range(len(batch)))
    if size < len(batch) and batch.mask is not None:
        order = _lengths(batch, batch.mask).argsort(stable=True).tolist()
    for start in range(0, len(batch), size):
        yield batch.select(order[start : start + size]).trim()


def _lengths(batch: CaptionBatch, mask: Bool[Tensor, "B K L"]) -> Int[Tensor, " B"]:
    """Tokens of each image's longest caption, and of its longest prompt."""
    lengths = mask.sum(-1).amax(-1)
    return lengths if batch.prompts_mask is None else lengths + batch.prompts_mask.sum(-1).amax(-1)


class MLEModule(CaptionerModule):
    """Trains a captioner with a likelihood objective.

    The loss is divided by the number of targets (tokens, pairs or samples) of the global batch, summed over all
    micro-batches and ranks before the first backward pass. A batch of 8, 2 micro-batches of 4, and 2 processes with 4
    each therefore give the same gradient; Lightning's own accumulation averages the means of micro-batches instead.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        decoding: Decoding,
        metrics: Mapping[str, TextScore] | None = None,
        micro_batch_size: int | None = None,
        seed: int = 0,
        reranker: Callable[[CaptionBatch, Samples], Samples] | None = None,
        compile: bool = False,
        recompute: bool = False,
        requested: Requested = UNCONDITIONED,
    ) -> None:
        super().__init__(
            model,
            optimizer,
            schedule,
            decoding,
            metrics,
            micro_batch_size,
            seed,
            reranker,
            compile,
            recompute,
            requested,
        )
        self.objective = objective

    def num_tokens(self, batch: CaptionBatch, logs: Mapping[str, Tensor]) -> Tensor | float:
        return self.objective.num_targets(batch)

    def backward_batch(self, batch: CaptionBatch, step: int) -> dict[str, Tensor]:
        """Returns the loss of the global batch and the objective's numbers, detached."""
        num_targets = all_reduce_sum(self.objective.num_targets(batch))
        parts = list(micro_batches(batch, self.micro_batch_size))
        loss_sum = torch.zeros((), device=self.device)
        logs: dict[str, Tensor] = {}

        def share(part: CaptionBatch, objective: Objective) -> tuple[Tensor, ObjectiveOutput]:
            output = objective(self.model, part, step)
            return output.loss_sum / num_targets.clamp(min=1), output

        objectives = objectives_of(self.objective, self.model, parts, step)
        for number, (part, objective) in enumerate(zip(parts, objectives, strict=True)):
            output = self.add_gradient(partial(share, part, objective), last=number == len(parts) - 1)
            loss_sum += output.loss_sum.detach()
            for name, value in output.logs.items():
                logs[name] = logs.get(name, torch.zeros_like(value)) + value / len(parts)
        logs["loss"] = all_reduce_sum(loss_sum) / num_targets.clamp(min=1)
        return logs

    def validation_sums(self, batch: CaptionBatch, samples: Samples) -> dict[str, tuple[Tensor, Tensor]]:
        output = self.objective(self.model, batch, self.global_step)
        return {"loss": (output.loss_sum, output.num_targets)}
