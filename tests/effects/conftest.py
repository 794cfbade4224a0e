"""Models that effect tests start from, and runs that several of them judge, made once for all workers of a session.

tests/tiers.py has items that start from one such run executed by one xdist worker.
"""

import functools
import hashlib
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from filelock import FileLock

from benchmarks.rl.effects import Study
from benchmarks.rl.look_alike_bags import Comparison
from benchmarks.scene_pairs import at_random, collecting
from benchmarks.starts import STARTS, folder_of
from capkit.cli import main

ROOT = Path(__file__).parents[2]
ONE_CORE = ["trainer=cpu", "trainer.devices=1"]


@functools.cache
def code() -> str:
    """A hash of every source and config file: what a run computes depends on these and on its words."""
    files = sorted([*(ROOT / "capkit").rglob("*.py"), *(ROOT / "configs").rglob("*.yaml")])
    return hashlib.sha256(
        b"\0".join(str(file.relative_to(ROOT)).encode() + file.read_bytes() for file in files)
    ).hexdigest()


def made_once(shared: Path, name: str, words: list[str], made: str = "report.html") -> Path:
    """The run folder of a command, from the first worker that asks; the others wait for it.

    It lies in `shared` under a name made of `words` and of the code. `made` is the file that the command writes last.
    Commands run in one folder: a split of SceneWorld is drawn once.
    """
    key = hashlib.sha256("\0".join([*words, code()]).encode()).hexdigest()[:12]
    folder = shared / f"{name}-{key}"
    with FileLock(f"{folder}.lock"):
        if not (folder / "run" / made).exists():
            folder.mkdir(exist_ok=True)
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(shared)
                assert main([*words, f"run_dir={folder / 'run'}"]) == 0
    return folder / "run"


@pytest.fixture(scope="session")
def shared_runs(pytestconfig, tmp_path_factory) -> Path:
    """The folder of runs that several tests, workers or sessions use."""
    if kept := pytestconfig.getoption("shared_runs"):
        shared = Path(kept).resolve()
        shared.mkdir(parents=True, exist_ok=True)
        return shared
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def run_once(shared_runs) -> Callable[..., Path]:
    return partial(made_once, shared_runs)


@pytest.fixture(scope="session")
def study(shared_runs) -> Study:
    """Runs as `python -m benchmarks.rl.self_retrieval_effects` makes them."""
    return Study(shared_runs / f"study-{code()[:12]}")


@pytest.fixture(scope="session")
def start(run_once) -> Callable[[str, int], Path]:
    """The folder of a model that tests start from, by its name in benchmarks/starts.py and its seed.

    Seed 0, and whatever else is in the tree, is taken from there. Further seeds (`--studies`) are trained by the same
    words.
    """

    def of(name: str, seed: int) -> Path:
        if seed in STARTS[name].seeds:
            return folder_of(name, seed)
        return run_once(f"{name}-{seed}", [*STARTS[name].words_of(seed), *ONE_CORE])

    return of


@pytest.fixture(scope="module")
def pairs(start, seed, tmp_path_factory) -> Path:
    """A folder of 200 pairs of what the hallucinating start says.

    judged.jsonl has them as they are, random.jsonl with sides drawn at random.
    """
    folder = tmp_path_factory.mktemp("pairs")
    judged = folder / "judged.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(collecting(start("hallucinating", seed), seed, judged)) == 0
    rows = [json.loads(line) for line in judged.read_text().splitlines()]
    (folder / "random.jsonl").write_text("".join(json.dumps(row) + "\n" for row in at_random(rows, seed)))
    return folder


@pytest.fixture(scope="session")
def clip_runs(run_once) -> Callable[..., Path]:
    """The run folder of experiment=clip_pretrain_sceneworld with a seed, and other words than those that judge it."""
    world = "${data.test.options}"
    judged = [
        "evaluator=[retrieval,zero_shot_scenes,zero_shot_holdout,sts_scenes,composed_scenes]",
        f"evaluator.sts_scenes.files.facts.options={world}",
        f"evaluator.composed_scenes.source.options={world}",
        "evaluator.composed_scenes.source.size=32",
    ]

    def run(seed: int, *words: str) -> Path:
        own = words or judged
        return run_once(f"clip {seed}", ["experiment=clip_pretrain_sceneworld", *ONE_CORE, f"seed={seed}", *own])

    return run


@pytest.fixture(scope="session")
def sceneworld_clip(clip_runs, seed) -> Path:
    return clip_runs(seed)


@pytest.fixture(scope="session")
def judges(start) -> list[str]:
    """The words that name two judges of full captions: one to reward, another to evaluate."""
    return [f"reward_encoder={start('judge', 0)}", f"eval_encoder={start('judge', 1)}"]


@pytest.fixture(scope="session")
def look_alike_bags(run_once, start, seed) -> Comparison:
    """Bags of look-alikes against random batches. The bags are mined and listed here."""
    comparison = Comparison(lambda name, words, last: run_once(name, [*words, *ONE_CORE], last), start, seed)
    assert comparison.train_bags and comparison.test_bags
    return comparison
