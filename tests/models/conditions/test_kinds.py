"""Kinds of conditions: what is a value, and which values are refused."""

import math

import pytest
import torch

from capkit.errors import UsageError
from capkit.models.conditions.base import ConditionKind
from capkit.models.conditions.bins import Bins
from capkit.models.conditions.box import Box
from capkit.models.conditions.length import Length
from capkit.models.conditions.parts import build_kinds, parse_values

KINDS = build_kinds(
    {"alignment": {"kind": "bins", "count": 4}, "length": {"kind": "length", "longest": 9}, "box": "box"}, 6
)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_kind_follows_the_protocol(kind):
    assert isinstance(kind, ConditionKind)
    vectors = kind(torch.zeros(3, *kind.value_shape))
    assert vectors.shape == (3, kind.num_vectors, 6)


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("alignment", "top", 3.0),
        ("alignment", "bottom", 0.0),
        ("alignment", 2, 2.0),
        ("length", "9", 9.0),
        ("length", 1, 1.0),
        ("box", [0, 0.25, 1, 0.5], [0.0, 0.25, 1.0, 0.5]),
        ("box", "0,.25,1,.5", [0.0, 0.25, 1.0, 0.5]),
    ],
)
def test_values_of_a_command_line(name, given, value):
    assert parse_values(KINDS, {name: given}) == {name: value}


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("lenght", 4, "expected one of alignment, length, box; did you mean 'length'"),
        ("length", 10, "expected 1 to 9 words, as in training, got 10"),
        ("length", 0, "expected 1 to 9 words, as in training, got 0"),
        ("length", "four", "expected 1 to 9 words, as in training, got four"),
        ("alignment", 4, "expected top, bottom or a bin from 0 to 3, got 4"),
        ("alignment", -1, "expected top, bottom or a bin from 0 to 3, got -1"),
        ("box", [0.5, 0, 0.5, 1], "expected a box x0,y0,x1,y1 with 0 <= x0 < x1 <= 1"),
        ("box", [0.6, 0, 0.5, 1], "expected a box x0,y0,x1,y1 with 0 <= x0 < x1 <= 1"),
        ("box", [0, 0, 1.1, 1], "expected a box x0,y0,x1,y1 with 0 <= x0 < x1 <= 1"),
        ("box", "0,0,1", "expected a box x0,y0,x1,y1 with 0 <= x0 < x1 <= 1"),
        ("box", 0.5, "expected a box x0,y0,x1,y1 with 0 <= x0 < x1 <= 1"),
    ],
)
def test_what_is_no_value_is_refused_by_name(name, given, said):
    with pytest.raises(UsageError, match=rf"^conditions\.{name}=") as error:
        parse_values(KINDS, {name: given})
    assert said in str(error.value)


def test_a_captioner_without_conditions_says_so():
    with pytest.raises(UsageError, match="expected none, since this captioner was trained without any"):
        parse_values({}, {"length": 4})


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("lengths", "expected a kind (bins, length, box), got lengths; did you mean 'length'"),
        (3, "expected a kind (bins, length, box), got 3"),
        ({"count": 4}, "expected a kind (bins, length, box), got None"),
        ({"kind": "bins", "longest": 4}, "bins takes count, got 'longest'"),
        ({"kind": "bins", "count": 1}, "count: expected an integer of at least 2, got 1"),
    ],
)
def test_a_wrong_setting_of_a_model_is_refused(setting, said):
    with pytest.raises(UsageError) as error:
        build_kinds({"x": setting}, 6)
    assert said in str(error.value)


def test_a_bin_of_the_data_beyond_the_models_is_no_other_bin():
    with pytest.raises(UsageError, match="expected bins from 0 to 3, got 4 of the data"):
        Bins(6, count=4)(torch.tensor([0.0, 4.0]))


def test_bins_and_lengths_have_a_vector_each():
    for kind, values in ((Bins(6, count=4), range(4)), (Length(6, longest=5), range(1, 6))):
        vectors = kind(torch.tensor([float(value) for value in values]))[:, 0]
        torch.testing.assert_close(vectors, kind.embedding.weight[list(values)])
        assert len({tuple(row) for row in vectors.tolist()}) == len(values)


def test_the_features_of_a_box_worked_by_hand():
    """Sines and cosines of pi x and 2 pi x of each side x: of 1/4, pi/4 and pi/2."""
    found = Box(6, num_frequencies=2).features(torch.tensor([[0.0, 0.25, 0.5, 1.0]]))[0]
    half = math.sqrt(0.5)
    sines, cosines = [0, 0, half, 1, 1, 0, 0, 0], [1, 1, half, 0, 0, -1, -1, 1]
    torch.testing.assert_close(found, torch.tensor([0.0, 0.25, 0.5, 1.0, *sines, *cosines]), atol=1e-6, rtol=0)


def test_every_side_of_a_box_counts():
    box, kind = torch.tensor([[0.1, 0.2, 0.6, 0.7]]), Box(6)
    for side in range(4):
        moved = box.clone()
        moved[0, side] += 0.1
        assert (kind(moved) - kind(box)).abs().max() > 1e-3
