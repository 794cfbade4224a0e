"""Look-alike bags and views."""

from itertools import combinations

import numpy as np
import pytest

from capkit.errors import UsageError
from capkit.sceneworld.language.facts import scene_facts
from capkit.sceneworld.world.bags import ATTRIBUTES, look_alikes, sample_bag, views
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.render import masks, render
from capkit.sceneworld.world.scene import Scene, make_scene, split_of

OPTIONS = WorldOptions(text_probability=0.5)


def described(scene: Scene) -> list[tuple]:
    """All that a caption can name, as a sorted list of objects and one entry for the rest."""
    objects = sorted((o.cell, o.inside is not None, o.shape, o.color, o.size) for o in scene.objects)
    return [*objects, (scene.background,), (scene.text.word if scene.text else "",)]


def differences(a: Scene, b: Scene, attribute: str) -> int:
    """How many single values differ."""
    if attribute == "place":
        left, right = described(a), described(b)
        moved = [x for x in left if x not in right], [x for x in right if x not in left]
        assert len(moved[0]) == len(moved[1]) == 1 and moved[0][0][1:] == moved[1][0][1:]
        return 1
    return sum(x != y for p, q in zip(described(a), described(b), strict=True) for x, y in zip(p, q, strict=True))


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_members_of_a_bag_differ_pairwise_in_that_attribute_alone(attribute: str) -> None:
    k = 2 if attribute == "size" else 3
    for index in range(8):
        bag = sample_bag(OPTIONS, 0, "train", index, k, attribute)
        assert bag.attribute == attribute and len(bag.scenes) == k
        for a, b in combinations(bag.scenes, 2):
            assert differences(a, b, attribute) == 1
            assert (render(a) != render(b)).any()
            assert set(scene_facts(a)) != set(scene_facts(b))


@pytest.mark.parametrize(("split", "k"), [("train", 7), ("val", 5), ("test", 3), ("holdout", 5)])
def test_a_bag_stays_within_its_split(split: str, k: int) -> None:
    for index in range(4):
        bag = sample_bag(WorldOptions(), 0, split, index, k)
        assert {split_of(scene) for scene in bag.scenes} == {split}
        assert bag == sample_bag(WorldOptions(), 0, split, index, k)


def test_members_are_scenes_that_could_have_been_drawn() -> None:
    for index in range(30):
        for scene in sample_bag(OPTIONS, 1, "train", index, 3).scenes:
            cells = [item.cell for item in scene.objects]
            assert cells == sorted(cells)
            layers = masks(scene)
            assert layers.sum(axis=0).max() == 1 and layers.any(axis=(1, 2)).all()
            for i, item in enumerate(scene.objects):
                if item.inside is not None:
                    outer = scene.objects[item.inside]
                    assert item.inside == i - 1 and outer.color != item.color and outer.cell == item.cell
                    assert outer.shape in ("circle", "square") and outer.size == "large" and item.size == "small"


def test_look_alikes_start_with_the_scene_and_say_when_there_are_too_few() -> None:
    scene = make_scene(WorldOptions(min_objects=3), 0, "train", 0)
    found = look_alikes(scene, 3, "color")
    assert found[0] == scene and len(set(found)) == 3
    assert look_alikes(scene, 8, "color", same_split=False)[0] == scene
    with pytest.raises(UsageError, match="sample_bag"):
        look_alikes(scene, 4, "size", same_split=False)
    with pytest.raises(UsageError, match="did you mean 'color'"):
        look_alikes(scene, 3, "colour")
    with pytest.raises(UsageError, match="at least one"):
        look_alikes(scene, 0)


def test_views_are_reproducible_and_of_the_kinds_asked_for() -> None:
    scene = make_scene(WorldOptions(), 0, "train", 3)
    first, second = views(scene, 6), views(scene, 6)
    assert [view.kind for view in first] == ["crop", "occlusion", "jitter"] * 2
    assert all((a.pixels == b.pixels).all() for a, b in zip(first, second, strict=True))
    assert len({view.pixels.tobytes() for view in first}) == 6
    assert all(view.pixels.shape == (96, 96, 3) for view in views(scene, 3, size=96))
    with pytest.raises(UsageError, match="did you mean 'crop'"):
        views(scene, 2, kinds=["corp"])


def test_visible_shares_agree_with_the_pixels() -> None:
    for index in range(40):
        scene = make_scene(WorldOptions(inside_probability=0.0), 0, "train", index)
        for view in views(scene, 3, seed=index):
            assert len(view.visible) == len(scene.objects) and all(0 <= share <= 1 for share in view.visible)
            if view.kind == "occlusion":
                same = (view.pixels == render(scene)).all(axis=2)
                expected = [(layer & same).sum() / layer.sum() for layer in masks(scene)]
                assert view.visible == pytest.approx(expected)


def test_a_crop_shows_its_box_enlarged() -> None:
    scene = make_scene(WorldOptions(), 0, "train", 1)
    view = views(scene, 1, kinds=["crop"])[0]
    left, top, right, bottom = (round(64 * value) for value in view.box)
    part = render(scene)[top:bottom, left:right]
    assert (view.pixels[0, 0] == part[0, 0]).all() and (view.pixels[-1, -1] == part[-1, -1]).all()
    assert {tuple(p) for p in view.pixels.reshape(-1, 3).tolist()} == {tuple(p) for p in part.reshape(-1, 3).tolist()}


def test_jitter_keeps_the_picture_but_for_light_and_two_pixels() -> None:
    scene = make_scene(WorldOptions(backgrounds=["gray"]), 0, "train", 2)
    view = views(scene, 1, kinds=["jitter"])[0]
    dx, dy = round(64 * view.box[0]), round(64 * view.box[1])
    assert abs(dx) <= 2 and abs(dy) <= 2
    inner = render(scene)[4 + dy : 60 + dy, 4 + dx : 60 + dx].astype(float)
    gain = view.pixels[4:60, 4:60].astype(float).sum() / inner.sum()
    assert 0.7 < gain < 1.3
    expected = np.clip(inner * gain, 0, 255)
    assert np.abs(view.pixels[4:60, 4:60] - expected).mean() < 8
