"""`capkit cross` on two captioners that are in the tree: what it writes, and what it decodes again."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.starts import folder_of
from capkit.cli import main

pytestmark = pytest.mark.integration

RUNS = [folder_of("generic", 0), folder_of("hallucinating", 0)]
WORLD = "sceneworld_generic test.source.count=12 train.source.count=20 val.source.count=5"


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """Two captioners on SceneWorld and on a folder of pictures, whose captions have no facts to be scored by."""
    folder = tmp_path_factory.mktemp("cross")
    captions = ["image,caption,split"]
    for number in range(8):  # the first two to train and validate, without which data is none
        pixels = np.full((32, 32, 3), 30 * number, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        split = ("train", "val")[number] if number < 2 else "test"
        captions += [f"{number}.png,a square and a cross,{split}", f"{number}.png,a shade of gray {number},{split}"]
    (folder / "captions.csv").write_text("\n".join(captions) + "\n")
    runs = []
    for run in RUNS:
        shutil.copytree(run, folder / run.name)
        runs.append(str(folder / run.name))
    photos = f"folder train.images={folder} train.captions={folder}/captions.csv num_workers=0"
    return folder, [
        "cross", f"runs=[{','.join(runs)}]", f"data=[{WORLD}, {photos}]", "metric=[cider,facts,diversity]",
        "trainer=cpu", "trainer.devices=1", f"run_dir={folder / 'matrix'}",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def matrix(words):
    folder, line = words
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(line) == 0
    return folder / "matrix"


def predictions(matrix):
    return {path: path.stat().st_mtime_ns for path in matrix.glob("*/*/predictions/test.json")}


def test_every_cell_has_its_folder_numbers_and_intervals(matrix):
    cells = json.loads((matrix / "cross.json").read_text())["cells"]
    assert [(cell["run"], cell["data"].split()[0]) for cell in cells] == [
        ("generic-0", "sceneworld_generic"), ("generic-0", "folder"),
        ("hallucinating-0", "sceneworld_generic"), ("hallucinating-0", "folder"),
    ]  # fmt: skip
    assert len(predictions(matrix)) == 4
    for cell in cells:
        for name, (low, high) in cell["intervals"].items():
            assert low <= cell["numbers"][name] <= high, name
        assert {"cider", "length"} <= set(cell["intervals"]) and "vocabulary_size" not in cell["intervals"]
        assert "shuffled/cider" in cell["numbers"]
    world, photos = cells[2], cells[3]
    assert world["numbers"]["fact_recall"] > 0.5 and "fact_recall" not in photos["numbers"]
    (folder,) = matrix.glob("hallucinating-0/sceneworld_generic*")
    assert json.loads((folder / "metrics.json").read_text())["test/cider"] == world["numbers"]["cider"]
    assert "–" in (matrix / "cross.html").read_text()


def test_whole_cells_are_read_and_a_killed_one_is_decoded_again(words, matrix, monkeypatch):
    folder, line = words
    monkeypatch.chdir(folder)
    before, told = predictions(matrix), (matrix / "cross.json").read_text()
    killed = next(matrix.glob("generic-0/folder*"))
    (killed / "report.html").unlink()  # written last
    (matrix / "cross.json").unlink()
    assert main(line) == 0
    after = predictions(matrix)
    assert {path for path in before if after[path] != before[path]} == {killed / "predictions" / "test.json"}
    assert (matrix / "cross.json").read_text() == told


def test_a_run_or_data_set_added_later_leaves_the_other_cells(words, matrix, monkeypatch):
    folder, line = words
    monkeypatch.chdir(folder)
    before = predictions(matrix)
    first = [line[0], line[1].split(",")[0] + "]", f"data=[{WORLD.replace('count=12', 'count=4')}, {WORLD}]", *line[3:]]
    assert main(first) == 0
    assert {path: time for path, time in predictions(matrix).items() if path in before} == before
    assert len(json.loads((matrix / "cross.json").read_text())["cells"]) == 2


def test_a_folder_of_other_weights_under_the_same_name_is_refused(words, matrix, monkeypatch, capsys):
    folder, line = words
    monkeypatch.chdir(folder)
    before = predictions(matrix)
    run = Path(folder, "generic-0")
    kept = folder / "kept"
    run.rename(kept)
    shutil.copytree(folder_of("weak", 0), run)
    assert main(line) == 2
    assert "was made by another checkpoint: expected hash" in capsys.readouterr().err
    assert predictions(matrix) == before
    shutil.rmtree(run)
    kept.rename(run)
