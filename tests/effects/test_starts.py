"""The models in tests/effects/starts can do what the runs could that made them (benchmarks/starts.py).

They are read by the ways that every `ckpt=` takes. A model that is read wrongly, by parameters or words of other names,
falls short of the numbers in starts.json: the control is an encoder whose projections are those of another seed.
"""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.starts import COMMITTED, folder_of, make, recorded
from capkit.cli import main

pytestmark = pytest.mark.effect

ROUNDING, ANEW = 0.02, 0.15  # weights in float16; another version of torch, another processor


def numbers_of(folder: Path, expected: dict[str, float], run: Path) -> dict[str, float]:
    """Of an exported model on the held-out pictures of its own run."""
    task = "evaluate" if "test/cider" in expected else "evaluate_encoder"
    words = [f"task={task}", f"ckpt={folder}", "trainer=cpu", "trainer.devices=1", f"run_dir={run}"]
    assert main([*words, *(["eval_limit=200"] if task == "evaluate" else [])]) == 0
    found = json.loads((run / "metrics.json").read_text())
    return {name: found[name] for name in expected}


@pytest.mark.parametrize(("name", "made_with"), COMMITTED)
def test_a_start_in_the_tree_can_do_what_its_run_could(name, made_with, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = folder_of(name, made_with)
    expected = recorded()[folder.name]["numbers"]
    assert numbers_of(folder, expected, tmp_path / "run") == pytest.approx(expected, abs=ROUNDING, rel=ROUNDING)


def test_an_encoder_with_the_projections_of_another_cannot(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mixed = shutil.copytree(folder_of("judge", 0), tmp_path / "mixed")
    shutil.copy(folder_of("judge", 1) / "projections.safetensors", mixed)
    expected = recorded()["judge-0"]["numbers"]
    assert numbers_of(mixed, expected, tmp_path / "run") != pytest.approx(expected, abs=ANEW, rel=ANEW)


@pytest.mark.nightly
@pytest.mark.parametrize(("name", "made_with"), COMMITTED)
def test_a_start_that_is_made_anew_can_do_the_same(name, made_with, tmp_path):
    """So the command that stands beside each still makes it."""
    make(name, made_with, tmp_path / "starts", tmp_path)
    expected, found = (recorded(*folder)[f"{name}-{made_with}"]["numbers"] for folder in ((), (tmp_path / "starts",)))
    assert found == pytest.approx(expected, abs=ANEW, rel=ANEW)
