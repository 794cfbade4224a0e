"""Similarity of two captions: the number of shared facts over the number of all facts.

Pairs of captions with this score form a semantic textual similarity (STS) data set: score, sentence, sentence.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from capkit.sceneworld.language.captions import caption
from capkit.sceneworld.language.oracles import count_matches
from capkit.sceneworld.language.parser import parse
from capkit.sceneworld.world.bags import look_alikes
from capkit.sceneworld.world.scene import Scene, WorldOptions, draw_scene
from capkit.sceneworld.world.stream import Stream
from capkit.utils.files import write_atomically
from capkit.utils.ranges import PositiveInt, Seed, check_ranges

_NUM_VARIANTS = 5
_MAX_EDITS = 3


@dataclass(frozen=True)
class CaptionPair:
    """Two captions and their `fact_similarity`."""

    first: str
    second: str
    similarity: float


def fact_similarity(first: str, second: str) -> float:
    """Jaccard similarity of the facts of two captions, in [0, 1]; 1 if neither states any.

    Objects are matched one-to-one so that most facts agree: the colour of a circle can agree with the colour of a
    circle, but not with that of a square.
    """
    one, other = parse(first), parse(second)
    facts = frozenset(other.facts)
    shared, _ = count_matches(one, facts, frozenset(), len(other.mentions))
    either = len(one.facts) + len(facts) - shared
    return shared / either if either else 1.0


def caption_pairs(
    split: str, count: int, seed: int = 0, options: WorldOptions | None = None, style: str = "human"
) -> Iterator[CaptionPair]:
    """Caption pairs of graded similarity: paraphrases, scenes that differ in 1, 2 or 3 attributes, unrelated scenes.

    Each of the five kinds makes up a fifth, in random order. All scenes belong to `split`. The captions of a pair use
    different variants of the grammar.
    """
    options = options or WorldOptions()
    for index in range(count):
        stream = Stream("caption pair", seed, split, index)
        first = draw_scene(options, stream, split)
        num_edits = stream.below(_MAX_EDITS + 2)
        if num_edits > _MAX_EDITS:
            second = draw_scene(options, stream, split)
        else:
            second = _edited(first, num_edits, stream, options)
        variant = stream.below(_NUM_VARIANTS)
        other = (variant + 1 + stream.below(_NUM_VARIANTS - 1)) % _NUM_VARIANTS
        texts = caption(first, style, variant).text, caption(second, style, other).text
        yield CaptionPair(*texts, fact_similarity(*texts))


def _edited(scene: Scene, num_edits: int, stream: Stream, options: WorldOptions) -> Scene:
    for _ in range(num_edits):
        scene = look_alikes(scene, 2, seed=stream.below(2**32), options=options)[1]
    return scene


@check_ranges
def pair_file(
    split: str,
    count: PositiveInt,
    seed: Seed = 0,
    options: WorldOptions | None = None,
    style: str = "human",
    cache_dir: str = "data/scenes",
) -> str:
    """Path of a file of `caption_pairs` (score, tab, sentence, tab, sentence), written at first use."""
    folder = Path(cache_dir)
    name = Stream("pair file", split, count, seed, options or WorldOptions(), style).below(2**32)
    path = folder / f"sts-{split}-{seed}-{count}-{name:08x}.tsv"
    if not path.exists():
        pairs = caption_pairs(split, count, seed, options, style)
        lines = [f"{pair.similarity:.6f}\t{pair.first}\t{pair.second}\n" for pair in pairs]
        write_atomically(path, "".join(lines))
    return str(path)
