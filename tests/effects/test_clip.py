"""CLIP (Radford et al. 2021) on SceneWorld: it finds held-out pictures, and names combinations it never saw together.

What is right comes from the scenes: which picture a caption was written for, and an object's colour and shape. The
control is the same encoder before its first step.
"""

import pytest

from capkit.run.folder import RunFolder

pytestmark = pytest.mark.effect


@pytest.fixture(scope="module")
def numbers(sceneworld_clip):
    return RunFolder(sceneworld_clip).metrics()


@pytest.mark.parametrize("way", ["t2i", "i2t"])
def test_most_captions_find_their_picture_among_100(numbers, way):
    name = f"retrieval_fold100_{way}_r1"
    assert numbers[f"test/{name}"] > 0.6  # seen: 0.88
    assert numbers[f"test/untrained/{name}"] < 0.6


def test_combinations_never_seen_together_are_named(numbers):
    """Yellow circles, green squares, red triangles and blue stars are in no training picture."""
    chance = numbers["test/zero_shot_holdout_chance"]
    assert chance == pytest.approx(1 / 48)
    assert numbers["test/zero_shot_holdout_top1"] > 3 * chance  # seen: 0.23, eleven times chance
    assert numbers["test/untrained/zero_shot_holdout_top1"] < 3 * chance
