import pytest
import torch
from pair_cases import CASES, Case, assert_same, dense_outcome, outcome

from capkit.errors import UsageError
from capkit.objectives.contrastive.ranking_hinge import RankingHinge
from capkit.types import PairEmbeddings


def naive(pairs, margin, negatives, top_n, reduction):
    """The definition, pair by pair and negative by negative."""
    cosines = pairs.images @ pairs.texts.T
    ids, owners, texts = (x.tolist() for x in (pairs.image_ids, pairs.owners, pairs.text_ids))
    texts_of = {image: {t for t, owner in zip(texts, owners, strict=True) if owner == image} for image in ids}
    own = [(i, j) for i in range(len(ids)) for j in range(len(owners)) if ids[i] == owners[j]]
    totals = {"sentences": 0.0 * cosines.sum(), "images": 0.0 * cosines.sum()}
    for i, j in own:
        wrong = {
            "sentences": [cosines[i, k] for k in range(len(owners)) if texts[k] not in texts_of[ids[i]]],
            "images": [
                cosines[k, j] for k in range(len(ids)) if ids[k] != owners[j] and texts[j] not in texts_of[ids[k]]
            ],
        }
        for kind, others in wrong.items():
            terms = sorted(((margin - cosines[i, j] + other).clamp(min=0) for other in others), reverse=True)
            totals[kind] = totals[kind] + sum(terms[:top_n])
    counts = {"sentences": len(owners), "images": len(ids)}
    loss = 0.0
    for kind in ("sentences", "images"):
        cells = len(own) * min(top_n or counts[kind], counts[kind]) if reduction == "mean" else 1
        loss = loss + totals[kind] / cells if negatives in (kind, "both") else loss
    return loss


def two_pairs():
    """Cosines of images 0 and 1 (rows) with captions 0 and 1: (0.6, 0.5), (0, 0.3)."""
    ids = torch.arange(2)
    return PairEmbeddings(torch.eye(2), torch.tensor([[0.6, 0.0], [0.5, 0.3]]), torch.tensor(1.0), ids, ids, ids)


@pytest.mark.parametrize(
    ("negatives", "total"),
    [
        # Wrong captions: image 0: max(0, .2 - .6 + .5) = .1; image 1: max(0, .2 - .3 + 0) = 0.
        ("sentences", 0.1),
        # Wrong images: caption 0: max(0, .2 - .6 + 0) = 0; caption 1: max(0, .2 - .3 + .5) = .4.
        ("images", 0.4),
        ("both", 0.5),
    ],
)
def test_hand_worked_value(negatives, total):
    assert float(RankingHinge(0.2, negatives, reduction="sum")(two_pairs(), 0).loss) == pytest.approx(total)
    # The mean is over 2 x 2 cells, the two zeros of the pairs themselves included.
    assert float(RankingHinge(0.2, negatives, reduction="mean")(two_pairs(), 0).loss) == pytest.approx(total / 4)
    # Of the hardest alone: over 2 pairs.
    assert float(RankingHinge(0.2, negatives, top_n=1)(two_pairs(), 0).loss) == pytest.approx(total / 2)


def test_hand_worked_logs():
    # Both captions are nearest to image 0; both images are nearest to their own. 2 of 2 x 4 terms are above zero.
    logs = RankingHinge()(two_pairs(), 0).logs
    assert {name: float(value) for name, value in logs.items()} == {
        "accuracy_i2t": 1.0, "accuracy_t2i": 0.5, "violations": 0.25
    }  # fmt: skip


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("top_n", [None, 1, 2, 50])
@pytest.mark.parametrize("negatives", ["sentences", "images", "both"])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_definition_with_its_gradient(case, negatives, top_n, reduction):
    expected = CASES[case].pairs()
    expected = dense_outcome(naive(expected, 0.4, negatives, top_n, reduction), expected)
    for chunk_rows in (2, 1024):
        objective = RankingHinge(0.4, negatives, top_n, reduction, chunk_rows)
        assert_same(outcome(objective, CASES[case].pairs()), expected)


def test_one_caption_each_is_merkx_and_franks_mean_over_all_cells():
    pairs = CASES["one caption each"].pairs()
    cosines = pairs.texts @ pairs.images.T
    right = cosines.diag()
    cost = (0.2 - right[:, None] + cosines).clamp(min=0) + (0.2 - right[None] + cosines).clamp(min=0)
    torch.testing.assert_close(RankingHinge()(pairs, 0).loss, cost.fill_diagonal_(0).mean())


@pytest.mark.parametrize(
    ("text_ids", "total"),
    [
        # All captions lie on image 0, image 1 aside: every wrong caption is as near as the right one, a term of 0.5.
        # Captions 0 and 1 against caption 2, and caption 2 against both: four terms.
        ([5, 6, 7], 2.0),
        # Caption 2 says what caption 0 says: it is not wrong for image 0, nor caption 0 for image 1. One term is left.
        ([5, 6, 5], 0.5),
        ([5, 5, 5], 0.0),
    ],
)
def test_captions_of_the_same_image_and_equal_captions_are_never_negatives(text_ids, total):
    pairs = Case([0, 1], [0, 0, 1], text_ids).pairs()
    pairs.texts.data = pairs.images.data[[0, 0, 0]]
    assert float(outcome(RankingHinge(0.5, "sentences", reduction="sum"), pairs)["loss"]) == total


def test_a_batch_without_any_pair_has_loss_zero():
    for case in (Case([0, 1], [8, 9]), Case([], [3, 4]), Case([3, 4], []), Case([], [])):
        for top_n in (None, 1):
            assert float(outcome(RankingHinge(top_n=top_n), case.pairs())["loss"]) == 0


def test_wrong_arguments_are_refused():
    for arguments, message in [
        ({"margin": 0.0}, "margin"),
        ({"negatives": "captions"}, "sentences, images, both; got 'captions'"),
        ({"top_n": 0}, "top_n"),
        ({"reduction": "pairs"}, "mean, sum"),
        ({"chunk_rows": 0}, "chunk_rows"),
    ]:
        with pytest.raises(UsageError, match=message):
            RankingHinge(**arguments)
