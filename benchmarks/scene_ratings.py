"""Rankings, or grades from 1 to 6, of flawed captions of SceneWorld, as `task=fit_rater` reads them.

    python -m benchmarks.scene_ratings --out rankings.jsonl
    python -m benchmarks.scene_ratings --grades --count 3000 --out grades.jsonl
    python -m benchmarks.scene_ratings --split test --count 200 --out test.jsonl

The pictures are those of data=sceneworld_web. A caption is as good as the F1 of its facts and what a complete caption
states. A ranking has four captions of a picture, fewer where two are alike, and ties where they are equally good.
Grades are 1 + 5 F1, rounded, of one caption a picture; one in five is a grade too high or too low.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from capkit.sceneworld.language.captions import stated_facts
from capkit.sceneworld.language.oracles import score_caption
from capkit.sceneworld.sources.flawed_captions import FlawedCaptions
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.scene import Scene
from capkit.sceneworld.world.stream import Stream
from capkit.utils.files import write_atomically

OPTIONS = WorldOptions(
    ["circle", "square", "triangle", "cross"],
    sizes=["large"],
    backgrounds=["white", "black"],
    min_objects=2,
    max_objects=2,
    inside_probability=0.0,
)
NUM_CAPTIONS, MISGRADED = 4, 0.2


def captioned(split: str, count: int, seed: int, num_captions: int) -> FlawedCaptions:
    scenes = SceneWorld(split, count, 32, seed=seed, style="short", options=OPTIONS)
    return FlawedCaptions(scenes, OPTIONS, num_captions=num_captions, seed=seed)


def quality(scene: Scene, text: str) -> float:
    """F1 of a caption's facts and those of a complete caption of style short, 0 to 1."""
    return score_caption(scene, text, stated_facts(scene, "short")).f1


def rankings(split: str, count: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Of `count` pictures, except those whose captions are all alike."""
    source = captioned(split, count, seed, NUM_CAPTIONS)
    for index in range(count):
        record = source.record(index)
        scene, texts = Scene.from_dict(record.metadata["scene"]), list(dict.fromkeys(c.text for c in record.captions))
        worth = [quality(scene, text) for text in texts]
        tied = [[i for i, own in enumerate(worth) if own == level] for level in sorted(set(worth), reverse=True)]
        if len(tied) > 1:
            ranking = [places if len(places) > 1 else places[0] for places in tied]
            yield {"image": record.key, "captions": texts, "ranking": ranking}


def grades(split: str, count: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """One caption of each of `count` pictures with its grade."""
    source = captioned(split, count, seed, 1)
    for index in range(count):
        record = source.record(index)
        text = record.captions[0].text
        stream = Stream("grade", seed, record.key)
        error = stream.choice((-1, 1)) if stream.chance(MISGRADED) else 0
        grade = round(1 + 5 * quality(Scene.from_dict(record.metadata["scene"]), text)) + error
        yield {"image": record.key, "caption": text, "score": min(6, max(1, grade))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--grades", action="store_true", help="grades of single captions, not rankings")
    parser.add_argument("--split", default="train")
    parser.add_argument("--count", type=int, default=500, help="pictures")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rows = (grades if given.grades else rankings)(given.split, given.count, given.seed)
    write_atomically(given.out, "".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
