from collections.abc import Iterable

import numpy as np
import pytest

from capkit.curation.mining import cross
from capkit.curation.mining.cross import CrossSearch, on_grid
from capkit.errors import UsageError


def unit_vectors(num_vectors, width=24, seed=0):
    drawn = np.random.default_rng(seed).standard_normal((num_vectors, width))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def crowded(num_vectors, seed=0):
    """Vectors in clusters of almost equal ones, whose cosines differ by less than a product in float32 errs."""
    vectors = np.repeat(unit_vectors(-(-num_vectors // 10), seed=seed), 10, axis=0)[:num_vectors].astype(np.float64)
    vectors += 1e-7 * np.random.default_rng(seed + 1).standard_normal(vectors.shape)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def exact_cosines(queries, database):
    """In whole numbers, as Python's are: multiples of 2^-48, rounded to float32 once."""
    left, right = ([[round(float(x) * 2**24) for x in row] for row in rows] for rows in (queries, database))
    products = [[sum(a * b for a, b in zip(x, y, strict=True)) / 2**48 for y in right] for x in left]
    return np.array(products, np.float32)


def naive(queries, database, num_neighbors):
    cosines = exact_cosines(queries, database)
    order = np.array([sorted(range(len(database)), key=lambda j: (-row[j], j))[:num_neighbors] for row in cosines])
    return order, np.take_along_axis(cosines, order, 1)


def joined(search: Iterable):
    return [np.concatenate(columns) for columns in zip(*search, strict=True)]


def test_neighbours_in_another_set_by_hand(tmp_path):
    def at(*degrees):
        return np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], 1).astype(np.float32)

    indices, similarities = joined(CrossSearch(at(0, 80), at(90, 10, 30), 2, tmp_path))
    assert indices.tolist() == [[1, 2], [0, 2]]
    assert similarities == pytest.approx(np.cos(np.radians([[10, 30], [10, 50]])), abs=1e-6)


@pytest.mark.parametrize("draw", [unit_vectors, crowded])
def test_it_finds_what_whole_numbers_find(draw, tmp_path):
    queries, database = draw(23, seed=1), draw(41, seed=1)
    for ours, theirs in zip(
        joined(CrossSearch(queries, database, 9, tmp_path, chunk_size=8)), naive(queries, database, 9), strict=True
    ):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("draw", [unit_vectors, crowded])
def test_chunks_of_7_and_of_1000_give_the_same_to_the_last_bit(draw, tmp_path, monkeypatch):
    queries, database = draw(1005), draw(500)
    wide = joined(CrossSearch(queries, database, 15, tmp_path / "wide", chunk_size=1000))
    monkeypatch.setattr(cross, "DATABASE", {"cpu": 90, "cuda": 90})
    narrow = joined(CrossSearch(queries, database, 15, tmp_path / "narrow", chunk_size=7))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(wide, narrow, strict=True))


def test_on_the_grid_the_order_of_a_sum_does_not_matter():
    one, other = on_grid(unit_vectors(1, width=500)[0]), on_grid(unit_vectors(1, width=500, seed=1)[0])
    forward = sum((one * other).tolist())
    assert forward == sum((one * other).tolist()[::-1]) == float(one @ other)
    assert abs(on_grid(unit_vectors(3)).numpy() - unit_vectors(3)).max() <= 2.0**-25


def test_a_search_goes_on_behind_its_finished_chunks(tmp_path, monkeypatch):
    queries, database, searched = unit_vectors(30), unit_vectors(20, seed=1), []
    whole = joined(CrossSearch(queries, database, 4, tmp_path / "once", chunk_size=7))
    chunk = CrossSearch.chunk

    def die_at_three(self, number):
        if number == 3:
            raise KeyboardInterrupt
        return chunk(self, number)

    with monkeypatch.context() as patched:
        patched.setattr(CrossSearch, "chunk", die_at_three)
        with pytest.raises(KeyboardInterrupt):
            joined(CrossSearch(queries, database, 4, tmp_path / "again", chunk_size=7))
    monkeypatch.setattr(CrossSearch, "chunk", lambda self, number: searched.append(number) or chunk(self, number))
    again = joined(CrossSearch(queries, database, 4, tmp_path / "again", chunk_size=7))
    assert searched == [3, 4] and all(np.array_equal(a, b) for a, b in zip(whole, again, strict=True))


def test_every_setting_has_a_folder_of_its_own(tmp_path):
    queries, database = unit_vectors(9), unit_vectors(8, seed=1)
    searches = [
        CrossSearch(queries, database, 3, tmp_path),
        CrossSearch(queries, database, 4, tmp_path),
        CrossSearch(queries, database, 3, tmp_path, chunk_size=5),
        CrossSearch(queries, unit_vectors(8, seed=2), 3, tmp_path),
        CrossSearch(queries[::-1], database, 3, tmp_path),
    ]
    assert [joined(search)[0].shape[1] for search in searches] == [3, 4, 3, 3, 3]
    assert len({search.folder for search in searches}) == 5
    assert CrossSearch(queries, database, 3, tmp_path).folder == searches[0].folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_neighbors": 0}, "expected 1 to 8 neighbours"),
        ({"num_neighbors": 9}, "expected 1 to 8 neighbours"),
        ({"queries": unit_vectors(9, width=5)}, "got widths 5 and 24"),
        ({"database": 2 * unit_vectors(8)}, "unit vectors"),
        ({"queries": np.full((9, 24), np.nan, np.float32)}, "unit vectors"),
    ],
)
def test_wrong_vectors_and_counts_are_refused(change, message, tmp_path):
    arguments = {"queries": unit_vectors(9), "database": unit_vectors(8), "num_neighbors": 3} | change
    with pytest.raises(UsageError, match=message):
        CrossSearch(**arguments, cache_dir=tmp_path)
