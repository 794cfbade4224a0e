import sys

import numpy as np
import pytest

from capkit.curation.mining import search as module
from capkit.curation.mining.search import Search
from capkit.errors import UsageError


def corners(num_vectors, seed=0, width=16):
    """Vectors of +-1/4 in 16 dimensions: every product is exact, and many are equal."""
    return np.random.default_rng(seed).choice([-0.25, 0.25], (num_vectors, width)).astype(np.float32)


def naive(vectors, num_neighbors, threshold):
    """(neighbours, similarities, duplicates, their number) of each vector, by sorting all others."""
    rows = []
    for i, vector in enumerate(vectors):
        others = sorted((-float(vector @ other), j) for j, other in enumerate(vectors) if j != i)
        near = [(-s, j) for s, j in others if -s <= threshold][:num_neighbors]
        copies = [j for s, j in others if -s > threshold]
        rows.append(([j for _, j in near], [s for s, _ in near], copies[:num_neighbors], len(copies)))
    return rows


def found(search):
    rows = []
    for chunk in search:
        for near, similarities, copies, count in zip(*vars(chunk).values(), strict=True):
            kept = near >= 0
            rows.append((near[kept].tolist(), similarities[kept].tolist(), copies[copies >= 0].tolist(), int(count)))
            assert (kept == ~np.isnan(similarities)).all()
    return rows


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(module, "QUERIES", 8)
    monkeypatch.setattr(module, "DATABASE", {"cpu": 10, "cuda": 10})


def test_three_neighbours_by_hand(tmp_path):
    angles = np.radians([0, 10, 30, 90])
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    (chunk,) = Search(vectors, 2, tmp_path / "s", duplicate_threshold=0.98)
    # cosines: 0-1 .985, 1-2 .940, 0-2 .866, 2-3 .5, 1-3 .174, 0-3 0; only 0 and 1 are duplicates
    assert chunk.neighbors.tolist() == [[2, 3], [2, 3], [1, 0], [2, 1]]
    assert chunk.similarities[2] == pytest.approx(np.cos(np.radians([20, 30])), abs=1e-6)
    assert chunk.num_duplicates.tolist() == [1, 1, 0, 0] and chunk.duplicates[:, 0].tolist() == [1, 0, -1, -1]


@pytest.mark.parametrize("num_vectors", [2, 8, 9, 37])
@pytest.mark.parametrize("threshold", [0.2, 0.9, 1.0])
def test_chunks_equal_sorting_everything_ties_by_index(small_chunks, tmp_path, num_vectors, threshold):
    vectors = corners(num_vectors)
    vectors[num_vectors // 2] = vectors[0]  # a product of exactly 1, which only a threshold below 1 calls a duplicate
    count = min(6, num_vectors - 1)
    assert found(Search(vectors, count, tmp_path / "s", threshold)) == naive(vectors, count, threshold)


def test_many_copies_of_one_picture_are_counted_and_listed_as_far_as_there_is_room(small_chunks, tmp_path):
    vectors = np.repeat(corners(2, seed=3), [30, 5], axis=0)
    rows = found(Search(vectors, 4, tmp_path / "s", 0.99))
    assert rows == naive(vectors, 4, 0.99)
    assert rows[0][3] == 29 and rows[0][2] == [1, 2, 3, 4] and rows[0][0] == [30, 31, 32, 33]


def test_turning_all_vectors_alike_changes_nothing(small_chunks, tmp_path):
    draw = np.random.default_rng(0)
    vectors = draw.standard_normal((40, 12))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    turned = vectors @ np.linalg.qr(draw.standard_normal((12, 12)))[0]
    rows = [found(Search(v.astype(np.float32), 5, tmp_path / str(i))) for i, v in enumerate((vectors, turned))]
    assert [row[0] for row in rows[0]] == [row[0] for row in rows[1]]


def test_a_search_goes_on_behind_its_finished_chunks_and_ends_as_one_that_was_not_interrupted(
    small_chunks, tmp_path, monkeypatch
):
    vectors, searched = corners(37), []
    whole = found(Search(vectors, 6, tmp_path / "once", 0.9))
    chunk = Search.chunk

    def die_at_three(self, number):
        if number == 3:
            raise KeyboardInterrupt
        return chunk(self, number)

    with monkeypatch.context() as patched:
        patched.setattr(Search, "chunk", die_at_three)
        with pytest.raises(KeyboardInterrupt):
            found(Search(vectors, 6, tmp_path / "again", 0.9))
    (tmp_path / "again" / "chunk-000003.npz.77.partial").write_bytes(b"half")  # what a kill while writing leaves
    monkeypatch.setattr(Search, "chunk", lambda self, number: searched.append(number) or chunk(self, number))
    assert found(Search(vectors, 6, tmp_path / "again", 0.9)) == whole
    assert searched == [3, 4], "of five chunks, three were finished"


def test_what_another_search_left_is_refused(small_chunks, tmp_path):
    found(Search(corners(20), 6, tmp_path / "s", 0.9))
    others = [
        (Search(corners(20, seed=1), 6, tmp_path / "s", 0.9), "vectors"),
        (Search(corners(20), 5, tmp_path / "s", 0.9), "num_neighbors is 6, wanted 5"),
        (Search(corners(20), 6, tmp_path / "s", 0.8), "duplicate_threshold is '0.9', wanted '0.8'"),
    ]
    for other, what in others:
        with pytest.raises(UsageError, match=what):
            found(other)
    (tmp_path / "s" / "about.json").unlink()
    with pytest.raises(UsageError, match=r"no about.json"):
        found(Search(corners(20), 6, tmp_path / "s", 0.9))


def test_a_damaged_chunk_is_an_error_that_names_it(small_chunks, tmp_path):
    found(Search(corners(20), 6, tmp_path / "s"))
    (tmp_path / "s" / "chunk-000001.npz").write_bytes(b"PK")
    with pytest.raises(UsageError, match=r"chunk-000001.npz is damaged"):
        found(Search(corners(20), 6, tmp_path / "s"))


def test_vectors_may_be_a_memory_map(small_chunks, tmp_path):
    np.save(tmp_path / "v.npy", corners(20))
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    assert found(Search(mapped, 6, tmp_path / "s")) == naive(corners(20), 6, 1.0)


def test_faiss_finds_the_same(small_chunks, tmp_path):
    pytest.importorskip("faiss")
    draw = np.random.default_rng(0).standard_normal((40, 12))
    vectors = (draw / np.linalg.norm(draw, axis=1, keepdims=True)).astype(np.float32)
    vectors[5:25] = vectors[0]
    ours, theirs = (found(Search(vectors, 6, tmp_path / b, 0.99, b)) for b in ("exact", "faiss"))
    assert [row[3] for row in ours] == [row[3] for row in theirs]
    for row, other in zip(ours, theirs, strict=True):
        assert row[1] == pytest.approx(other[1], abs=1e-6)
        if not {*row[0], *other[0]} & {0, *range(5, 25)}:  # which of twenty copies comes first is a matter of rounding
            assert row[0] == other[0]


def test_faiss_that_is_not_installed_is_said_at_once(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UsageError, match=r"pip install 'capkit\[mining\]'"):
        Search(corners(9), 2, tmp_path, backend="faiss")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_neighbors": 0}, "num_neighbors must be 1 or more"),
        ({"num_neighbors": 9}, "less than the number of images; got 9 for 9"),
        ({"duplicate_threshold": 1.5}, "duplicate_threshold is a cosine"),
        ({"vectors": 2 * corners(9)}, "unit vectors"),
        ({"vectors": np.full((9, 4), np.nan, np.float32)}, "unit vectors"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_searched(tmp_path, change, message):
    arguments = {"vectors": corners(9), "num_neighbors": 2, "folder": tmp_path / "s"} | change
    with pytest.raises(UsageError, match=message):
        Search(**arguments)
    assert not (tmp_path / "s").exists()
