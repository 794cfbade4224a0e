"""Several texts of an image per step: one that is always there, and sentences of its long captions (DreamLIP).

Zheng et al. 2024, "DreamLIP: Language-Image Pre-training with Long Captions" (arXiv 2403.17007), section 3.2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from capkit.data.images import BadImage
from capkit.data.targets import Target
from capkit.errors import UsageError, did_you_mean
from capkit.text.sentences import sentences
from capkit.utils.rng import stable_hash, uniform

KEYS = ("count", "always", "from")


class SubCaptions:
    """Draws `count` texts of an image for a training step, by (seed, epoch, index).

    The first is a caption by `always`, whole; None: there is no such text. The others are sentences of captions whose
    source begins with one of `sources`, each at most once as long as there are enough, else again from the start in
    another order. Every sentence can be drawn, the last one too. The source of a sentence is its caption's with the
    sentence's number from 0 behind a slash: "longIB/3".

    Where an image has captions of one kind alone, all of its texts are of that kind; one with neither is unusable
    (BadImage).

    Deliberate differences from the released program: (1) it never draws the last sentence; (2) it cuts at every full
    stop, within "3.5" and "U.S." too.
    """

    def __init__(self, count: int, sources: Sequence[str], always: str | None = None) -> None:
        self.count, self.sources, self.always = count, tuple(sources), always

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "SubCaptions":
        """Of data.sub_captions={count: 8, always: raw, from: [short, long]}. Raises UsageError."""
        for name in settings:
            if name not in KEYS:
                raise UsageError(f"data.sub_captions: unknown key {name!r}; {did_you_mean(str(name), KEYS)}")
        count, sources, always = settings.get("count"), settings.get("from"), settings.get("always")
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise UsageError(f"data.sub_captions.count: expected a whole number from 1 on, got {count!r}")
        if isinstance(sources, str) or not sources or not all(isinstance(item, str) and item for item in sources):
            raise UsageError(
                f"data.sub_captions.from: expected names of sources whose sentences are drawn, got {sources!r}; "
                "give e.g. from=[long]"
            )
        if always is not None and (not isinstance(always, str) or not always):
            raise UsageError(f"data.sub_captions.always: expected the name of a source or null, got {always!r}")
        return cls(count, sources, always)

    def pool(self, targets: Sequence[Target]) -> list[Target]:
        """The sentences that can be drawn."""
        found = []
        for target in targets:
            source = target.caption.source
            if source.startswith(self.sources):
                for number, text in enumerate(sentences(target.text)):
                    found.append(
                        replace(target, text=text, caption=replace(target.caption, source=f"{source}/{number}"))
                    )
        return found

    def __call__(self, targets: Sequence[Target], key: tuple[int, int, int]) -> list[Target]:
        whole = [target for target in targets if target.caption.source == self.always][:1]
        pool = self.pool(targets) or whole
        if not pool:
            wanted = [*([] if self.always is None else [self.always]), *(f"{source}..." for source in self.sources)]
            got = sorted({target.caption.source for target in targets})
            raise BadImage(f"no caption by {' or '.join(wanted)}, but by {', '.join(got)} (data.sub_captions)")
        chosen, turn = whole, 0
        while len(chosen) < self.count:
            draws = uniform(stable_hash(*key, "sub_captions", turn) + np.arange(len(pool)), 0)
            chosen = [*chosen, *[pool[place] for place in draws.argsort().tolist()]]
            turn += 1
        return chosen[: self.count]
