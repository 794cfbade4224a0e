"""Pointing: whose cells count, worked out by hand on a grid of 8 x 8."""

import math

import numpy as np
import pytest

from capkit.errors import UsageError
from capkit.sceneworld.metrics.pointing import centres_on_objects, pointing
from capkit.sceneworld.world.render import masks
from capkit.sceneworld.world.scene import Scene, SceneObject


def two(first, second):
    """Large objects at the left and at the right."""
    left, right = (SceneObject(shape, "red", "large", x, 0.5) for shape, x in ((first, 1 / 6), (second, 5 / 6)))
    return Scene((left, right), "white")


SCENE, TWINS = two("square", "circle"), two("circle", "circle")
ON_SQUARE, ON_CIRCLE, NOWHERE = (3, 1), (3, 6), (0, 4)


def looks(*cells, side=8):
    """Attention whose strongest cell is given, for each word."""
    shares = np.full((len(cells), side, side), 0.5 / side**2)
    for word, cell in enumerate(cells):
        shares[(word, *cell)] += 0.5
    return shares


def test_nouns_that_look_at_their_object_hit():
    found = pointing(
        [["a", "red", "square", "a", "circle"]], [looks(NOWHERE, NOWHERE, ON_SQUARE, NOWHERE, ON_CIRCLE)], [SCENE]
    )
    assert (found["pointing"], found["pointing_others"], found["pointing_nouns"]) == (1, 0, 2)


def test_the_object_of_another_noun_is_no_hit():
    found = pointing([["square", "circle"]], [looks(ON_CIRCLE, NOWHERE)], [SCENE])
    assert (found["pointing"], found["pointing_others"]) == (0, 0.5)


def test_chance_is_the_objects_share_of_the_cells():
    """Centres at (i + .5) / 8: the square's columns 0 (.0625) to 1 (.1875), rows 3 and 4; so 4 of 64."""
    found = pointing([["square"]], [looks(NOWHERE)], [SCENE])
    side = SCENE.objects[0].extent
    columns = sum(1 / 6 - side / 2 <= (i + 0.5) / 8 < 1 / 6 + side / 2 for i in range(8))
    rows = sum(0.5 - side / 2 <= (i + 0.5) / 8 < 0.5 + side / 2 for i in range(8))
    assert found["pointing_chance"] == columns * rows / 64 == 4 / 64


def test_captions_are_counted_by_their_nouns_and_each_noun_by_its_own_word():
    found = pointing(
        [["square"], ["circle", "and", "Square"]], [looks(ON_SQUARE), looks(ON_CIRCLE, ON_SQUARE, NOWHERE)], [SCENE] * 2
    )
    assert found["pointing"] == pytest.approx(2 / 3) and found["pointing_nouns"] == 3


def test_nouns_without_one_object_do_not_count():
    found = pointing([["circle", "star"]], [looks(ON_CIRCLE, ON_CIRCLE)], [TWINS])
    assert found["pointing_nouns"] == 0 and math.isnan(found["pointing"]) and math.isnan(found["pointing_chance"])


def test_words_of_another_language():
    found = pointing([["um", "quadrado"]], [looks(NOWHERE, ON_SQUARE)], [SCENE], nouns={"quadrado": "square"})
    assert found["pointing"] == found["pointing_nouns"] == 1


@pytest.mark.parametrize("side", [2, 7, 8, 14, 16])
def test_centres_are_those_of_the_cells(side):
    """Against a drawing 9 times as fine, but for cells whose centre lies on an edge."""
    fine = masks(SCENE, 9 * side * 8)[:, 36::72, 36::72]
    assert (centres_on_objects(SCENE, side) == fine).mean() > 0.97


def test_every_caption_needs_its_scene():
    with pytest.raises(UsageError, match="for each caption, got 1, 1 and 2"):
        pointing([["square"]], [looks(ON_SQUARE)], [SCENE, SCENE])
