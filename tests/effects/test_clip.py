"""CLIP (Radford et al. 2021) on SceneWorld: it finds held-out pictures, and names shapes in colours that it never saw
them in.

What is right comes from the scenes: which picture a caption was written for, and an object's colour and shape. A reader
of colours alone is right in one picture of six, since there are six shapes: eight times the chance of 1/48 among all
combinations. So shapes are counted by themselves, and in each of the four combinations that no training picture has.
How many pixels of a colour there are tells most large shapes apart: one trained on pixels in a drawn order names .76 of
them (seed 0; .78 as it is). These tests do not tell form from area.

Controls, which must miss the thresholds: the encoder before its first step; one trained on pictures of scattered pixels
(it sees colours alone); one trained on captions that name random shapes (all else in them is right).
"""

import json
from collections import defaultdict

import pytest

from capkit.run.folder import RunFolder
from capkit.sceneworld.world.scene import WorldOptions

pytestmark = pytest.mark.effect

COLOR, SHAPE, EACH = 0.9, 0.6, 1 / 3  # a reader of colours alone is right in one of six, up to .46 by luck
SHORT = ["max_steps=300", "val_every=300", "controls=0", "evaluator=[zero_shot_holdout]"]  # until colours are read
SOURCES = ("data.train", "evaluator.zero_shot_holdout.source")
NO_SHAPES = [f"{source}._target_=scene_controls.ColorsOnly" for source in SOURCES]
WRONG_SHAPES = ["data.train._target_=scene_controls.ShapesShuffled"]


def numbers_of(run):
    return RunFolder(run).metrics()


def right_by_combination(run):
    """Share of the pictures of each held-out combination that are named as it, among all 48."""
    right = defaultdict(list)
    for line in (run / "predictions" / "test" / "zero_shot_holdout.jsonl").read_text().splitlines():
        row = json.loads(line)
        right[row["label"]].append(row["label"] == row["prediction"])
    assert set(right) == {f"{color} {shape}" for shape, color in WorldOptions().holdout}
    return {name: sum(values) / len(values) for name, values in right.items()}


@pytest.mark.parametrize("way", ["t2i", "i2t"])
def test_most_captions_find_their_picture_among_100(clip_runs, seed, way, measured):
    numbers, name = numbers_of(clip_runs(seed)), f"retrieval_fold100_{way}_r1"
    assert measured("R@1", numbers[f"test/{name}"], ">", 0.6)
    assert not measured("R@1", numbers[f"test/untrained/{name}"], ">", 0.6, control="untrained")


def test_colours_and_shapes_that_were_never_seen_together_are_both_named(clip_runs, seed, measured):
    """Yellow circles, green squares, red triangles and blue stars are in no training picture."""
    numbers, found = numbers_of(clip_runs(seed)), right_by_combination(clip_runs(seed))
    assert measured("colour", numbers["test/zero_shot_holdout_color"], ">", COLOR)
    assert measured("shape", numbers["test/zero_shot_holdout_shape"], ">", SHAPE)
    assert measured("worst combination", min(found.values()), ">", EACH), found
    for part, threshold in (("color", COLOR), ("shape", SHAPE)):
        of_untrained = numbers[f"test/untrained/zero_shot_holdout_{part}"]
        assert not measured(part.replace("color", "colour"), of_untrained, ">", threshold, control="untrained")


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(NO_SHAPES, id="pictures without shapes", marks=pytest.mark.nightly),
        pytest.param(WRONG_SHAPES, id="captions with random shapes"),
    ],
)
def test_neither_colours_alone_nor_wrong_shapes_in_captions_name_the_combinations(clip_runs, seed, words, measured):
    run = clip_runs(seed, *SHORT, *words)
    numbers, found = numbers_of(run), right_by_combination(run)
    color, shape = (numbers[f"test/zero_shot_holdout_{part}"] for part in ("color", "shape"))
    assert measured("colour", color, ">", COLOR), "the control reads what is left"
    assert not measured("shape", shape, ">", SHAPE, control="without shapes")
    assert not measured("worst combination", min(found.values()), ">", EACH, control="without shapes"), found
