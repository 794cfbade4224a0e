"""The reward of a run: named terms, each a scorer with a weight, added up or multiplied.

B images, K samples per image.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from capkit.distributed.collectives import mean_and_std_over_ranks
from capkit.errors import RunFailure, UsageError
from capkit.optim.schedules import Schedule, value_at
from capkit.readers.base import ReadBack
from capkit.scorers.base import BaseScorer, ReadImage, References, Scorer, as_scorer
from capkit.types import CaptionBatch, Samples, Viewer
from capkit.utils.ranges import FiniteFloat, Length, check_ranges
from capkit.utils.renamed import moved_names
from capkit.utils.tensors import send

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
        return value_at(self.weight, step, total_steps)

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
        self._scorers = {name: as_scorer(term.scorer) for name, term in terms.items()}

    def __call__(self, batch: CaptionBatch, samples: Samples, step: int, total_steps: int) -> Scores:
        self._tell(step)
        _ = samples.ended_on_host  # before there is work for the device, which the host would wait for
        order = sorted(self._scorers.items(), key=lambda item: not item[1].starts_first)
        found = {name: _score(name, scorer, batch, samples) for name, scorer in order}
        return self.combined({name: found[name] for name in self._scorers}, step, total_steps)

    def combined(self, raw: dict[str, Tensor], step: int, total_steps: int) -> Scores:
        """The terms' scores, shaped, weighted and added up or multiplied."""
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

    def score_alone(self, batch: CaptionBatch, samples: Samples) -> dict[str, Float[Tensor, "B K"]]:
        """Raw scores of the terms that need no other captions or images of the batch, nor token ids that are absent."""
        self._tell(None)
        return {
            name: _score(name, scorer, batch, samples)
            for name, scorer in self._scorers.items()
            if scorer.scores_alone and (samples.tokens is not None or not scorer.needs_tokens)
        }

    def _tell(self, step: int | None) -> None:
        for scorer in self._scorers.values():
            scorer.at_step(step)

    @property
    def compared(self) -> list[str]:
        """The terms whose value depends on other captions of the batch: with any, one caption has no total."""
        return [
            name
            for name, term in self.terms.items()
            if term.normalize != "none" or not self._scorers[name].scores_alone
        ]

    def attach_captioner(self, tokenizer: Any, prompt: str) -> None:
        """Gives the scorers the tokenizer and prompt of the captioner that is rewarded."""
        for scorer in self._scorers.values():
            scorer.attach_captioner(tokenizer, prompt)

    def meet(self, keys: Callable[[str], Sequence[str]]) -> None:
        """Lets scorers check the pictures of the run's splits. Raises UsageError."""
        for scorer in self._scorers.values():
            scorer.meet(keys)

    def prepare(self, read_image: ReadImage, references: Callable[[], References], device: torch.device | str) -> None:
        """Gives the scorers what they ask for: pictures by key (None: unreadable), training references, the device."""
        for scorer in self._scorers.values():
            scorer.prepare(read_image, references, device)

    def require_apart(self, policy: nn.Module) -> None:
        """Raises UsageError where a scorer holds weights of the policy: a judge that learns along proves nothing."""
        own = {id(parameter) for parameter in policy.parameters()}
        for name, term in self.terms.items():
            if any(id(parameter) in own for module in _modules_in(term.scorer) for parameter in module.parameters()):
                raise UsageError(
                    f"reward.{name}: expected a model of its own, got the captioner that is trained; give the scorer "
                    "a frozen copy"
                )

    def viewers(self) -> dict[str, Viewer]:
        """What looks at training pictures, by name of the term."""
        return {name: scorer.viewer for name, scorer in self._scorers.items() if scorer.viewer is not None}

    def look(self, batch: CaptionBatch) -> None:
        """Lets scorers look at the pictures that came with a batch. Does not wait for the device."""
        for name, viewer in self.viewers().items():
            if name in batch.pictures:
                viewer.look(batch.pictures[name])

    def logs(self) -> dict[str, float]:
        """Numbers that scorers know of their last batch (a pool's size), by name of the term."""
        return {
            f"{name}_{key}": value for name, scorer in self._scorers.items() for key, value in scorer.logs().items()
        }

    def read_back(self, batch: CaptionBatch, samples: Samples) -> list[list[list[ReadBack]]]:
        """The questions that the terms ask of each caption, outside of training; [] where no term asks any."""
        self._tell(None)
        asked = [found for scorer in self._scorers.values() if (found := scorer.read_back(batch, samples))]
        pictures = zip(*asked, strict=True)
        return [[[*chain.from_iterable(of)] for of in zip(*rows, strict=True)] for rows in pictures]

    def provenance(self) -> dict[str, Any]:
        """What each number has to be quoted with."""
        return {name: about for name, scorer in self._scorers.items() if (about := scorer.provenance())}

    def state_dict(self) -> dict[str, Any]:
        return {name: state for name, scorer in self._scorers.items() if (state := scorer.state_dict())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises UsageError where a scorer that has a state finds none of its own."""
        for name, scorer in self._scorers.items():
            if name in state:
                scorer.load_state_dict(state[name])
            elif scorer.state_dict():
                raise UsageError(
                    f"reward.{name} continues from an earlier state; got none in the checkpoint; start a run with this "
                    "reward by init_from=CHECKPOINT instead of resume"
                )


class RewardTotal(BaseScorer):
    """The total of named terms as one scorer: what filters and rerankers make of `reward=[...]`.

    A weight that follows a schedule is the one at its end. An entry of None is left out.
    """

    def __init__(self, terms: Mapping[str, RewardTerm | None], combine: str = "sum") -> None:
        named = {name: term for name, term in terms.items() if term is not None}
        if not named:
            raise UsageError("expected a scorer to choose captions by, got none; give for example reward=[clip_score]")
        self._reward = Reward(named, combine)
        self._scorers = {name: as_scorer(term.scorer) for name, term in named.items()}
        self._normalizes = any(term.normalize != "none" for term in named.values())
        self.communicates = self._normalizes or any(scorer.communicates for scorer in self._scorers.values())
        self.needs_references = any(scorer.needs_references for scorer in self._scorers.values())
        self.needs_fit = any(scorer.needs_fit for scorer in self._scorers.values())
        self.needs_tokens = any(scorer.needs_tokens for scorer in self._scorers.values())

    def __call__(self, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K"]:
        raw = {name: scorer(batch, samples).float() for name, scorer in self._scorers.items()}
        return self._reward.combined(raw, 1, 1).total

    @property
    def scores_alone(self) -> bool:
        return not self._normalizes and all(scorer.scores_alone for scorer in self._scorers.values())

    def attach_captioner(self, tokenizer: Any, prompt: str) -> None:
        self._reward.attach_captioner(tokenizer, prompt)

    def prepare(self, read_image: ReadImage, references: Callable[[], References], device: torch.device | str) -> None:
        self._reward.prepare(read_image, references, device)

    def provenance(self) -> dict[str, Any]:
        return self._reward.provenance()


def _modules_in(part: Any, depth: int = 4) -> Iterator[nn.Module]:
    """Networks among an object's attributes, and among those of its attributes."""
    if isinstance(part, nn.Module):
        yield part
    elif depth and hasattr(part, "__dict__") and not isinstance(part, type):
        for value in vars(part).values():
            yield from _modules_in(value, depth - 1)


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


def _score(name: str, scorer: BaseScorer, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K"]:
    """A term's scores where the samples lie, wherever the scorer left them: the same place for all terms and ranks."""
    try:
        scores = scorer(batch, samples).float()
        return scores if samples.tokens is None else send(scores, samples.tokens.device)
    except (torch.OutOfMemoryError, RunFailure):
        raise  # no caption's fault
    except Exception as error:
        where = "" if scorer.communicates else _offender(scorer, batch, samples, type(error))
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
