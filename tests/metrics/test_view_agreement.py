"""Agreement of the captions of two views: by hand, and what it does not depend on."""

import pytest

from capkit.errors import UsageError
from capkit.metrics.base import TextScore
from capkit.metrics.view_agreement import ViewAgreement
from capkit.sceneworld.metrics.fact_agreement import FactAgreement

TEXTS = ["a red ball", "A red ball.", "a ball", "a cube", "a cube", "a star"]
OBJECTS = ["x", "x", "x", "y", "y", "z"]


def agreement(texts=TEXTS, objects=OBJECTS, similarity=None):
    rows = [{"object": name} for name in objects]
    return ViewAgreement(similarity).score(list(texts), [["-"]] * len(texts), rows)["view_agreement"]


def test_pairs_are_averaged_over_an_object_and_then_over_objects():
    """x: one of three pairs. y: its only pair. z has none: (1/3 + 1) / 2."""
    assert agreement() == pytest.approx(2 / 3)
    assert isinstance(ViewAgreement(), TextScore)


def test_the_order_of_views_does_not_matter_and_objects_may_be_mixed():
    order = [5, 3, 0, 4, 2, 1]
    assert agreement([TEXTS[i] for i in order], [OBJECTS[i] for i in order]) == pytest.approx(2 / 3)


def test_other_similarities_are_asked_pair_by_pair():
    """Facts: shape and colour. The same ones: 1. Two of three alike: F1 of {square}, {red, square} is 2 x 1 / 3."""
    texts = ["a red square", "there is a red square.", "a square", "a blue star"]
    assert agreement(texts, ["x", "x", "y", "y"], FactAgreement()) == pytest.approx((1 + 0) / 2)
    assert agreement([texts[0], texts[2]], ["x", "x"], FactAgreement()) == pytest.approx(2 / 3)


def test_without_objects_or_pairs_it_says_so():
    with pytest.raises(UsageError, match="expected records with `object`"):
        agreement(objects=[*"xxyy", None, "z"])
    with pytest.raises(UsageError, match="got 6 objects with one"):
        agreement(objects="abcdef")
