import math

import pytest

from capkit.errors import UsageError
from capkit.run.selection import Bound, Selection


def test_the_expression_of_the_docs_is_understood():
    selection = Selection.parse("max clip_score s.t. cider >= 0.9 * initial")
    assert selection == Selection("max", "clip_score", (("cider", Bound(True, 0.9, True)),))
    assert selection.names == ["clip_score", "cider"]


@pytest.mark.parametrize(
    "text, limits",
    [
        ("min loss", ()),
        ("max reward/cider", ()),
        ("max a s.t. b<=3", (("b", Bound(False, 3.0)),)),
        (" max  a s.t. a >= -1.5e-2 ", (("a", Bound(True, -0.015)),)),
        ("max a s.t. b/c <= .5*initial and d >= 2", (("b/c", Bound(False, 0.5, True)), ("d", Bound(True, 2.0)))),
        ("max brand s.t. sand >= 1 and band >= 2.", (("sand", Bound(True, 1.0)), ("band", Bound(True, 2.0)))),
    ],
)  # fmt: skip
def test_forms_of_the_grammar(text, limits):
    assert Selection.parse(text).limits == limits


@pytest.mark.parametrize(
    "text",
    [
        "", "max", "clip_score", "best clip_score", "max a b", "max a s.t.", "max a s.t. b", "max a s.t. b > 3",
        "max a s.t. b >= x", "max a s.t. b >= 3 and", "max a s.t. b >= 3, c >= 4", "max a s.t. b >= initial * 0.9",
        "max a s.t. b >= 3 s.t. c >= 4", "max a such that b >= 3", "max a s.t. 3 <= b", "max a s.t. b >= nan",
    ],
)  # fmt: skip
def test_anything_else_is_refused_and_the_grammar_shown(text):
    with pytest.raises(UsageError, match=r"max\|min NAME \[s\.t\. NAME"):
        Selection.parse(text)


def test_the_part_that_is_wrong_is_named():
    with pytest.raises(UsageError, match="'b > 3' is no limit"):
        Selection.parse("max a s.t. c <= 1 and b > 3")


def test_a_share_of_the_initial_value_is_the_limit():
    selection = Selection.parse("max a s.t. cider >= 0.9 * initial and length <= 20")
    # 0.9 * 0.8 = 0.72
    assert selection.broken({"a": 1.0, "cider": 0.73, "length": 20.0}, {"cider": 0.8}) == []
    assert selection.broken({"a": 1.0, "cider": 0.71, "length": 20.0}, {"cider": 0.8}) == ["cider >= 0.9 * initial"]
    assert selection.broken({"a": 1.0, "cider": 0.71, "length": 21.0}, {"cider": 0.8})[1] == "length <= 20"


def test_nan_keeps_to_no_limit_and_is_never_the_best():
    assert not Bound(True, -math.inf).holds(math.nan) and not Bound(False, math.inf).holds(math.nan)
    assert not Selection("max", "a").improves(math.nan, None)


def test_max_and_min_point_opposite_ways_and_a_tie_keeps_the_earlier():
    up, down = Selection("max", "a"), Selection("min", "a")
    assert up.improves(2.0, 1.0) and not down.improves(2.0, 1.0)
    assert down.improves(1.0, 2.0) and not up.improves(1.0, 2.0)
    assert not up.improves(1.0, 1.0) and not down.improves(1.0, 1.0)
    assert up.improves(-5.0, None) and down.improves(5.0, None)
