import itertools

import numpy as np
import pytest

from capkit.curation.mining.grouping import group, quality, similarity_within
from capkit.curation.mining.search import Search
from capkit.errors import UsageError


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def clustered(num_clusters=30, members=8, seed=0):
    draw = np.random.default_rng(seed)
    centers = np.repeat(draw.standard_normal((num_clusters, 24)), members, 0)
    return unit(centers + 0.6 * draw.standard_normal(centers.shape))[draw.permutation(num_clusters * members)]


@pytest.fixture
def mined(tmp_path):
    def neighbors(vectors, count=30, threshold=1.0):
        search = Search(vectors, min(count, len(vectors) - 1), tmp_path / f"{len(list(tmp_path.iterdir()))}", threshold)
        return np.concatenate([found.neighbors for found in search])

    return neighbors


def test_bags_of_two_on_a_line_by_hand(mined):
    angles = np.radians([0, 4, 6, 30, 90, 91])
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    # nearest pairs first: 91-90 (1 degree), then 6-4 (2), then 0, whose nearest free neighbour is 30
    bags = group(vectors, mined(vectors), 2, "hard", 1.0)
    assert [sorted(bag) for bag in bags.tolist()] == [[4, 5], [1, 2], [0, 3]]


@pytest.mark.parametrize("neighborhood", ["hard", "medium", "easy", "random"])
@pytest.mark.parametrize("size", [2, 3, 7])
def test_each_image_is_in_one_bag_at_most_and_no_bag_holds_duplicates(mined, neighborhood, size):
    vectors = clustered()
    vectors[10:40] = vectors[:30]  # thirty pictures twice
    threshold = 0.95
    bags = group(vectors, mined(vectors, 60, threshold), size, neighborhood, threshold)
    assert bags.shape[1] == size and len(set(bags.ravel().tolist())) == bags.size
    closest = max(float(vectors[a] @ vectors[b]) for bag in bags for a, b in itertools.combinations(bag, 2))
    assert closest <= threshold + 1e-6
    assert (vectors @ vectors.T > threshold).sum() > len(vectors), "there were duplicates to keep apart"


def test_the_same_input_gives_the_same_bags_and_random_ones_follow_the_seed(mined):
    vectors = clustered()
    near = mined(vectors)
    for neighborhood in ("hard", "random"):
        first, second = (group(vectors, near, 3, neighborhood, 1.0, seed=4) for _ in range(2))
        assert (first == second).all()
    assert (group(vectors, near, 3, "random", 1.0, seed=5) != first).any()
    assert (group(vectors, near, 3, "hard", 1.0, seed=5) == group(vectors, near, 3, "hard", 1.0)).all()


def test_mates_come_from_the_ranks_of_their_neighbourhood(mined):
    vectors = clustered()
    near = mined(vectors, 30)
    for neighborhood, first_rank in (("hard", 0), ("medium", 10), ("easy", 20)):
        for first, *mates in group(vectors, near, 3, neighborhood, 1.0).tolist():
            ranks = [near[first].tolist().index(mate) for mate in mates]
            assert ranks == sorted(ranks) and ranks[0] >= first_rank


def test_hard_bags_are_more_alike_than_medium_easy_and_random_ones(mined):
    vectors = clustered()
    near = mined(vectors, 30)
    alike = [
        similarity_within(vectors, group(vectors, near, 3, name, 1.0)) for name in ("hard", "medium", "easy", "random")
    ]
    assert alike == sorted(alike, reverse=True) and alike[0] > alike[-1] + 0.3


def test_hard_bags_find_planted_groups(mined):
    draw = np.random.default_rng(1)
    centers = np.repeat(np.eye(40), 4, 0)
    vectors = unit(centers + 0.05 * draw.standard_normal(centers.shape))
    bags = group(vectors, mined(vectors, 12), 4, "hard", 1.0)
    assert len(bags) == 40 and all(len(set(bag // 4)) == 1 for bag in bags)


def test_quality_by_hand_and_against_every_pair():
    angles = np.radians([0, 60, 90, 180])
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    assert similarity_within(vectors, np.array([[0, 1], [0, 2]])) == pytest.approx((0.5 + 0) / 2, abs=1e-6)
    vectors = clustered(6, 5)
    bags = np.arange(28).reshape(7, 4)
    pairs = [float(vectors[a] @ vectors[b]) for bag in bags for a, b in itertools.combinations(bag, 2)]
    found = quality(vectors, bags)
    assert found["similarity"] == pytest.approx(np.mean(pairs), abs=1e-6)
    assert (found["bags"], found["left_out"], found["placed"]) == (7, 2, 28 / 30)


def test_what_cannot_be_grouped_is_an_error(mined):
    vectors = clustered(3, 5)
    near = mined(vectors, 6)
    for arguments, message in (
        ((3, "harsh", 1.0), "no neighbourhood 'harsh'; did you mean 'hard'"),
        ((1, "hard", 1.0), "2 or more images; got size 1"),
        ((8, "hard", 1.0), "hard bags of 8 need 7 mates of an image, and 6 of its 6 neighbours are hard"),
        ((4, "easy", 1.0), "easy bags of 4 need 3 mates"),
        ((3, "random", -1.0), "not one random bag of 3 came about among 15 images"),
        ((3, "hard", -1.0), "not one hard bag of 3"),
    ):
        with pytest.raises(UsageError, match=message):
            group(vectors, near, *arguments)
