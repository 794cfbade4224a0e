"""The README's commands, run as written. The first run doubles as the effect test of likelihood training."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from capkit.scenes.language import references
from capkit.scenes.render import render
from capkit.scenes.world import WorldOptions, make_scene

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = [block.replace("\\\n", " ").strip() for block in re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)]
RUN, TEST, AFTERWARDS, OWN_IMAGES, REWARDS, TWO, ENCODER = BLOCKS
INSTALL = "python3 -m venv .venv && .venv/bin/pip install -e "


def shell(command: str, folder: Path) -> str:
    """Runs a block with `capkit` and `python` being this environment's; returns what it printed."""
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_setup_lines_are_what_ci_does():
    assert RUN.startswith(f"{INSTALL}. && .venv/bin/python train.py")
    tests = "pytest -n 2 --dist loadfile"
    assert f"{INSTALL}'.[dev]' && .venv/bin/{tests}" == TEST
    ci = (ROOT / ".ci" / "run").read_text()
    assert "-e '.[dev]'" in ci and ci.rstrip().endswith(tests.replace("pytest", '"$venv/bin/pytest"'))


def test_every_file_that_the_readme_names_exists():
    named = re.findall(r"`(docs/[\w./-]+|CITATION\.cff)`|\]\((docs/[\w.]+)\)", README)
    assert named and all((ROOT / (a or b)).exists() for a, b in named)


def test_every_script_that_the_readme_starts_exists():
    started = re.findall(r"(?:launch|docker)/[\w.]+", README)
    assert len(started) >= 3 and all((ROOT / name).exists() for name in started)


def test_the_table_has_a_row_for_each_of_the_41_systems():
    assert [int(n) for n in re.findall(r"^\| (\d+) \|", README, flags=re.MULTILINE)] == list(range(1, 42))


def test_the_python_block_gives_the_value_it_should():
    block = re.search(r"```python\n(.*?)```", README, flags=re.DOTALL)[1]
    *statements, last = block.strip().splitlines()
    names: dict[str, object] = {}
    exec("\n".join(statements), names)
    assert 0 < eval(last, names) < 10


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    """A folder in which the README's first run was made."""
    folder = tmp_path_factory.mktemp("readme")
    shell(RUN.split(" && ")[2].replace(".venv/bin/python train.py", f"python {ROOT / 'train.py'}"), folder)
    return folder


@pytest.fixture(scope="module")
def numbers(first_run):
    return json.loads((first_run / "runs/first/metrics.json").read_text())


@pytest.mark.slow
@pytest.mark.effect
def test_the_first_run_writes_captions_whose_facts_hold(numbers):
    assert numbers["test/fact_f1"] >= 0.90
    assert numbers["test/shuffled/fact_f1"] < 0.90 and numbers["test/untrained/fact_f1"] < 0.90


@pytest.mark.slow
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


@pytest.mark.slow
def test_evaluating_captioning_and_scoring_work_as_written(first_run, numbers, photos):
    printed = shell(AFTERWARDS, first_run)
    evaluated = json.loads((first_run / "runs/first-evaluated/metrics.json").read_text())
    assert evaluated["test/cider"] == pytest.approx(numbers["test/cider"], abs=1e-9)
    captions = [json.loads(line) for line in (first_run / "captions.jsonl").read_text().splitlines()]
    assert len(captions) == 40 and all(row["caption"] for row in captions)
    scores = json.loads((first_run / "scores.json").read_text())
    assert scores["cider"] == pytest.approx(numbers["test/cider"], abs=1e-9)
    assert "dry run: nothing was trained" in printed


@pytest.mark.slow
def test_training_on_a_folder_of_images_works_as_written(first_run, photos):
    shell(OWN_IMAGES, first_run)
    assert len((first_run / "mine.jsonl").read_text().splitlines()) == 40
    assert json.loads((first_run / "runs/mine/metrics.json").read_text())["train/steps"] == 20


@pytest.mark.slow
def test_fine_tuning_by_rewards_starts_from_the_first_run_as_written(first_run, numbers):
    shell(REWARDS, first_run)
    rewarded = json.loads((first_run / "runs/rewarded/metrics.json").read_text())
    assert rewarded["train/steps"] == 20
    assert rewarded["test/initial/cider"] == pytest.approx(numbers["test/cider"], abs=1e-9)


@pytest.mark.slow
def test_two_processes_under_zero_work_as_written(first_run):
    shell(TWO, first_run)
    assert json.loads((first_run / "runs/two/metrics.json").read_text())["train/steps"] == 4


@pytest.mark.slow
def test_training_evaluating_and_exporting_a_dual_encoder_work_as_written(tmp_path):
    shell(ENCODER, tmp_path)
    ours, again = (
        json.loads((tmp_path / f"runs/{name}/metrics.json").read_text()) for name in ("clip", "clip-evaluated")
    )
    assert ours["test/retrieval_fold100_t2i_r1"] > 0.6
    assert again["test/zero_shot_holdout_top1"] == ours["test/zero_shot_holdout_top1"]
    assert (tmp_path / "clip/text_tower/model.safetensors").exists()
