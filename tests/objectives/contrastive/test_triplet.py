import pytest
import torch
from pair_cases import CASES, Case, assert_same, dense_outcome, outcome

from capkit.errors import UsageError
from capkit.objectives.contrastive.ranking_hinge import RankingHinge
from capkit.objectives.contrastive.triplet import Triplet
from capkit.types import PairEmbeddings


def naive(pairs, margin, negatives, mining):
    """The definition, triplet by triplet."""
    distances = 1 - pairs.images @ pairs.texts.T
    ids, owners, texts = (x.tolist() for x in (pairs.image_ids, pairs.owners, pairs.text_ids))
    texts_of = {image: {t for t, owner in zip(texts, owners, strict=True) if owner == image} for image in ids}
    terms = {"sentences": [], "images": []}
    for i, j in [(i, j) for i in range(len(ids)) for j in range(len(owners)) if ids[i] == owners[j]]:
        wrong = {
            "sentences": [distances[i, k] for k in range(len(owners)) if texts[k] not in texts_of[ids[i]]],
            "images": [
                distances[k, j] for k in range(len(ids)) if ids[k] != owners[j] and texts[j] not in texts_of[ids[k]]
            ],
        }
        for kind, others in wrong.items():
            if others:
                farther = [other for other in others if other > distances[i, j]]
                chosen = min(others) if mining == "hardest" else min(farther) if farther else max(others)
                terms[kind].append((margin + distances[i, j] - chosen).clamp(min=0))
    kinds = [kind for kind in terms if negatives in (kind, "both")]
    return sum((sum(terms[kind]) / max(1, len(terms[kind])) for kind in kinds), 0 * distances.sum()) / len(kinds)


def image_with_wrong_captions(*cosines):
    """Image 0 with its caption at cosine 0.5, and captions of image 1 at the given cosines."""
    first = torch.tensor([0.5, *cosines])
    ids = torch.tensor([0, *(1 for _ in cosines)])
    texts = torch.stack([first, (1 - first**2).sqrt()], 1)
    return PairEmbeddings(torch.eye(2)[:1], texts, torch.tensor(1.0), ids[:1], ids, torch.arange(len(ids)))


@pytest.mark.parametrize(
    ("cosines", "mining", "loss"),
    [
        # d(anchor, positive) = .5, margin .2. Hardest: d = .3: .2 + .5 - .3 = .4
        ((0.7, 0.4, 0.1), "hardest", 0.4),
        # Semi-hard: of the farther ones, d = .6 and .9, the nearest: .2 + .5 - .6 = .1
        ((0.7, 0.4, 0.1), "semi_hard", 0.1),
        # None is farther: the farthest of the nearer ones, d = .4: .2 + .5 - .4 = .3
        ((0.7, 0.6), "semi_hard", 0.3),
        # Beyond the margin, d = .9: nothing.
        ((0.1,), "semi_hard", 0.0),
    ],
)
def test_hand_worked_value(cosines, mining, loss):
    output = Triplet(0.2, "sentences", mining)(image_with_wrong_captions(*cosines), 0)
    assert float(output.loss) == pytest.approx(loss, abs=1e-6)
    assert float(output.logs["violations"]) == (loss > 0)
    assert float(output.logs["accuracy_i2t"]) == (max(cosines) < 0.5)


@pytest.mark.parametrize("mining", ["hardest", "semi_hard"])
@pytest.mark.parametrize("negatives", ["sentences", "images", "both"])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_definition_with_its_gradient(case, negatives, mining):
    expected = CASES[case].pairs()
    expected = dense_outcome(naive(expected, 0.4, negatives, mining), expected)
    for chunk_rows in (2, 1024):
        assert_same(outcome(Triplet(0.4, negatives, mining, chunk_rows), CASES[case].pairs()), expected)


def test_hardest_triplets_are_half_the_ranking_hinge_of_the_hardest_negative():
    case = CASES["one caption each"]
    triplet, hinge = Triplet(0.3, mining="hardest")(case.pairs(), 0), RankingHinge(0.3, top_n=1)(case.pairs(), 0)
    torch.testing.assert_close(2 * triplet.loss, hinge.loss)


def test_a_batch_without_any_triplet_has_loss_zero_and_gradient_zero():
    for case in (Case([0], [0, 0]), Case([0, 1], [8, 9]), Case([], [3, 4]), Case([3, 4], []), Case([], [])):
        for mining in ("hardest", "semi_hard"):
            result = outcome(Triplet(mining=mining), case.pairs())
            assert float(result["loss"]) == 0 and not any(bool(g.any()) for g in result["gradients"].values())


def test_wrong_arguments_are_refused():
    for arguments, message in [
        ({"margin": -1.0}, "margin"),
        ({"negatives": "captions"}, "sentences, images, both; got 'captions'"),
        ({"mining": "easy"}, "hardest, semi_hard"),
        ({"chunk_rows": 0}, "chunk_rows"),
    ]:
        with pytest.raises(UsageError, match=message):
            Triplet(**arguments)
