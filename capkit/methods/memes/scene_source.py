"""SceneWorld's synthetic memes as a data source."""

from functools import lru_cache
from typing import Annotated

import numpy as np

from capkit.data.records import Record
from capkit.errors import UsageError, did_you_mean
from capkit.methods.memes.source import candidate_captions
from capkit.sceneworld.memes import GROUP, SceneMeme, make_meme
from capkit.sceneworld.world.render import render
from capkit.utils.ranges import PositiveInt, Probability, Range, Seed, check_ranges

SPLITS = ("train", "val", "test")
SOURCES = ("picture", "text", "captions")


@check_ranges
class SceneMemes:
    """The first `count` memes of a split, whose label needs picture, text and caption (`capkit.sceneworld.memes`).

    Two candidate captions in random order, of which one is informative; its place stands in the metadata. In a share
    `refused` of the memes it is empty, and None stands there. `text` says how the text on the meme enters: see
    `candidate_captions`. With `names_color` the captions fit the picture: as a source of plain pairs of picture and
    captions they train a dual encoder, to which the rest of a caption says nothing. `ironic` is the share of memes
    whose words are not meant as they are said; None: half, in complete groups.

    `without` takes one of the three away, as a control: "picture" (a black one), "text", or "captions" (the text is
    the only candidate).
    """

    def __init__(
        self,
        split: str,
        count: PositiveInt,
        size: Annotated[int, Range(32)] = 64,
        seed: Seed = 0,
        refused: Probability = 0.0,
        text: str = "caption",
        names_color: bool = False,
        ironic: Probability | None = None,
        without: str | None = None,
    ) -> None:
        if split not in SPLITS:
            raise UsageError(f"split {split!r} is not one of SceneMemes'; {did_you_mean(split, SPLITS)}")
        if count % GROUP:
            raise UsageError(f"memes come in groups of {GROUP}: count must be a multiple of it; got {count}")
        if without is not None and without not in SOURCES:
            raise UsageError(f"without must be one of {', '.join(SOURCES)}, or null; got {without!r}")
        self._split, self._count, self._size, self._seed = split, count, size, seed
        self._settings, self._without = (refused, names_color, ironic), without
        self._text = {"text": "none", "captions": "candidate"}.get(without or "", text)
        candidate_captions({}, "", self._text)

    def __len__(self) -> int:
        return self._count

    def _meme(self, index: int) -> SceneMeme:
        return _make_meme(self._seed, self._split, index, *self._settings)

    def record(self, index: int) -> Record:
        meme = self._meme(index)
        names = ("informative", "generic") if meme.informative == 0 else ("generic", "informative")
        written = {} if self._without == "captions" else dict(zip(names, meme.captions, strict=True))
        captions = candidate_captions(written, meme.text, self._text)
        return Record(
            key=f"{self._split}-{index}",
            captions=captions,
            metadata={
                "label": meme.label,
                "text": meme.text,
                "candidates": [caption.source for caption in captions],
                "informative": meme.informative if written and meme.captions[meme.informative] else None,
                "scene": meme.scene.to_dict(),
            },
        )

    def image(self, index: int) -> np.ndarray:
        picture = render(self._meme(index).scene, self._size)
        return np.zeros_like(picture) if self._without == "picture" else picture


@lru_cache(maxsize=100_000)
def _make_meme(seed: int, split: str, index: int, refused: float, names_color: bool, ironic: float | None) -> SceneMeme:
    return make_meme(seed, split, index, refused, names_color, ironic)
