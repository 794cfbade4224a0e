"""The models that effect tests start from: trained, exported and described by one command.

    python -m benchmarks.starts [--only generic judge] [--out tests/effects/starts]

What an effect test shows is what a method does to a captioner, or with an encoder, that is there. These few are kept in
the tree as exported folders with weights in float16, so that a test does not train them first. `starts.json` beside
them holds, for each, the command that made it, the day, and the numbers of its run on held-out pictures.
tests/effects/test_starts.py holds the files to those numbers, and at night makes them anew. All together take
fourteen minutes of one core.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.rl.look_alike_bags import ENCODER, START

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tests" / "effects" / "starts"
ABOUT = "starts.json"
ONE_CORE = ["trainer=cpu", "trainer.devices=1"]

CAPTIONS = ("test/fact_recall", "test/fact_precision", "test/color_recall", "test/cider")
RETRIEVAL = ("test/retrieval_fold100_t2i_r1", "test/retrieval_fold100_i2t_r1")
GRAMMAR = ("test/grammar_rejected", "test/grammar_rejected_balanced", "test/grammar_shuffle_balanced")


@dataclass(frozen=True)
class Start:
    """The words of a command that trains a model, and the numbers of that run that say what the model can do.

    `seeds` are those in the tree.
    """

    words: Sequence[str]
    numbers: Sequence[str]
    seeds: Sequence[int] = (0,)

    def words_of(self, seed: int) -> list[str]:
        return [*self.words, f"seed={seed}"]


def _captioner(experiment: str, steps: int) -> Start:
    words = [f"experiment={experiment}", f"max_steps={steps}", f"val_every={steps}", "controls=0", "eval_limit=200"]
    return Start(words, CAPTIONS)


def _habit(*words: str) -> Start:
    command = ["experiment=habit_mle_sceneworld", "val_every=2400", "controls=0", "eval_limit=200", *words]
    return Start(command, ("test/fact_recall", "test/fact_precision", "test/cider"))


def _judge(steps: int, seeds: Sequence[int] = (0,)) -> Start:
    words = ["experiment=judge_sceneworld", f"max_steps={steps}", f"val_every={steps}", "controls=0"]
    return Start(words, RETRIEVAL, seeds)


STARTS = {
    # Captions that leave most colours out; the same after half of the steps, when it hardly writes grammar.
    "generic": _captioner("generic_mle_sceneworld", 1000),
    "weak": _captioner("generic_mle_sceneworld", 500),
    # Captions that name an object which is not there, and leave half of the colours out.
    "hallucinating": Start(
        _captioner("hallucinating_mle_sceneworld", 1000).words, (*CAPTIONS, "test/scene_chair_i_color")
    ),
    # Captions that name a cross wherever there is a circle, by captioners that have missed pictures, or none.
    "habit": _habit(),
    "habit_whole": _habit("objective.image_dropout=0"),
    # Dual encoders of full captions: to reward, to evaluate; one of fewer steps, as a reward that can be exploited.
    "judge": _judge(600, (0, 1)),
    "weak_judge": _judge(400),
    # A dual encoder of the web's captions, three of five of them flawed: what a rater of rankings stands on.
    "web_judge": Start(
        [
            "experiment=judge_sceneworld",
            "data=sceneworld_web",
            "~data.train.dropped",
            "max_steps=400",
            "val_every=400",
            "controls=0",
        ],
        RETRIEVAL,
    ),
    # A grammar head that finds edited captions of the small world.
    "grammar": Start(
        ["experiment=judge_grammar_sceneworld", "controls=0", "val_every=500", "evaluator.grammar.num_captions=100"],
        GRAMMAR,
    ),
    # A captioner that names no background; encoders that read it: to mine and reward, to judge.
    "bags_start": Start([*START, "controls=0", "eval_limit=200"], CAPTIONS),
    "bags_encoder": Start([*ENCODER, "controls=0"], RETRIEVAL, (0, 100)),
    # A dual encoder of memes as pairs of picture and captions.
    "camu_encoder": Start(
        ["experiment=camu_encoder_sceneworld", "val_every=200", "evaluator=[retrieval]"], ("test/retrieval_t2i_r10",)
    ),
}
COMMITTED = [(name, seed) for name, start in STARTS.items() for seed in start.seeds]


def folder_of(name: str, seed: int, folder: Path = FOLDER) -> Path:
    return folder / f"{name}-{seed}"


def recorded(folder: Path = FOLDER) -> dict[str, dict[str, object]]:
    """What starts.json says of each folder."""
    return json.loads((folder / ABOUT).read_text(encoding="utf-8")) if (folder / ABOUT).exists() else {}


def train(name: str, seed: int, cwd: Path) -> tuple[Path, dict[str, float]]:
    """Train a start in a new folder of `cwd`; returns it, and the numbers that describe the model."""
    start, run = STARTS[name], Path(f"{name}-{seed}")
    _capkit([*start.words_of(seed), *ONE_CORE, f"run_dir={run}"], cwd)
    found = json.loads((cwd / run / "metrics.json").read_text(encoding="utf-8"))
    return cwd / run, {key: round(found[key], 4) for key in start.numbers}


def make(name: str, seed: int, out: Path, cwd: Path) -> None:
    """Train a start in `cwd`, and export it to `out`, where it replaces the one of that name."""
    run, numbers = train(name, seed, cwd)
    target = folder_of(name, seed, out)
    if target.exists():
        shutil.rmtree(target)
    _capkit(["export", f"ckpt={run.relative_to(cwd)}", f"out={target.resolve()}", "dtype=float16"], cwd)
    command = f"python train.py {' '.join(STARTS[name].words_of(seed))}"
    about = {"command": command, "made": time.strftime("%Y-%m-%d"), "numbers": numbers}
    described = {**recorded(out), target.name: about}
    (out / ABOUT).write_text(json.dumps(dict(sorted(described.items())), indent=1) + "\n", encoding="utf-8")


def _capkit(words: Sequence[str], cwd: Path) -> None:
    subprocess.run([sys.executable, str(ROOT / "train.py"), *words], cwd=cwd, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(STARTS), default=list(STARTS))
    parser.add_argument("--out", type=Path, default=FOLDER)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for name, seed in COMMITTED:
            if name in given.only:
                make(name, seed, given.out, Path(scratch))


if __name__ == "__main__":
    main()
