import pytest
import torch

from capkit.metrics.matched_pairs import pair_scores

# Rows: images; columns: captions.
BOTH = [[0.9, 0.1], [0.2, 0.8]]
CAPTIONS_ONLY = [[0.5, 0.4], [0.7, 0.8]]  # each image has its caption first, but caption 0 is nearer to image 1
IMAGES_ONLY = [[0.5, 0.7], [0.4, 0.8]]  # each caption has its image first, but image 0 is nearer to caption 1
NEITHER = [[0.1, 0.9], [0.8, 0.2]]


def scores_of(*tables):
    return pair_scores(torch.tensor(tables, dtype=torch.float64))


def test_hand_worked_pairs():
    scores = scores_of(BOTH, CAPTIONS_ONLY, IMAGES_ONLY, NEITHER)
    assert scores.text.tolist() == [True, True, False, False]
    assert scores.image.tolist() == [True, False, True, False]
    assert scores.group.tolist() == [True, False, False, False]
    # The group score is no mean of the two: (1/2 + 1/2) / 2 would be 1/2.
    assert scores.means() == {"text": 0.5, "image": 0.5, "group": 0.25}


def test_one_right_image_of_two_is_no_half_point():
    assert scores_of([[0.9, 0.1], [0.8, 0.2]]).means() == {"text": 0, "image": 1, "group": 0}


@pytest.mark.parametrize("table", [[[0.5, 0.5], [0.5, 0.5]], [[0.5, 0.5 - 1e-8], [0.5 - 1e-8, 0.5]]])
def test_a_tie_is_a_miss(table):
    assert scores_of(table).means() == {"text": 0, "image": 0, "group": 0}


def test_equals_the_papers_inequalities_and_random_similarities_score_chance():
    similarity = torch.rand(60_000, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scores = pair_scores(similarity)
    for table, text, image, group in zip(
        similarity[:500].tolist(), scores.text.tolist(), scores.image.tolist(), scores.group.tolist(), strict=False
    ):
        (i0c0, i0c1), (i1c0, i1c1) = table
        assert text == (i0c0 > i0c1 and i1c1 > i1c0)
        assert image == (i0c0 > i1c0 and i1c1 > i0c1)
        assert group == (text and image)
    # 24 orders of four numbers: text and image hold in 6 each, both in 4; three standard errors
    assert scores.means() == pytest.approx({"text": 1 / 4, "image": 1 / 4, "group": 1 / 6}, abs=0.0055)


def test_order_of_the_two_in_a_pair_changes_nothing():
    similarity = torch.rand(200, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    swapped = pair_scores(similarity.flip(1).flip(2))
    assert swapped.means() == pair_scores(similarity).means()
