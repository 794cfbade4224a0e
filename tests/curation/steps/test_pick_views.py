"""A budget of objects by the disagreement of their captions."""

import numpy as np
import pytest
import torch

from capkit.curation.base import Step, scope_of
from capkit.curation.steps.pick_views import PickViews, disagreement
from capkit.data.records import Caption, Record
from capkit.errors import UsageError

VECTORS = {"x": [1.0, 0.0], "y": [0.0, 1.0], "-x": [-1.0, 0.0], "xy": [0.6, 0.8]}


class Encoder:
    device = "cpu"

    def fingerprint_fields(self, side):
        return {"encoder": "table", "side": side}

    def to(self, device):
        return self

    def encode_text(self, texts):
        return torch.tensor([VECTORS[text] for text in texts])


def views(name, *captions):
    return [Record(f"{name}{i}", captions=[Caption(text)], object=name) for i, text in enumerate(captions)]


RECORDS = [*views("a", "x", "x", "x"), *views("b", "x", "y"), *views("c", "x", "-x"), *views("d", "x", "xy", "xy")]


def picked(tmp_path, records=RECORDS, **settings):
    step = PickViews(Encoder(), cache_dir=str(tmp_path), **settings)
    return list(step(lambda: iter(records))), step


def test_disagreement_by_hand():
    """a: three equal ones. d: cosines .6, .6 and 1, so 1 - 2.2 / 3. Opposite ones: 1 - (-1)."""
    of = lambda *names: disagreement(np.array([VECTORS[name] for name in names], np.float32))  # noqa: E731
    assert of("x", "x", "x") == pytest.approx(0.0, abs=1e-7)
    assert of("x", "y") == pytest.approx(1.0) and of("x", "-x") == pytest.approx(2.0)
    assert of("x", "xy", "xy") == pytest.approx(1 - 2.2 / 3)
    assert of("x") == 0.0 and disagreement(np.zeros((0, 2))) == 0.0


def test_it_equals_the_mean_over_all_pairs_in_any_order():
    rows = np.random.default_rng(0).normal(size=(7, 5))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    pairs = [rows[i] @ rows[j] for i in range(7) for j in range(i)]
    assert disagreement(rows) == pytest.approx(1 - np.mean(pairs))
    assert disagreement(rows[::-1]) == pytest.approx(disagreement(rows))


def test_the_objects_that_disagree_most_keep_all_their_views(tmp_path):
    found, step = picked(tmp_path, budget=2)
    assert [record.key for record in found] == ["b0", "b1", "c0", "c1"]
    assert [record.metadata["disagreement"] for record in found] == pytest.approx([1.0, 1.0, 2.0, 2.0])
    assert step.counts == pytest.approx(
        {"objects": 4, "picked": 2, "views": 4, "disagreement": (3 + 1 - 2.2 / 3) / 4, "disagreement_picked": 1.5}
    )
    assert isinstance(step, Step) and scope_of(step) == "all"


def test_a_share_is_rounded_down_and_picks_one_at_least(tmp_path):
    assert len({r.object for r in picked(tmp_path, budget=0.7)[0]}) == 2
    assert {r.object for r in picked(tmp_path, budget=0.1)[0]} == {"c"}
    assert len(picked(tmp_path, budget=1.0)[0]) == len(RECORDS)
    assert {r.object for r in picked(tmp_path, budget=1)[0]} == {"c"}  # a number


def test_of_objects_that_disagree_equally_the_first_is_taken(tmp_path):
    records = [*views("p", "x", "y"), *views("q", "y", "x")]
    assert {record.object for record in picked(tmp_path, records, budget=1)[0]} == {"p"}


def test_at_random_as_many_are_drawn_by_the_seed(tmp_path):
    drawn = [{r.object for r in picked(tmp_path, budget=2, by="random", seed=seed)[0]} for seed in range(8)]
    assert all(len(names) == 2 for names in drawn) and len(set(map(frozenset, drawn))) > 1
    assert drawn[0] == {r.object for r in picked(tmp_path, budget=2, by="random", seed=0)[0]}


def test_bad_input_is_refused(tmp_path):
    with pytest.raises(UsageError, match="pick_views compares captions"):
        PickViews()
    with pytest.raises(UsageError, match="budget=5 is more than the 4 objects"):
        picked(tmp_path, budget=5)
    with pytest.raises(UsageError, match="expected views with captions, got none"):
        picked(tmp_path, [Record("k", object="a")])
    with pytest.raises(UsageError, match="does not say what it shows"):
        picked(tmp_path, [Record("k", captions=[Caption("x")])])
    for budget in (0, 1.5, -1):
        with pytest.raises(UsageError, match="budget"):
            picked(tmp_path, budget=budget)
    assert picked(tmp_path, [])[0] == []
