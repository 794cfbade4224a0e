"""Bags of look-alikes against random batches on SceneWorld: every command of the comparison.

Shared by `python -m benchmarks.rl.self_retrieval_effects --only bags` and by the effect test. One encoder mines the
training bags and rewards; a second one, of another seed, mines the test bags and judges. What is named is read from the
scenes. In this world a caption that names all objects and their colours fits few random pictures, but every picture of
the same objects: only bags of look-alikes ask for the background.
"""

import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

Run = Callable[[str, list[str], str], Path]
"""(name, words of a command, file that it writes last) to the run folder; made once."""
Model = Callable[[str, int], Path]
"""(name in benchmarks/starts.py, seed) to the model's folder."""

WORLD = ["data=sceneworld_backgrounds"]
WORLD += [f"data.{split}.source.count={count}" for split, count in (("train", 4000), ("val", 50), ("test", 600))]
# A dual encoder of captions half of which say the background.
ENCODER = ["experiment=judge_sceneworld", *WORLD, "data.train.background=0.5", "max_steps=400", "val_every=400"]
# A captioner that names every object with its colour, and no background.
START = ["experiment=generic_mle_sceneworld", *WORLD, "max_steps=600", "val_every=600"]
# Pictures of the same content in other places are near-duplicates: no caption tells them apart.
MINING = ["by=combined", "num_neighbors=50", "duplicate_threshold=0.95"]
TUNING = ["metric=[facts]", "controls=0", "eval_limit=16"]
RANDOM = ["curriculum=shuffle"]
ARMS = {"bags": [], "random": RANDOM, "random_x4": [*RANDOM, "data.batch_size=64"]}


class Comparison:
    """The runs of one seed: encoders, start, bags, and the arms, of which all but `bags` take random batches."""

    def __init__(self, run: Run, model: Model, seed: int) -> None:
        self.seed = seed
        self._run, self._model = run, model

    def make(self, name: str, words: list[str], made: str = "report.html") -> Path:
        return self._run(f"bags_{name}-{self.seed}", [*words, f"seed={self.seed}"], made)

    @cached_property
    def rewarder(self) -> Path:
        return self._model("bags_encoder", self.seed)

    @cached_property
    def judge(self) -> Path:
        return self._model("bags_encoder", self.seed + 100)

    @cached_property
    def start(self) -> Path:
        return self._model("bags_start", self.seed)

    def bags(self, split: str, encoder: Path, sizes: str) -> Path:
        """The run folder of lists of hard bags of a split."""
        loaded = f"encoder={{_target_: capkit.checkpoint.loading.load_dual_encoder, ckpt: {encoder}}}"
        mined = self._run(
            f"bags_mined_{split}-{self.seed}",
            ["task=mine", *WORLD, f"split={split}", loaded, *MINING],
            "neighbors/neighbors.json",
        )
        words = ["task=bags", f"neighbors={mined}", f"split={split}", f"sizes={sizes}"]
        return self._run(f"bags_lists_{split}-{self.seed}", words, "bags/bags.json")

    @cached_property
    def train_bags(self) -> Path:
        return self.bags("train", self.rewarder, "[2,4]")

    @cached_property
    def test_bags(self) -> Path:
        return self.bags("test", self.judge, "[5]")

    def tuned(self, arm: str) -> Path:
        words = ["experiment=ndlb_bagcurri_sceneworld", *WORLD, *TUNING, f"init_from={self.start}"]
        words += [f"reward_encoder={self.rewarder}", f"eval_encoder={self.judge}", *ARMS[arm]]
        if arm == "bags":
            words.append(f"curriculum.folder={self.train_bags}")
        return self.make(arm, words)

    def numbers(self, arm: str) -> dict[str, float]:
        """Of the test pictures: in bags of five look-alikes, among 19 random ones, and read from the scenes."""
        run = self.start if arm == "start" else self.tuned(arm)
        words = ["task=evaluate", f"ckpt={run}", *WORLD, "data.batch_size=100", "decoding.max_length=16"]
        words += ["metric=[truematch_trained,rd20_trained,facts,fact_kinds,diversity]"]
        words += ["metric.fact_kinds.kinds=[background]", f"metric.truematch.encoder.ckpt={self.judge}"]
        words += [f"metric.rd20.encoder.ckpt={self.judge}"]
        words += [f"metric.truematch.files=[{self.test_bags / 'bags' / 'hard-5.json'}]"]
        found = json.loads((self.make(f"{arm}_judged", words) / "metrics.json").read_text())
        return {name.removeprefix("test/"): value for name, value in found.items() if name.startswith("test/")}
