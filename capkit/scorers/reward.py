"""The reward of a run: named terms, each a scorer with a weight, added up or multiplied.

B images, K samples per image.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from capkit.distributed.collectives import mean_and_std_over_ranks
from capkit.errors import RunFailure, UsageError
from capkit.optim.schedules import Schedule
from capkit.scorers.base import Scorer
from capkit.types import CaptionBatch, Samples
from capkit.utils.ranges import FiniteFloat, Length, check_ranges
from capkit.utils.renamed import moved_names

__getattr__ = moved_names(__name__)  # RewardTerm was Term

NORMALIZATIONS = ("none", "batch")
COMBINATIONS = ("sum", "geometric_mean")


class RewardError(RuntimeError):
    """A scorer failed: the message names the reward, the image and the caption."""


@check_ranges
@dataclass(frozen=True)
class RewardTerm:
    """A scorer with its weight, which may follow a schedule.

    `normalize="batch"`: minus the mean, over the standard deviation of the global batch's scores (population form; a
    batch without spread becomes 0). `clip`: the range that the score, normalised or not, is cut to.
    """

    scorer: Scorer
    weight: FiniteFloat | Schedule = 1.0
    normalize: str = "none"
    clip: Annotated[Sequence[FiniteFloat], Length(2)] | None = None

    def __post_init__(self) -> None:
        if self.normalize not in NORMALIZATIONS:
            raise UsageError(f"normalize must be none or batch; got {self.normalize!r}")
        if self.clip is not None and self.clip[0] >= self.clip[1]:
            raise UsageError(f"clip wants two numbers, the lower one first, such as [-1, 1]; got {list(self.clip)}")

    def weight_at(self, step: int, total_steps: int) -> float | int:
        return self.weight(step, total_steps) if isinstance(self.weight, Schedule) else self.weight

    def shape(self, scores: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        """Scores normalised and clipped. Communicates where `normalize="batch"`."""
        if self.normalize == "batch":
            scores = _normalized(scores)
        return scores if self.clip is None else scores.clamp(*self.clip)


@dataclass(frozen=True)
class Scores:
    """What a reward is made of. `raw` as the scorers gave them, `weighted` shaped and multiplied; NaN: no score."""

    total: Float[Tensor, "B K"]
    raw: dict[str, Tensor]
    weighted: dict[str, Tensor]


class Reward:
    """Terms by name, combined: their weighted sum, or the geometric mean with the weights as exponents.

    sum: sum_n w_n x_n. geometric_mean: (prod_n x_n^w_n)^(1 / sum_n w_n), which wants scores of 0 or more: clip those
    that can be negative. A caption that any term of non-zero weight cannot score has no reward (NaN). A term of weight
    0 is scored and logged all the same.
    """

    def __init__(self, terms: Mapping[str, RewardTerm], combine: str = "sum") -> None:
        if not terms:
            raise UsageError("reinforcement learning needs a reward; got none; give for example reward=[cider]")
        for name, term in terms.items():
            if not isinstance(term, RewardTerm):
                raise UsageError(
                    f"reward.{name}: expected a capkit.scorers.reward.RewardTerm around a scorer, got "
                    f"{type(term).__name__}"
                )
        if combine not in COMBINATIONS:
            raise UsageError(f"combine must be sum or geometric_mean; got {combine!r}")
        self.terms, self.combine = dict(terms), combine

    def __call__(self, batch: CaptionBatch, samples: Samples, step: int, total_steps: int) -> Scores:
        raw = {name: _score(name, term.scorer, batch, samples) for name, term in self.terms.items()}
        shaped = {name: term.shape(raw[name]) for name, term in self.terms.items()}
        weights = {name: term.weight_at(step, total_steps) for name, term in self.terms.items()}
        weighted = {name: weights[name] * shaped[name] for name in shaped}
        used = [name for name, weight in weights.items() if weight != 0]
        if not used:
            total = torch.zeros_like(next(iter(shaped.values())))
        elif self.combine == "sum":
            total = torch.stack([weighted[name] for name in used]).sum(0)
        else:
            total = _geometric_mean({name: shaped[name] for name in used}, weights)
        return Scores(total, raw, weighted)

    def score_alone(self, batch: CaptionBatch, samples: Samples) -> dict[str, Tensor]:
        """Raw scores of the terms that need no other rank's captions or images."""
        return {
            name: _score(name, term.scorer, batch, samples)
            for name, term in self.terms.items()
            if not getattr(term.scorer, "communicates", False)
        }

    def prepare(
        self,
        read_image: Callable[[str], np.ndarray | None],
        references: Callable[[], Sequence[Sequence[str]]],
        device: torch.device | str,
    ) -> None:
        """Gives the scorers what they ask for: pictures by key (None: unreadable), training references, the device."""
        for scorer in self.scorers():
            if hasattr(scorer, "attach_images"):
                scorer.attach_images(read_image)
            if hasattr(scorer, "fit"):
                scorer.fit(references())
            if hasattr(scorer, "to"):
                scorer.to(device)

    def scorers(self) -> Iterator[Any]:
        return (term.scorer for term in self.terms.values())

    def logs(self) -> dict[str, float]:
        """Numbers that scorers know of their last batch (a pool's size), by name of the term."""
        return {
            f"{name}_{key}": value
            for name, term in self.terms.items()
            for key, value in getattr(term.scorer, "logs", dict)().items()
        }

    def provenance(self) -> dict[str, Any]:
        """What each number has to be quoted with."""
        return {
            name: term.scorer.provenance()  # type: ignore[attr-defined]
            for name, term in self.terms.items()
            if hasattr(term.scorer, "provenance")
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            name: term.scorer.state_dict()  # type: ignore[attr-defined]
            for name, term in self.terms.items()
            if hasattr(term.scorer, "state_dict")
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, term in self.terms.items():
            if hasattr(term.scorer, "load_state_dict"):
                term.scorer.load_state_dict(state[name])


def _normalized(scores: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
    mean, deviation = mean_and_std_over_ranks(scores)
    return torch.zeros_like(scores).where(~scores.isnan(), scores) if deviation == 0 else (scores - mean) / deviation


def _geometric_mean(shaped: Mapping[str, Tensor], weights: Mapping[str, float | int]) -> Tensor:
    for name, scores in shaped.items():
        if weights[name] < 0:
            raise UsageError(
                f"combine=geometric_mean wants weights of 0 or more; got reward.{name}.weight={weights[name]}; use "
                "combine=sum to subtract a term"
            )
        negative = scores[scores < 0]
        if len(negative):
            raise UsageError(
                f"combine=geometric_mean wants scores of 0 or more; reward {name} gave {float(negative.min()):.4g}; "
                f"clip it, for example reward.{name}.clip=[0,1], or use combine=sum"
            )
    logs = torch.stack([weights[name] * scores.log() for name, scores in shaped.items()]).sum(0)
    return (logs / sum(weights[name] for name in shaped)).exp()


def _score(name: str, scorer: Scorer, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K"]:
    try:
        return scorer(batch, samples).float()
    except (torch.OutOfMemoryError, RunFailure):
        raise  # no caption's fault
    except Exception as error:
        where = "" if getattr(scorer, "communicates", False) else _offender(scorer, batch, samples, type(error))
        raise RewardError(f"reward {name} failed{where}: {type(error).__name__}: {error}") from error


def _offender(scorer: Scorer, batch: CaptionBatch, samples: Samples, failure: type[Exception]) -> str:
    """The first image and caption on which the scorer fails alone in the same way."""
    for row, key in enumerate(batch.keys):
        for number, text in enumerate(samples.texts[row]):
            try:
                scorer(batch.select([row]), samples.select(row, number))
            except failure:
                return f" on image {key!r}, caption {text!r}"
    return f" on the batch of {len(batch)} images as a whole (first: {batch.keys[0]!r})"
