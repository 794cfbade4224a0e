"""Views of one object: it can be seen in each, each differs, and they follow one another as one group."""

import numpy as np
import pytest

from capkit.curation.groups import groups
from capkit.data.fingerprint import fingerprint
from capkit.errors import UsageError
from capkit.llm.base import Picture, Question
from capkit.sceneworld.language.oracles import score_caption
from capkit.sceneworld.language.parser import parse
from capkit.sceneworld.llm import SceneVision
from capkit.sceneworld.sources.object_views import ObjectViews
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.object_views import object_view
from capkit.sceneworld.world.options import COLORS, WorldOptions
from capkit.sceneworld.world.scene import Scene, make_scene

WORLD = WorldOptions(max_objects=1, inside_probability=0.0)
SCENES = [make_scene(WORLD, 0, "train", index) for index in range(40)]


def test_each_view_shows_most_of_the_object_in_its_colour_up_to_brightness():
    """Brightness scales all channels alike (and cuts at 255): the object's pixels have the colour's hue."""
    for scene in SCENES:
        color = np.array(COLORS[scene.objects[0].color], float)
        for number in range(6):
            view = object_view(scene, 0, number, size=32)
            pixels = view.pixels.reshape(-1, 3).astype(float)
            scales = np.linspace(0.75, 1.25, 51)[:, None, None]
            near = np.abs(pixels - np.minimum(scales * color, 255)).max(-1).min(0) <= 3
            assert view.visible >= 0.6 and near.sum() >= 40


def test_what_can_be_seen_is_what_the_crop_and_the_patch_leave():
    """Of a square, by its geometry: its box less the occluder's rectangle less what lies outside of the crop."""
    squares = [s for s in SCENES if s.objects[0].shape == "square"]
    assert len(squares) >= 3
    for scene in squares:
        x0, y0, x1, y1 = scene.objects[0].box
        for number in range(6):
            view = object_view(scene, 0, number)
            shown = (min(x1, view.box[2]) - max(x0, view.box[0])) * (min(y1, view.box[3]) - max(y0, view.box[1]))
            share = shown / ((x1 - x0) * (y1 - y0))
            assert share - 0.45**2 - 0.05 <= view.visible <= share + 0.02
            assert view.visible < 1, "each view hides a part"


def test_views_differ_and_are_the_same_every_time():
    first, again = ([object_view(SCENES[0], 0, n).pixels for n in range(6)] for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({pixels.tobytes() for pixels in first}) == 6
    assert not np.array_equal(object_view(SCENES[0], 0, 0, seed=1).pixels, first[0])
    with pytest.raises(UsageError, match="expected the index of one of 1 objects, got 1"):
        object_view(SCENES[0], 1, 0)


def test_the_source_gives_groups_of_views_with_the_objects_own_facts():
    scenes = SceneWorld("train", 10, options=WorldOptions(min_objects=2))
    source = ObjectViews(scenes, num_views=4, size=32)
    records = [source.record(index) for index in range(len(source))]
    assert [len(group) for group in groups(records, "x")] == [4] * 10
    assert len({record.key for record in records}) == 40
    for index, record in enumerate(records):
        scene, whole = (Scene.from_dict(r.metadata["scene"]) for r in (record, scenes.record(index // 4)))
        (item,) = scene.objects
        assert (item.shape, item.color) == (whole.objects[0].shape, whole.objects[0].color)
        assert record.object == f"train-{index // 4}" and record.metadata["view"] == index % 4
        for caption in record.captions:
            score = score_caption(scene, caption.text, record.metadata["stated_facts"])
            assert (score.precision, score.recall) == (1.0, 1.0)
        view = object_view(whole, 0, index % 4, 32)
        assert np.array_equal(source.image(index), view.pixels) and record.metadata["visible"] == view.visible
    assert fingerprint(source) != fingerprint(ObjectViews(scenes, num_views=5, size=32))


@pytest.mark.integration
def test_a_model_that_errs_errs_in_each_view_by_itself():
    """30 % wrong colours a view: views of one object disagree, and a plurality of six is right nearly always."""
    source = ObjectViews(SceneWorld("train", 80, options=WORLD), size=32)
    records = [source.record(index) for index in range(len(source))]
    blank = np.zeros((8, 8, 3), np.uint8)
    questions = [Question("Describe.", (Picture(blank, record.metadata),)) for record in records]
    said = [parse(answer.text).mentions[0].attributes for answer in SceneVision(wrong=0.3).ask(questions)]
    right = np.array([
        ("color", record.metadata["scene"]["objects"][0]["color"]) in attributes
        for record, attributes in zip(records, said, strict=True)
    ]).reshape(80, 6)  # fmt: skip
    assert abs(right.mean() - 0.7) < 3 * np.sqrt(0.21 / right.size)
    assert 0.05 < (right.sum(1) == 6).mean() < 0.3  # .7^6 = .12 where each errs by itself; .7 where all err at once
    assert (right.sum(1) >= 3).mean() > 0.85
