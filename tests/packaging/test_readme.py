"""README.md's blocks, run as written and in order, in a fresh copy of the tree and the environment that they make.

The first run doubles as the effect test of likelihood training.
"""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from readme_blocks import BLOCKS, README

from capkit.sceneworld.language.captions import references
from capkit.sceneworld.world.render import render
from capkit.sceneworld.world.scene import WorldOptions, make_scene

ROOT = Path(__file__).parents[2]
RUN, TEST, AFTERWARDS, OWN_IMAGES, REWARDS, CURATE, JUDGED, TWO, ENCODER = BLOCKS


class Reader:
    """Somebody who types one block after the other into one shell, in a copy of the tree without its ignored files.

    No `capkit`, `python` or `pytest` of this environment is on PATH: they come from what the first block makes and
    activates. So that pip need not fetch what lies here already, it sees this environment's packages as installed; CI's
    script follows the first two blocks without that.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._state = folder / "capkit", folder / "environment"
        for name in self._tracked():
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)
        here = Path(sys.executable).parent
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("CAPKIT", "PYTHON")) and name not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
        }
        rest = [folder for folder in os.environ["PATH"].split(os.pathsep) if Path(folder) != here]
        self.environment["PATH"] = os.pathsep.join([f"{sys.base_prefix}/bin", *rest])
        self.environment["PYTHONPATH"] = str(Path(pytest.__file__).parents[1])
        self.environment["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
        self.environment |= {"CC": "/no/compiler", "CXX": "/no/compiler"}  # there need not be one, for ZeRO neither

    def _tracked(self) -> list[str]:
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--deduplicate"]
        listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
        return [name for name in listed if (ROOT / name).exists()]

    def follow(self, block: str) -> str:
        """Runs a block; returns what it printed. What it does to the shell's variables lasts."""
        script = f"{block}\nenv --null > {self._state}"
        command = ["bash", "-euo", "pipefail", "-c", script]
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        pairs = self._state.read_text().rstrip("\0").split("\0")
        self.environment = dict(pair.split("=", 1) for pair in pairs)
        return done.stdout


def test_ci_follows_the_first_two_blocks():
    ci = (ROOT / ".ci" / "run").read_text()
    assert re.findall(r"block (\d)", ci) == ["1", "2"]
    assert [len(block.splitlines()) for block in (RUN, TEST)] == [1, 1]  # one command line each
    assert TEST.split(" && ")[-1] == "python -m pytest -n 2 --dist loadgroup"
    assert 'eval "${line##* && } --tier 1 --budget"' in ci  # the same command, one tier higher


def test_every_install_line_takes_the_versions_that_were_tested():
    commands = [command for block in BLOCKS for command in re.split(r" && |\n", block) if "pip install" in command]
    assert len(commands) == 2
    assert all(command.startswith("pip install -c requirements/constraints.txt ") for command in commands)


def test_every_file_that_the_readme_names_exists():
    named = re.findall(r"`(docs/[\w./-]+|CITATION\.cff)`|\]\((docs/[\w.]+)\)", README)
    assert named and all((ROOT / (a or b)).exists() for a, b in named)


def test_every_script_that_the_readme_starts_exists():
    started = re.findall(r"(?:launch|docker)/[\w.]+", README)
    assert len(started) >= 3 and all((ROOT / name).exists() for name in started)


def test_the_python_block_gives_the_value_it_should():
    block = re.search(r"```python\n(.*?)```", README, flags=re.DOTALL)[1]
    *statements, last = block.strip().splitlines()
    names: dict[str, object] = {}
    exec("\n".join(statements), names)
    assert 0 < eval(last, names) < 10


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """One who has followed the first block."""
    reader = Reader(tmp_path_factory.mktemp("readme"))
    reader.follow(RUN)
    return reader


@pytest.fixture(scope="module")
def first_run(reader):
    return reader.folder


@pytest.fixture(scope="module")
def numbers(first_run):
    return json.loads((first_run / "runs/first/metrics.json").read_text())


@pytest.mark.nightly
def test_the_first_block_leaves_a_shell_in_which_capkit_is_the_one_it_installed(reader):
    assert reader.follow("command -v capkit").strip() == str(reader.folder / ".venv/bin/capkit")
    where = reader.follow("python -c 'import capkit; print(capkit.__file__)'").strip()
    assert where == str(reader.folder / "capkit/__init__.py")


@pytest.mark.nightly
def test_the_tests_block_works_as_written_on_one_file(reader):
    """The rest of what it would run runs around this test."""
    assert " passed" in reader.follow(f"{TEST} tests/optim/test_schedules.py")


@pytest.mark.nightly
@pytest.mark.effect
def test_the_first_run_writes_captions_whose_facts_hold(numbers):
    assert numbers["test/fact_f1"] >= 0.90
    assert numbers["test/shuffled/fact_f1"] < 0.90 and numbers["test/untrained/fact_f1"] < 0.90


@pytest.mark.nightly
@pytest.mark.effect
def test_its_cider_is_far_above_both_controls(numbers):
    threshold = 2.0  # seen: 5.6 trained, 0.4 shuffled, 0.003 untrained
    assert numbers["test/cider"] >= threshold
    assert numbers["test/shuffled/cider"] < threshold and numbers["test/untrained/cider"] < threshold


@pytest.fixture(scope="module")
def photos(first_run):
    """`my_photos` and `my_captions.csv`, as the README's user has them."""
    folder = first_run / "my_photos"
    folder.mkdir()
    with (first_run / "my_captions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "caption"])
        for index in range(40):
            scene = make_scene(WorldOptions(), 7, "test", index)
            Image.fromarray(render(scene, 96)).save(folder / f"photo {index}.png")
            writer.writerows([f"photo {index}.png", text] for text in references(scene)[:2])
    return folder


@pytest.mark.nightly
def test_evaluating_captioning_and_scoring_work_as_written(reader, first_run, numbers, photos):
    printed = reader.follow(AFTERWARDS)
    evaluated = json.loads((first_run / "runs/first-evaluated/metrics.json").read_text())
    assert evaluated["test/cider"] == pytest.approx(numbers["test/cider"], abs=1e-9)
    captions = [json.loads(line) for line in (first_run / "captions.jsonl").read_text().splitlines()]
    assert len(captions) == 40 and all(row["caption"] for row in captions)
    scores = json.loads((first_run / "scores.json").read_text())
    assert scores["cider"] == pytest.approx(numbers["test/cider"], abs=1e-9)
    assert "dry run: nothing was trained" in printed


@pytest.mark.nightly
def test_training_on_a_folder_of_images_works_as_written(reader, first_run, photos):
    reader.follow(OWN_IMAGES)
    inspected = json.loads((first_run / "runs/inspected/inspect.json").read_text())
    assert sum(split["images"] for split in inspected["splits"].values()) == 40
    assert len((first_run / "mine.jsonl").read_text().splitlines()) == 40
    assert json.loads((first_run / "runs/mine/metrics.json").read_text())["train/steps"] == 20


@pytest.mark.nightly
def test_fine_tuning_by_rewards_starts_from_the_first_run_as_written(reader, first_run, numbers):
    reader.follow(REWARDS)
    rewarded = json.loads((first_run / "runs/rewarded/metrics.json").read_text())
    assert rewarded["train/steps"] == 20
    assert rewarded["test/initial/cider"] == pytest.approx(numbers["test/cider"], abs=1e-9)
    compared = json.loads((first_run / "runs/compared/compare.json").read_text())
    assert compared["numbers"]["first"]["cider"] == pytest.approx(numbers["test/cider"], abs=1e-9)
    assert "low" in compared["differences"]["rewarded"]["cider"]


@pytest.mark.nightly
def test_python_works_as_written(reader, first_run, photos):
    shutil.copy(photos / "photo 0.png", first_run / "photo.jpg")
    block = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)[-1]
    printed = reader.follow(f"python - <<'BLOCK'\n{block}print(run.numbers['train/steps'])\nBLOCK")
    assert printed.splitlines()[-1].startswith("20")


@pytest.mark.nightly
def test_captions_are_merged_as_written(reader, first_run):
    reader.follow(CURATE)
    merged = [json.loads(line) for line in (first_run / "data/blended/train.jsonl").read_text().splitlines()]
    failed = (first_run / "data/blended/train.failures.jsonl").read_text().splitlines()
    assert len(merged) + len(failed) == 40 and len(merged) > 30
    assert all(len(record["captions"]) == 1 for record in merged)


@pytest.mark.nightly
def test_questions_and_battles_work_as_written(reader, first_run):
    reader.follow(JUDGED)
    asked, fought = (
        json.loads((first_run / f"runs/first-{name}/metrics.json").read_text()) for name in ("asked", "battles")
    )
    assert asked["test/caption_qa_failed"] == 0 and asked["test/caption_qa"] > 0.4  # empty captions: .354
    assert fought["test/arena_asked"] == 200 and fought["test/arena/untrained"] > 90
    assert (first_run / "runs/first-battles/predictions/test_judged/judged.html").exists()


@pytest.mark.nightly
def test_two_processes_under_zero_work_as_written(reader, first_run):
    reader.follow(TWO)
    assert json.loads((first_run / "runs/two/metrics.json").read_text())["train/steps"] == 4


@pytest.mark.nightly
def test_training_evaluating_and_exporting_a_dual_encoder_work_as_written(reader, first_run):
    reader.follow(ENCODER)
    ours, again = (
        json.loads((first_run / f"runs/{name}/metrics.json").read_text()) for name in ("clip", "clip-evaluated")
    )
    assert ours["test/retrieval_fold100_t2i_r1"] > 0.6
    assert again["test/zero_shot_holdout_top1"] == ours["test/zero_shot_holdout_top1"]
    assert (first_run / "clip/text_tower/model.safetensors").exists()
