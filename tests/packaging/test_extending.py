"""The blocks of docs/extending.md: files as they stand there, and commands, on a handful of scenes."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"`([\w/]+\.(?:py|yaml))`:\n\n```(?:python|yaml)\n(.*?)```", PAGE, flags=re.DOTALL))
REWARD, MODEL, CURRICULUM = (block.strip() for block in re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL))
TINY = [
    "debug=tiny", "data.train.count=16", "data.val.count=6", "data.test.count=6", "max_steps=5", "val_every=5",
    "decoding.max_length=5", "trainer=cpu", "trainer.devices=1", "callback.recorder.every_steps=1",
]  # fmt: skip


def test_every_part_is_short():
    lengths = {name: len([line for line in text.splitlines() if line.strip()]) for name, text in FILES.items()}
    assert sorted(lengths) == [
        "my_configs/curriculum/easy_first.yaml", "my_configs/model/patches.yaml", "my_curriculum.py", "my_model.py",
        "my_reward.py",
    ]  # fmt: skip
    assert max(lengths.values()) <= 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("extending")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def follow(folder, line, *more):
    """Run a command of the page as it stands there, with more words behind it."""
    words = [sys.executable, str(ROOT / "train.py"), *shlex.split(line)[1:], *TINY, *more]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    run = re.search(r"run_dir=(\S+)", line)[1]
    return [json.loads(row) for row in (folder / run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.nightly
def test_a_model_of_ones_own_trains(folder):
    losses = [row["train/loss"] for row in follow(folder, MODEL, "optimizer.lr=1e-2") if "train/loss" in row]
    assert len(losses) == 5 and losses[-1] < losses[0]


@pytest.mark.nightly
def test_a_curriculum_of_ones_own_forms_the_batches(folder):
    assert [row for row in follow(folder, CURRICULUM) if "train/loss" in row]
    sys.path.insert(0, str(folder))
    try:
        from my_curriculum import EasyFirst
    finally:
        sys.path.remove(str(folder))
    curriculum = EasyFirst(batch_size=4, seed=0, rank=0, world_size=1, num_examples=8)
    assert sorted(index for batch in curriculum for index in batch) == [0, 0, 1, 1, 2, 2, 3, 3]
    curriculum.set_epoch(1)
    assert sorted(index for batch in curriculum for index in batch) == list(range(8))


@pytest.mark.nightly
def test_a_reward_of_ones_own_is_logged(folder):
    follow(folder, "capkit run_dir=runs/first")
    rows = follow(folder, REWARD, "objective.num_samples=2")
    assert [row for row in rows if any("custom" in name for name in row)]
