"""Groups of near-duplicates by hand, and against all pairs."""

import numpy as np

from capkit.curation.near_duplicates import representatives
from capkit.utils.rng import generator


def at(*degrees):
    """Unit vectors in the plane."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_groups_by_hand():
    # cos 20 = .940 and cos 25 = .906 bind, cos 26 = .899 does not; 90 is far from all.
    assert representatives(at(0, 20, 90)) == [0, 2]  # of two equally good medoids the first
    assert representatives(at(0, 26, 90)) == [0, 1, 2]
    # 0-20 and 20-40 are bound, cos 40 = .766 lies within: split by the least alike, 0 and 40, of which 20 is as near to
    # both and goes to the first.
    assert representatives(at(0, 20, 40)) == [0, 2]
    # cos 30 = .866 is above .85: one group, whose middle is the medoid.
    assert representatives(at(0, 15, 30)) == [1]


def test_only_mutual_neighbours_are_bound():
    rows = at(0, 1, 2, 20)  # with one neighbour each: 0 and 1 choose each other, 2 chooses 1, which is not mutual
    assert representatives(rows, num_neighbors=1) == [0, 2, 3]


def test_of_planted_pairs_one_each_stays_in_any_order():
    rows = generator(0, "rows").standard_normal((30, 64))
    rows[10:20] = rows[:10] + 0.01 * rows[20:30]  # 10 to 19 are doubles of 0 to 9
    order = generator(0, "order").permutation(30)
    for kept in (representatives(rows), [int(order[place]) for place in representatives(rows[order])]):
        assert sorted(place % 10 if place < 20 else place for place in kept) == [*range(10), *range(20, 30)]


def test_one_text_stands_for_itself():
    assert representatives(at(0)) == [0]


def test_a_text_without_direction_is_no_duplicate():
    assert representatives(np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])) == [0, 1]
