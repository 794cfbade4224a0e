"""Scenes a second on one core: `python -m benchmarks.scenes`.

One scene is what training needs of it: drawn for the train split, rendered at 64 x 64, five human references, the facts
they state, all facts of the scene. Medians over several runs of process time, so that other work on the machine does
not count. No torch is imported.
"""

import statistics
import time
from collections.abc import Callable

from capkit.sceneworld.language.captions import caption, reference_captions, references
from capkit.sceneworld.language.facts import scene_facts
from capkit.sceneworld.language.oracles import score_caption
from capkit.sceneworld.language.parser import parse
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.render import render
from capkit.sceneworld.world.scene import make_scene

NUM_SCENES = 1000
NUM_RUNS = 7


def seconds_per_item(work: Callable[[int], object], count: int = NUM_SCENES, runs: int = NUM_RUNS) -> float:
    """Median process seconds of one call, after a warm-up run."""
    for index in range(count // 4):
        work(index)
    times = []
    for run in range(runs):
        start = time.process_time()
        for index in range(run * count, (run + 1) * count):
            work(index)
        times.append((time.process_time() - start) / count)
    return statistics.median(times)


def main() -> None:
    options = WorldOptions()
    scenes = [make_scene(options, 0, "train", index) for index in range(NUM_RUNS * NUM_SCENES)]
    texts = [references(scene)[index % 5] for index, scene in enumerate(scenes)]
    stated = [caption(scene, "human").facts for scene in scenes]

    def everything(index: int) -> object:
        scene = make_scene(options, 1, "train", index)
        return render(scene), reference_captions(scene), scene_facts(scene)

    parts: dict[str, Callable[[int], object]] = {
        "scene + picture + 5 references + facts": everything,
        "  make_scene (train)": lambda i: make_scene(options, 1, "train", i),
        "  make_scene (test)": lambda i: make_scene(options, 1, "test", i),
        "  render 64 x 64": lambda i: render(scenes[i]),
        "  render 224 x 224": lambda i: render(scenes[i], 224),
        "  5 human references with facts": lambda i: reference_captions(scenes[i]),
        "  5 dense references with facts": lambda i: reference_captions(scenes[i], "dense"),
        "  all facts": lambda i: scene_facts(scenes[i]),
        "parse one human caption": lambda i: parse(texts[i]),
        "score one human caption": lambda i: score_caption(scenes[i], texts[i], stated[i]),
    }
    for name, work in parts.items():
        seconds = seconds_per_item(work)
        print(f"{name:42s} {1 / seconds:10,.0f} / s  {seconds * 1e6:8.1f} us")


if __name__ == "__main__":
    main()
