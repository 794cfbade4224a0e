import json

import numpy as np
import pytest

from capkit.curation.mining.neighbors import Neighbors, write_neighbors
from capkit.curation.mining.search import Found
from capkit.errors import UsageError
from capkit.scorers.neighbors import read_neighbors

KEYS = ["b/1.jpg", 'quo"te', "ünï", "4"]
ABOUT = {"split": "train", "num_neighbors": 2, "duplicate_threshold": 0.9}


def chunk(neighbors, similarities, duplicates, counts):
    return Found(
        np.array(neighbors, np.int32), np.array(similarities, np.float32), np.array(duplicates, np.int32),
        np.array(counts),
    )  # fmt: skip


CHUNKS = [
    chunk([[2, 1], [3, -1]], [[0.75, 0.5], [0.25, np.nan]], [[-1, -1], [2, -1]], [0, 1]),
    chunk([[0, 3], [2, 0]], [[0.75, 0.125], [0.125, 0]], [[1, -1], [-1, -1]], [1, 0]),
]


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "neighbors"
    path.mkdir()
    np.save(path / "vectors.npy", np.eye(4, dtype=np.float32))
    write_neighbors(path, KEYS, CHUNKS, ABOUT)
    return path


def test_rows_are_as_the_page_says(folder):
    rows = [json.loads(line) for line in (folder / "neighbors.jsonl").read_text().splitlines()]
    assert rows[1] == {
        "key": 'quo"te', "neighbors": ["4"], "similarities": [0.25], "duplicates": ["ünï"], "num_duplicates": 1,
    }  # fmt: skip
    numbers = json.loads((folder / "neighbors.json").read_text())["numbers"]
    # nearest: (.75 + .25 + .75 + .125) / 4; last: (.5 + .125 + 0) / 3 images that have two
    assert numbers["nearest_similarity"] == pytest.approx(0.46875)
    assert numbers["last_similarity"] == pytest.approx(0.625 / 3)
    assert (numbers["images"], numbers["images_with_all_neighbors"], numbers["share_with_duplicates"]) == (4, 3, 0.5)


@pytest.mark.parametrize("of", ["folder", "run", "file"])
def test_what_was_written_is_read_by_any_of_its_paths(folder, of):
    path = {"folder": folder, "run": folder.parent, "file": folder / "neighbors.jsonl"}[of]
    mined = Neighbors(path)
    assert mined.keys == KEYS and mined.about["split"] == "train"
    assert mined.rows.tolist() == [[2, 1], [3, -1], [0, 3], [2, 0]]
    assert (mined.vectors == np.eye(4)).all()


def test_the_self_retrieval_reward_reads_the_same_file(folder):
    assert read_neighbors(str(folder / "neighbors.jsonl"), 1) == {
        "b/1.jpg": ["ünï"], 'quo"te': ["4"], "ünï": ["b/1.jpg"], "4": ["ünï"],
    }  # fmt: skip


def test_neighbours_that_are_not_complete_are_refused(folder, tmp_path):
    with pytest.raises(UsageError, match=r"no neighbors.jsonl in .*nowhere"):
        Neighbors(tmp_path / "nowhere")
    lines = (folder / "neighbors.jsonl").read_text().splitlines(keepends=True)
    for broken, message in ((lines[:-1], "without a line of their own"), ([*lines[:-1], lines[-1][:20]], "line 4")):
        (folder / "neighbors.jsonl").write_text("".join(broken))
        with pytest.raises(UsageError, match=message):
            Neighbors(folder)
    (folder / "neighbors.jsonl").write_text("".join(lines))
    (folder / "neighbors.json").unlink()
    with pytest.raises(UsageError, match=r"find neighbours with `capkit mine` first"):
        Neighbors(folder)


def test_images_that_are_all_duplicates_are_an_error_and_leave_nothing_that_looks_finished(tmp_path):
    nothing = chunk([[-1, -1]] * 4, [[np.nan] * 2] * 4, [[1, 2], [0, 2], [0, 1], [0, 1]], [3] * 4)
    with pytest.raises(UsageError, match=r"more alike than duplicate_threshold=0.9; raise it"):
        write_neighbors(tmp_path, KEYS, [nothing], ABOUT)
    assert not (tmp_path / "neighbors.jsonl").exists() and not (tmp_path / "neighbors.json").exists()
