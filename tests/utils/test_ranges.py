"""Numbers out of range are refused by every constructor, before torch is imported and when called from Python."""

import ast
import importlib
import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Annotated

import pytest
import yaml

from capkit.config.annotations import fits
from capkit.config.check import RUN_KEYS, leaves
from capkit.config.locations import config_dir, groups
from capkit.config.signatures import signature
from capkit.errors import UsageError
from capkit.utils.ranges import (
    ALIASES,
    DecayRate,
    Length,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Probability,
    Range,
    check_ranges,
)

# Numbers of which a negative one means something.
MAY_BE_NEGATIVE = {
    "AlignFilter.duplicate_threshold",
    "Bags.levels", "BertScore.baseline", "CaptionDataModule.min_score", "KeepBest.threshold",
    "MemeDataModule.min_score", "Constant.value",
    "Cosine.end", "Cosine.start", "Decoding.length_penalty",
    "ImageTransform.mean", "Linear.end", "Linear.start", "PairSum.weights", "RewardTerm.clip", "RewardTerm.weight",
    "custom_reward.clip", "custom_reward.weight",
    "OpenCHAIR.threshold", "ScaleCaption.tau", "ScoreFilter.threshold", "TwoTower.logit_bias",
}  # fmt: skip


def capkit_targets():
    """Every class and function of capkit that a config names, tasks left out: they take the config."""
    found = set()
    for path in config_dir().rglob("*.yaml"):
        if path.parent.name != "task":
            values = leaves(yaml.safe_load(path.read_text()) or {})
            found |= {str(value) for key, value in values if key.rsplit(".", 1)[-1] == "_target_"}
    return sorted(target for target in found if target.startswith("capkit."))


def numeric_arguments(target):
    found = signature(target)
    assert found is not None
    for name, argument in found.arguments.items():
        names = {node.id for node in ast.walk(argument.annotation) if isinstance(node, ast.Name)}
        if names & {"int", "float", *ALIASES}:
            yield name, argument.annotation


def wrapped(annotation, value):
    """A number in the shape that an annotation asks for: itself, in a list or in a dict."""
    text = ast.unparse(annotation)
    if "Length(" in text:
        return [value] * int(text.split("Length(")[1].split(")")[0])
    if "Mapping[" in text or "dict[" in text:
        return {"a": value}
    return [value] if "Sequence[" in text or "list[" in text else value


def bare_numbers(node):
    """Whether `int` or `float` stands in an annotation without a range."""
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "Annotated":
        return "Range(" not in ast.unparse(node) and bare_numbers(node.slice.elts[0])
    if isinstance(node, ast.Name):
        return node.id in ("int", "float")
    return any(bare_numbers(child) for child in ast.iter_child_nodes(node))


@pytest.mark.parametrize("target", capkit_targets())
def test_every_number_of_a_constructor_has_a_range(target):
    for name, annotation in numeric_arguments(target):
        label = f"{target.rsplit('.', 1)[1]}.{name}"
        assert not bare_numbers(annotation), f"annotate {label} by a range of capkit.utils.ranges"
        for value in (math.nan, math.inf, -math.inf, 10**26):
            assert not fits(annotation, wrapped(annotation, value)), f"{label} takes {value}"
        takes_negative = fits(annotation, wrapped(annotation, -1)) or fits(annotation, wrapped(annotation, -1.5))
        assert takes_negative == (label in MAY_BE_NEGATIVE), label


@pytest.mark.parametrize("target", capkit_targets())
def test_the_same_ranges_hold_for_calls_from_python(target):
    module, _, name = target.rpartition(".")
    called = getattr(importlib.import_module(module), name)
    for argument, annotation in numeric_arguments(target):
        parameters = inspect.signature(called).parameters
        required = {key: None for key, value in parameters.items() if value.default is value.empty}
        for value in (math.nan, math.inf):
            with pytest.raises(UsageError, match=rf"{argument}: expected .*, got {value}"):
                called(**{**required, argument: wrapped(annotation, value)})


def test_every_top_level_key_of_a_shipped_config_has_a_type():
    objects = {*groups([config_dir()]), "defaults", "hydra", "encoder", "image_encoder"}
    assert yaml.safe_load((config_dir() / "train.yaml").read_text()).keys() - objects == RUN_KEYS.keys()
    for file in (config_dir() / "task").glob("*.yaml"):
        body = yaml.safe_load(file.read_text())
        assert body.keys() - objects - RUN_KEYS.keys() == body["task"].get("keys", {}).keys(), file.name


# --- the mechanism


@check_ranges
class Part:
    def __init__(
        self,
        width: PositiveInt = 1,
        share: Probability | NonNegativeInt = 0.5,
        betas: Annotated[Sequence[DecayRate], Length(2)] = (0.9, 0.99),
        weights: Mapping[str, PositiveFloat] | None = None,
        other: object = None,
    ) -> None:
        self.width = width


@pytest.mark.parametrize(
    "arguments",
    [
        {"width": 3}, {"share": 1}, {"share": 1.0}, {"share": 7}, {"betas": [0, 0.5]}, {"weights": {"a": 0.1}},
        {"weights": None}, {"other": math.nan}, {"width": 2**63 - 1},
    ],
)  # fmt: skip
def test_values_in_range_pass(arguments):
    Part(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0}, "Part: width: expected an integer of at least 1, got 0"),
        ({"width": 1.5}, "Part: width: expected an integer of at least 1, got 1.5"),
        ({"width": 10**5000}, "Part: width: expected an integer of at least 1, got an integer beyond 64 bits"),
        ({"share": 1.5}, "Part: share: expected a finite number from 0 to 1 or an integer of at least 0, got 1.5"),
        ({"betas": [2, 0.9]}, "Part: betas: expected a finite number of at least 0 and less than 1, got 2"),
        ({"betas": [0.9]}, "Part: betas: expected a list of 2, got 1"),
        ({"weights": {"a": 0}}, "Part: weights: expected a finite number greater than 0, got 0"),
    ],
)
def test_values_out_of_range_are_refused_with_name_and_range(arguments, message):
    with pytest.raises(UsageError) as caught:
        Part(**arguments)
    assert str(caught.value) == message


def test_a_wrong_call_is_still_a_type_error():
    with pytest.raises(TypeError, match="hight"):
        Part(hight=1)


def test_a_range_is_told_in_words():
    assert [str(r) for r in (Range(), Range(2), Range(0, 1), Range(above=0, high=1), Range(below=1))] == [
        "", "of at least 2", "from 0 to 1", "greater than 0 and at most 1", "less than 1",
    ]  # fmt: skip
