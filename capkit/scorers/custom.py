"""A function of the user's own, f(images, texts) -> numbers, as a reward, metric, filter or reranker.

B images, K samples per image, N captions.
"""

import importlib
import math
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.util import cache_from_source
from types import ModuleType
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from capkit.errors import UsageError
from capkit.optim.schedules import Schedule
from capkit.scorers.as_metric import ScorerMetric
from capkit.scorers.base import BaseScorer, ReadImage
from capkit.scorers.flatten import flat_texts, unflatten_scores
from capkit.scorers.reward import RewardTerm
from capkit.types import CaptionBatch, Samples
from capkit.utils.ranges import FiniteFloat, Length, check_ranges

ScoreFunction = Callable[[list[Any], list[str]], Any]


class Custom(BaseScorer):
    """What `function(images, texts)` gives for each of N captions: numbers, higher is better, NaN where it has none.

    `images` are N uint8 arrays (H, W, 3), a caption's own picture each, at full size; captions of one picture share
    the array. Captions whose picture cannot be read get NaN and are not passed on. With `pictures=False` no picture
    is read, and `images` are N times None. The function is called on the host, once a batch; what it keeps of earlier
    calls is not saved in checkpoints. Raises UsageError for another number of results than texts, and for infinity.
    """

    def __init__(self, function: ScoreFunction, pictures: bool = True) -> None:
        self.function, self.pictures = function, pictures
        self.name = getattr(function, "__name__", type(function).__name__)
        self._read: ReadImage | None = None

    def attach_images(self, read: ReadImage) -> None:
        self._read = read

    def __call__(self, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K"]:
        texts, num_samples = flat_texts(samples), len(samples.texts[0])
        images = [image for image in self._images(batch) for _ in range(num_samples)]
        seen = [place for place, image in enumerate(images) if image is not None or not self.pictures]
        scores = [math.nan] * len(texts)
        found = self._numbers([images[place] for place in seen], [texts[place] for place in seen]) if seen else []
        for place, number in zip(seen, found, strict=True):
            scores[place] = number
        return unflatten_scores(scores, samples)

    def _images(self, batch: CaptionBatch) -> list[np.ndarray | None]:
        if not self.pictures:
            return [None] * len(batch)
        if self._read is None:
            raise UsageError(
                f"{self.name} looks at pictures: expected some beside the captions, got none; give images=FOLDER, or "
                "pictures=false for a function of texts alone"
            )
        return [self._read(key) for key in batch.keys]

    def _numbers(self, images: list[Any], texts: list[str]) -> list[float]:
        result = self.function(images, texts)
        if isinstance(result, Tensor) and result.is_floating_point():
            result = result.double()  # NumPy has no bfloat16
        values = result.detach().cpu().numpy() if isinstance(result, Tensor) else np.asarray(result)
        wrong = None
        if values.shape != (len(texts),) or values.dtype.kind not in "fiub":
            wrong = f"{values.dtype} {values.shape}"
        elif np.isinf(values).any():
            wrong = f"infinity for {texts[int(np.isinf(values).argmax())][:60]!r}"
        if wrong is not None:
            raise UsageError(
                f"{self.name}: expected a finite number or NaN for each of {len(texts)} texts, got {wrong}; mend the "
                "function"
            )
        return torch.from_numpy(values.astype(np.float64)).tolist()


IN_A_FILE = (
    "a function of a notebook or script is known to that process alone; write it into a file in this folder (in a "
    "notebook by %%writefile my_rewards.py) and give my_rewards.NAME"
)
_read: dict[str, tuple[str, int]] = {}  # file of each module that was imported here, and when it was written, ns


def forget_rewritten() -> None:
    """Have modules of functions imported anew whose file was written since, as a notebook does between two runs.

    Called before a run: within one, a function stays as it was imported, whatever becomes of its file.
    """
    for name, (file, written) in list(_read.items()):
        if _time_of(file) != written:
            del _read[name]
            sys.modules.pop(name, None)
            with suppress(OSError, NotImplementedError):  # Python takes it for this file's where size and second agree
                os.remove(cache_from_source(file))


def _imported(name: str) -> ModuleType:
    importlib.invalidate_caches()
    module = importlib.import_module(name)
    file = getattr(module, "__file__", None)
    if file is not None and name != "__main__":
        _read.setdefault(name, (file, _time_of(file)))
    return module


def _time_of(file: str) -> int:
    return os.stat(file).st_mtime_ns if os.path.exists(file) else 0


def imported_function(name: str) -> ScoreFunction:
    """The function of a dotted name. Raises UsageError where there is none, or where its module cannot be imported."""
    module, _, leaf = name.rpartition(".")
    example = "give module.function, as in my_rewards.brightness of my_rewards.py in this folder"
    if not module:
        raise UsageError(f"function: expected a dotted name, got {name!r}; {example}")
    try:
        found = getattr(_imported(module), leaf)
    except (ImportError, AttributeError) as error:
        fix = IN_A_FILE if module == "__main__" else example
        raise UsageError(f"function: {name} cannot be imported ({error}); {fix}") from error
    if not callable(found):
        raise UsageError(f"function: expected {name} to be a function, got {type(found).__name__}; {example}")
    return found


@check_ranges
def custom_reward(
    function: str,
    pictures: bool = True,
    weight: FiniteFloat | Schedule = 1.0,
    normalize: str = "none",
    clip: Annotated[Sequence[FiniteFloat], Length(2)] | None = None,
) -> RewardTerm:
    """A term of the reward by a function of your own, by dotted name.

    A run's config that somebody else wrote cannot name one (capkit/config/targets.py): only the command line can.
    """
    return RewardTerm(Custom(imported_function(function), pictures), weight, normalize, clip)


def custom_metric(function: str, pictures: bool = True, name: str = "custom") -> ScorerMetric:
    """The mean of what a function of your own gives each caption, by dotted name. As a reward's, it is not taken from
    the config of an earlier run."""
    return ScorerMetric(Custom(imported_function(function), pictures), name)
