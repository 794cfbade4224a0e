"""Small global batches of images and captions for tests of pair objectives, and what an objective makes of them."""

from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from capkit.objectives.base import PairObjective
from capkit.types import PairEmbeddings


@dataclass
class Case:
    """Which captions belong to which images, and which have equal texts (all differ where it is left out)."""

    image_ids: list[int]
    owners: list[int]
    text_ids: list[int] = field(default_factory=list)

    def pairs(self, seed: int = 0, width: int = 4) -> PairEmbeddings:
        generator = torch.Generator().manual_seed(seed)
        images, texts = (
            torch.randn(count, width, generator=generator) for count in (len(self.image_ids), len(self.owners))
        )
        return PairEmbeddings(
            images=torch.nn.functional.normalize(images, dim=1).requires_grad_(),
            texts=torch.nn.functional.normalize(texts, dim=1).requires_grad_(),
            logit_scale=torch.tensor(3.0, requires_grad=True),
            image_ids=torch.tensor(self.image_ids, dtype=torch.long),
            owners=torch.tensor(self.owners, dtype=torch.long),
            text_ids=torch.tensor(self.text_ids or list(range(len(self.owners))), dtype=torch.long),
            logit_bias=torch.tensor(-1.5, requires_grad=True),
        )


CASES = {
    "one pair": Case([7], [7]),
    "one image, three captions": Case([7], [7, 7, 7], [0, 1, 1]),
    "one caption each": Case([3, 1, 4, 15, 9], [3, 1, 4, 15, 9]),
    # Image 4 has no caption, and the last caption no image. Texts 20 and 21 occur under several images, 21 twice under
    # image 2; 22 occurs twice under image 6 alone.
    "uneven with duplicates": Case(
        [0, 1, 2, 3, 4, 5, 6],
        [0, 0, 1, 2, 2, 2, 3, 5, 6, 6, 99],
        [20, 30, 20, 21, 21, 31, 32, 21, 22, 22, 20],
    ),
    "the same image twice": Case([5, 6, 5], [6, 5, 5], [0, 1, 2]),
}


def outcome(objective: PairObjective, pairs: PairEmbeddings, step: int = 0) -> dict:
    """Loss, gradients and logs as plain tensors; the gradient of what the loss does not depend on is zero."""
    output = objective(pairs, step)
    output.loss.backward()
    leaves = {name: getattr(pairs, name) for name in ("images", "texts", "logit_scale", "logit_bias")}
    gradients = {name: torch.zeros_like(x) if x.grad is None else x.grad for name, x in leaves.items()}
    assert not any(value.requires_grad for value in output.logs.values())
    return {"loss": output.loss.detach(), "gradients": gradients, "logs": output.logs}


def dense_outcome(loss: torch.Tensor, pairs: PairEmbeddings) -> dict:
    """The same of a loss that a naive formula gives."""
    return {name: value for name, value in outcome(lambda _pairs, _step: _Given(loss), pairs).items() if name != "logs"}


@dataclass
class _Given:
    loss: torch.Tensor
    logs: dict = field(default_factory=dict)


def assert_same(actual: dict, expected: dict, atol: float = 1e-6) -> None:
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name], atol=atol, rtol=1e-5)


def rows_of_rank(pairs: PairEmbeddings, images: list[int], texts: list[int]) -> PairEmbeddings:
    """Leaves of their own for these rows."""
    return PairEmbeddings(
        pairs.images.detach()[images].requires_grad_(),
        pairs.texts.detach()[texts].requires_grad_(),
        pairs.logit_scale.detach().clone().requires_grad_(),
        pairs.image_ids[images],
        pairs.owners[texts],
        pairs.text_ids[texts],
        pairs.logit_bias.detach().clone().requires_grad_(),
    )


def outcomes_of_rank(
    objectives: dict[str, PairObjective], case: Case, images: list[list[int]], texts: list[list[int]]
) -> dict[str, dict]:
    """For `run_distributed`: what rank r makes of its images and captions, which need not belong together."""
    rank = dist.get_rank()
    return {
        name: outcome(objective, rows_of_rank(case.pairs(), images[rank], texts[rank]))
        for name, objective in objectives.items()
    }


def put_together(parts: list[dict], images: list[list[int]], texts: list[list[int]]) -> dict:
    """Losses and gradients of shared scalars summed over ranks; gradients of rows back in the case's order."""
    gradients = {name: sum(part["gradients"][name] for part in parts) for name in ("logit_scale", "logit_bias")}
    for name, rows in (("images", images), ("texts", texts)):
        order = torch.tensor([row for rank_rows in rows for row in rank_rows]).argsort()
        gradients[name] = torch.cat([part["gradients"][name] for part in parts])[order]
    return {"loss": sum(part["loss"] for part in parts), "gradients": gradients, "logs": parts[0]["logs"]}
