"""The vocabulary of SceneWorld (shapes, colours, ...) and the options that select from it."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from capkit.errors import UsageError, did_you_mean
from capkit.utils.ranges import PositiveInt, Probability, check_ranges

SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross", "heart", "moon")
COLORS: dict[str, tuple[int, int, int]] = {
    "red": (222, 32, 38),
    "orange": (255, 140, 0),
    "yellow": (250, 225, 30),
    "green": (34, 160, 60),
    "cyan": (60, 210, 225),
    "blue": (35, 65, 215),
    "purple": (125, 35, 165),
    "pink": (255, 130, 195),
}
SIZES: dict[str, float] = {"small": 11 / 64, "medium": 15 / 64, "large": 18 / 64}
BACKGROUNDS = ("white", "gray", "black", "striped")
SPLITS = ("train", "val", "test", "holdout")
WORDS = (
    "a", "b", "h", "k", "x", "z", "3", "7", "8", "15", "42", "90", "hi", "ok", "go", "up", "cat", "sun", "map", "key",
)  # fmt: skip
CONTAINERS = ("circle", "square")  # solid enough to show a rim around a small object inside
GRID = 3
MAX_OBJECTS = GRID * GRID - 1  # one cell is left for drawn text
HOLDOUT = (("circle", "yellow"), ("square", "green"), ("triangle", "red"), ("star", "blue"))


@check_ranges
@dataclass(frozen=True)
class WorldOptions:
    """The distribution of scenes; the defaults are those of the main experiment.

    Args:
        shapes, colors, sizes, backgrounds: The values that occur.
        min_objects: Fewest objects of a scene; at most `max_objects`.
        inside_probability: Of a small object inside a large one.
        text_probability: Of a drawn word.
        words: At most three letters or digits each.
        holdout: (shape, colour) pairs that no object of train, val or test has, and every scene of "holdout" has.
    """

    shapes: Sequence[str] = SHAPES[:6]
    colors: Sequence[str] = tuple(COLORS)
    sizes: Sequence[str] = ("small", "large")
    backgrounds: Sequence[str] = BACKGROUNDS
    min_objects: PositiveInt = 1
    max_objects: PositiveInt = 5
    inside_probability: Probability = 0.2
    text_probability: Probability = 0.0
    words: Sequence[str] = WORDS
    holdout: Sequence[Sequence[str]] = HOLDOUT

    def __post_init__(self) -> None:
        for name in ("shapes", "colors", "sizes", "backgrounds", "words"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "holdout", tuple(tuple(pair) for pair in self.holdout))
        for name, valid in (("shapes", SHAPES), ("colors", COLORS), ("sizes", SIZES), ("backgrounds", BACKGROUNDS)):
            _check_names(name, getattr(self, name), valid)
        self._check_numbers()
        self._check_holdout()
        self._check_inside_and_text()

    def _check_numbers(self) -> None:
        if not self.min_objects <= self.max_objects <= MAX_OBJECTS:
            raise UsageError(
                f"expected min_objects <= max_objects <= {MAX_OBJECTS}, got min_objects={self.min_objects}, "
                f"max_objects={self.max_objects}"
            )

    def _check_holdout(self) -> None:
        for pair in self.holdout:
            if len(pair) != 2:
                raise UsageError(f"holdout must list pairs such as [circle, red]; got {list(pair)}")
            _check_names("holdout shapes", pair[:1], SHAPES)
            _check_names("holdout colors", pair[1:], COLORS)
        if not self.kept_pairs:
            raise UsageError(
                "holdout leaves no pair of shape and colour for train, val and test; remove some pairs from it"
            )

    def _check_inside_and_text(self) -> None:
        if self.inside_probability > 0 and self.max_objects > 1:
            containers = [pair for pair in self.kept_pairs if pair[0] in CONTAINERS]
            num_colors = len({color for _, color in self.kept_pairs})
            if not containers or num_colors < 2 or not {"small", "large"} <= set(self.sizes):
                raise UsageError(
                    f"inside_probability={self.inside_probability} needs a shape of {CONTAINERS}, the sizes small and "
                    "large and two colors outside the holdout; add them or set inside_probability=0"
                )
        if not all(re.fullmatch("[a-z0-9]{1,3}", word) for word in self.words):
            raise UsageError(f"words must be 1 to 3 lower-case letters or digits; got {list(self.words)}")
        if self.text_probability > 0 and not self.words:
            raise UsageError("text_probability > 0 needs words; add some or set text_probability=0")

    @cached_property
    def holdout_pairs(self) -> frozenset[tuple[str, str]]:
        return frozenset((shape, color) for shape, color in self.holdout)

    @cached_property
    def all_pairs(self) -> tuple[tuple[str, str], ...]:
        """All (shape, colour) pairs, from which scenes of "holdout" are drawn."""
        return tuple((shape, color) for shape in self.shapes for color in self.colors)

    @cached_property
    def kept_pairs(self) -> tuple[tuple[str, str], ...]:
        """The pairs outside the holdout, from which train, val and test are drawn."""
        return tuple(pair for pair in self.all_pairs if pair not in self.holdout_pairs)


def _check_names(what: str, names: Sequence[str], valid: Iterable[str]) -> None:
    if not names or len(set(names)) < len(names):
        raise UsageError(f"{what} must be distinct names, at least one; got {list(names)}")
    for name in names:
        if name not in set(valid):
            raise UsageError(f"{what} has no {name!r}; {did_you_mean(name, valid)}")
