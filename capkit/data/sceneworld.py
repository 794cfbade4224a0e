"""SceneWorld as a data source: seeded pictures with exact language, generated at first use and cached."""

from dataclasses import asdict
from functools import cached_property
from typing import Annotated

import numpy as np

from capkit.data.fingerprint import fingerprint_of
from capkit.data.manifest import Caption, Record
from capkit.errors import UsageError, did_you_mean
from capkit.ranges import PositiveInt, Range, Seed, WorkerCount, check_ranges
from capkit.scenes.cache import GENERATOR_VERSION, CachedSplit, build_split
from capkit.scenes.language import STYLES, Detail
from capkit.scenes.world import SPLITS, WorldOptions


@check_ranges
class SceneWorld:
    """The first `count` scenes of a split, five references each.

    `style` and `detail` are those of the references (short, human, dense or noisy). Metadata holds the scene and the
    facts that the references state: fact metrics score from them. `num_workers` processes generate; the result does not
    depend on them.
    """

    def __init__(
        self,
        split: str,
        count: PositiveInt,
        size: Annotated[int, Range(32)] = 64,
        seed: Seed = 0,
        style: str = "human",
        detail: Detail | None = None,
        options: WorldOptions | None = None,
        cache_dir: str = "data/scenes",
        num_workers: WorkerCount = 0,
    ) -> None:
        if split not in SPLITS:
            raise UsageError(f"split {split!r} is not one of SceneWorld's; {did_you_mean(split, SPLITS)}")
        if style not in STYLES:
            raise UsageError(f"style {style!r} is not one of SceneWorld's; {did_you_mean(style, STYLES)}")
        self._split, self._count, self._size, self._seed = split, count, size, seed
        self._style, self._detail, self._options = style, detail, options
        self._cache_dir, self._num_workers = cache_dir, num_workers

    @cached_property
    def _cache(self) -> CachedSplit:
        return build_split(
            self._seed,
            self._split,
            self._count,
            size=self._size,
            options=self._options,
            cache_dir=self._cache_dir,
            num_workers=self._num_workers,
            style=self._style,
            detail=self._detail,
        )

    def prepare(self) -> None:
        """Generates the split unless the cache has it."""
        len(self._cache)

    def fingerprint(self) -> str:
        """All that the records depend on; no scene is made for it."""
        return fingerprint_of(
            generator_version=GENERATOR_VERSION,
            split=self._split,
            count=self._count,
            size=self._size,
            seed=self._seed,
            style=self._style,
            detail=None if self._detail is None else asdict(self._detail),
            options=asdict(self._options or WorldOptions()),
        )

    def __len__(self) -> int:
        return self._count

    def record(self, index: int) -> Record:
        row = self._cache.row(index)
        return Record(
            key=f"{self._split}-{index}",
            captions=[Caption(text, source="grammar") for text in row["references"]],
            metadata={"scene": row["scene"], "stated_facts": row["stated_facts"]},
        )

    def image(self, index: int) -> np.ndarray:
        return self._cache.image(index)
