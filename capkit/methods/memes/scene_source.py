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


@check_ranges
class SceneMemes:
    """The first `count` memes of a split: an XOR of the picture's colour and the text (`capkit.sceneworld.memes`).

    Two candidate captions in random order, of which one is informative; its place stands in the metadata. In a share
    `refused` of the memes it is empty, and None stands there. `text` says how the text on the meme enters, beyond the
    informative caption that repeats it: see `candidate_captions`. As a source of plain pairs of picture and captions it
    trains a dual encoder, to which the texts say nothing.
    """

    def __init__(
        self,
        split: str,
        count: PositiveInt,
        size: Annotated[int, Range(32)] = 64,
        seed: Seed = 0,
        refused: Probability = 0.0,
        text: str = "none",
    ) -> None:
        if split not in SPLITS:
            raise UsageError(f"split {split!r} is not one of SceneMemes'; {did_you_mean(split, SPLITS)}")
        if count % GROUP:
            raise UsageError(f"memes come in groups of {GROUP}: count must be a multiple of it; got {count}")
        self._split, self._count, self._size, self._seed, self._text = split, count, size, seed, text
        self._refused = refused
        candidate_captions({}, "", text)

    def __len__(self) -> int:
        return self._count

    def _meme(self, index: int) -> SceneMeme:
        return _make_meme(self._seed, self._split, index, self._refused)

    def record(self, index: int) -> Record:
        meme = self._meme(index)
        names = ("informative", "generic") if meme.informative == 0 else ("generic", "informative")
        captions = candidate_captions(dict(zip(names, meme.captions, strict=True)), meme.text, self._text)
        return Record(
            key=f"{self._split}-{index}",
            captions=captions,
            metadata={
                "label": meme.label,
                "text": meme.text,
                "candidates": [caption.source for caption in captions],
                "informative": meme.informative if meme.captions[meme.informative] else None,
                "scene": meme.scene.to_dict(),
            },
        )

    def image(self, index: int) -> np.ndarray:
        return render(self._meme(index).scene, self._size)


@lru_cache(maxsize=100_000)
def _make_meme(seed: int, split: str, index: int, refused: float) -> SceneMeme:
    return make_meme(seed, split, index, refused)
