"""What a scorer must offer, and the hooks that it may have, with their defaults.

B images, K samples per image, N captions.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from capkit.errors import UsageError
from capkit.readers.base import ReadBack
from capkit.types import CaptionBatch, Samples, Viewer

ReadImage = Callable[[str], UInt8[np.ndarray, "H W 3"] | None]
References = Sequence[Sequence[str]]


@runtime_checkable
class Scorer(Protocol):
    """Higher is better; NaN means that a caption could not be scored. Any function with this signature is a scorer."""

    def __call__(self, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K"]: ...


class BaseScorer(Scorer):
    """A scorer with the hooks through which a reward, metric, filter or reranker gives it what it needs.

    `prepare` is called before the first score. A function without hooks is a scorer too: see `as_scorer`.
    """

    communicates = False
    """Whether scores depend on captions or images of other ranks: every rank must then score each batch."""
    needs_references = False
    """Whether a caption can only be scored beside references of its image."""
    needs_fit = False
    """Whether `fit` must be called before the first score."""
    needs_tokens = False
    """Whether samples must come with the captioner's token ids: captions given as texts cannot be scored."""
    viewer: Viewer | None = None
    """What looks at the pictures of training batches, if the scorer compares captions with pictures."""
    starts_first = False
    """Whether the host only launches work of the device: what others compute on the host runs beside it."""

    @abstractmethod
    def __call__(self, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K"]: ...

    @property
    def scores_alone(self) -> bool:
        """Whether a caption's score is the same in whatever batch it is scored."""
        return not self.communicates

    def attach_captioner(self, tokenizer: Any, prompt: str) -> None:
        """The tokenizer and prompt of the captioner whose samples are scored; not called for captions of files."""

    def attach_images(self, read: ReadImage) -> None:
        """`read` gives a record's picture by its key, None where it cannot be read."""

    def at_step(self, step: int | None) -> None:
        """Told before a batch is scored: the optimizer step, None outside of training."""

    def meet(self, keys: Callable[[str], Sequence[str]]) -> None:
        """`keys` gives the pictures of a split that the run will score. Raises UsageError for what it cannot score."""

    def fit(self, references: References) -> Any:
        """Counts what the scorer has to know of the references of each training image."""

    def to(self, device: torch.device | str) -> Any:
        """Moves models to the device."""

    def prepare(self, read_image: ReadImage, references: Callable[[], References], device: torch.device | str) -> None:
        """Gives the scorer pictures, references and the device; `references` is called only where `needs_fit`."""
        self.attach_images(read_image)
        if self.needs_fit:
            self.fit(references())
        self.to(device)

    def logs(self) -> dict[str, float]:
        """Numbers of the last batch, such as a pool's size."""
        return {}

    def read_back(self, batch: CaptionBatch, samples: Samples) -> list[list[list[ReadBack]]]:
        """The questions that are asked of each caption, with what was answered, for a page; none: nothing is asked."""
        return []

    def provenance(self) -> dict[str, Any]:
        """What each score has to be quoted with."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What later scores depend on beside batch and samples; {} where nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from a `state_dict` that was not {}."""


_HOOKS = (
    *(
        "communicates",
        "needs_references",
        "needs_fit",
        "needs_tokens",
        "starts_first",
        "viewer",
        "attach_captioner",
        "attach_images",
        "at_step",
        "meet",
        "fit",
        "to",
        "logs",
    ),
    *("read_back", "provenance", "state_dict", "load_state_dict"),
)


class ScorerWrapper(BaseScorer):
    """A scorer around another one: the hooks that the inner one has are the wrapper's, the others have defaults."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        own = {name: getattr(scorer, name) for name in _HOOKS if hasattr(scorer, name)}
        vars(self).update({"needs_fit": "fit" in own} | own)

    def __call__(self, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K"]:
        return self.scorer(batch, samples)

    @property
    def scores_alone(self) -> bool:
        return not self.communicates and getattr(self.scorer, "scores_alone", True)


def as_scorer(scorer: Scorer) -> BaseScorer:
    """The scorer itself where it is a BaseScorer; any other callable with defaults for the hooks that it lacks."""
    return scorer if isinstance(scorer, BaseScorer) else ScorerWrapper(scorer)


def require_text_scorer(scorer: BaseScorer, user: str) -> None:
    """Raises UsageError where captions cannot be scored one by one from their texts, as `user` does."""
    if not scorer.scores_alone:
        raise UsageError(
            f"{user}: expected a scorer that scores each caption by itself; got one that compares the captions of a "
            "batch; take another one, such as clip_score in the place of self_retrieval, and no normalize"
        )
    if scorer.needs_tokens:
        raise UsageError(
            f"{user}: expected a scorer of texts; got one that counts the captioner's token ids; give units=word"
        )


def score_captions(
    scorer: BaseScorer,
    captions: Sequence[str],
    keys: Sequence[str],
    references: Sequence[Sequence[str]],
    metadata: Sequence[Mapping[str, Any]],
) -> Float[np.ndarray, " N"]:
    """The score of each caption as one of its own image; NaN for those without the references that are needed."""
    scores = np.full(len(captions), math.nan)
    rows = [i for i in range(len(captions)) if references[i] or not scorer.needs_references]
    if rows:
        batch = CaptionBatch(
            keys=[keys[i] for i in rows],
            references=[list(references[i]) for i in rows],
            metadata=[dict(metadata[i]) for i in rows],
        )
        scores[rows] = scorer(batch, Samples.from_texts([[captions[i]] for i in rows]))[:, 0].double().cpu().numpy()
    return scores
