import math

import pytest

from capkit.errors import UsageError
from capkit.sceneworld.language.captions import references
from capkit.sceneworld.metrics.fact_kinds import FactKinds
from capkit.sceneworld.world.scene import Scene, SceneObject, WorldOptions, make_scene


def two(first, second):
    """Two large objects side by side, named as "red circle"."""
    (a, b), (c, d) = first.split(), second.split()
    return Scene((SceneObject(b, a, "large", 1 / 6, 0.5), SceneObject(d, c, "large", 5 / 6, 0.5)), "white")


def score(captions, scenes, **options):
    return FactKinds(**options).score(captions, [[] for _ in captions], [{"scene": s.to_dict()} for s in scenes])


def test_shares_by_hand():
    """Four objects in two pictures. Colours said: red (right), red (wrong) and none; shapes: 3 of 4 right."""
    scenes = [two("red circle", "blue square"), two("green star", "pink cross")]
    numbers = score(["a red circle and a red square", "a star and a circle"], scenes)
    assert numbers["color_said"] == 1 / 2
    assert numbers["color_recall"] == 1 / 4
    assert numbers["color_precision"] == 1 / 2
    assert numbers["shape_said"] == 1
    assert numbers["shape_recall"] == numbers["shape_precision"] == 3 / 4


def test_colors_belong_to_their_nouns():
    """Both colours are in the picture, on the other object."""
    numbers = score(["a blue circle and a red square"], [two("red circle", "blue square")])
    assert (numbers["color_recall"], numbers["shape_recall"]) == (0, 1)


def test_an_object_counts_once():
    numbers = score(["a red circle and a red circle"], [two("red circle", "blue square")])
    assert (numbers["color_recall"], numbers["color_precision"]) == (1 / 2, 1 / 2)


@pytest.mark.parametrize(("style", "kinds"), [("human", ("size", "color")), ("dense", ("place",))])
def test_the_grammars_own_captions_are_right(style, kinds):
    scenes = [make_scene(WorldOptions(inside_probability=0.0), 0, "val", i) for i in range(20)]
    numbers = score([references(scene, style)[0] for scene in scenes], scenes, kinds=kinds)
    for kind in kinds:
        assert numbers[f"{kind}_recall"] == numbers[f"{kind}_precision"] == 1


def test_backgrounds_count_once_a_picture():
    """`two` draws on white."""
    scenes = [two("red circle", "blue square")] * 3
    texts = ["a circle on a white background", "a circle on a black background", "a circle"]
    numbers = score(texts, scenes, kinds=("background",))
    assert numbers["background_said"] == pytest.approx(2 / 3)
    assert numbers["background_recall"] == pytest.approx(1 / 3) and numbers["background_precision"] == 1 / 2


def test_where_no_color_is_said_its_precision_is_unknown():
    numbers = score(["a circle and a square"], [two("red circle", "blue square")])
    assert numbers["color_said"] == numbers["color_recall"] == 0 and math.isnan(numbers["color_precision"])


def test_wrong_use_is_refused():
    with pytest.raises(UsageError, match="did you mean 'color'"):
        FactKinds(kinds=["colour"])
    with pytest.raises(UsageError, match="at least one"):
        FactKinds(kinds=[])
    with pytest.raises(UsageError, match="needs metadata 'scene'"):
        FactKinds().score(["a circle"], [[]], [{}])
