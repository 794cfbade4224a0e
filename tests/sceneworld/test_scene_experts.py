"""SceneWorld's experts: exact, and with shares of wrong and missing findings whose scores are lower."""

import numpy as np
import pytest

from capkit.errors import UsageError
from capkit.experts.base import Expert
from capkit.experts.choosing import by_object
from capkit.llm.base import Picture
from capkit.sceneworld.experts import SceneObjects, SceneOCR
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.render import render
from capkit.sceneworld.world.scene import make_scene

SCENES = [make_scene(WorldOptions(text_probability=0.5), 0, "train", index) for index in range(300)]
PICTURES = [Picture(np.zeros((64, 64, 3), np.uint8), {"scene": scene.to_dict()}) for scene in SCENES]


def test_without_errors_every_object_has_its_box_colour_and_size():
    expert = SceneObjects()
    assert isinstance(expert, Expert)
    for scene, found in zip(SCENES, expert.look(PICTURES), strict=True):
        objects, rest = by_object(found)
        seen = [(o.finding.text, o.finding.box, [a.text for a in o.attributes]) for o in objects]
        assert seen == [(item.shape, item.box, [item.color, item.size]) for item in scene.objects] and not rest
        assert all(0.6 <= item.score < 1 and item.expert == "scene_detector" for item in found)


def test_the_word_is_read_and_its_box_holds_what_is_drawn_and_nothing_else():
    """The picture with the word differs from the one without it in this box alone, up to its edges."""
    num_words = 0
    for scene, found in zip(SCENES, SceneOCR().look(PICTURES), strict=True):
        assert [item.text for item in found] == ([] if scene.text is None else [scene.text.word])
        for item in found:
            num_words += 1
            without = render(type(scene)(scene.objects, scene.background), 64)
            rows, columns = np.nonzero((render(scene, 64) != without).any(-1))
            drawn = (columns.min() / 64, rows.min() / 64, (columns.max() + 1) / 64, (rows.max() + 1) / 64)
            assert item.box[0] <= drawn[0] and item.box[1] == drawn[1]
            assert item.box[2] >= drawn[2] and item.box[3] == drawn[3]
            assert item.box[2] - item.box[0] == pytest.approx((6 * len(item.text) - 1) / 64)
    assert num_words > 100


def shares(expert):
    """Of all objects: the share that is missing; of found ones, the share that is wrong; scores of wrong and true."""
    missing, wrong, scores = [], [], {True: [], False: []}
    for scene, found in zip(SCENES, expert.look(PICTURES), strict=True):
        objects = {o.finding.box: o for o in by_object(found)[0]}
        missing += [item.box not in objects for item in scene.objects]
        for item in scene.objects:
            if item.box in objects:
                seen = objects[item.box]
                true = (seen.finding.text, [a.text for a in seen.attributes]) == (item.shape, [item.color, item.size])
                wrong.append(not true)
                scores[not true].append(seen.finding.score)
    return np.array(missing), np.array(wrong), scores


def test_shares_of_wrong_and_missing_findings_are_those_that_were_set_and_wrong_ones_are_less_sure():
    missing, wrong, scores = shares(SceneObjects(wrong=0.2, missing=0.1))
    assert abs(missing.mean() - 0.1) < 3 * np.sqrt(0.09 / len(missing))
    assert abs(wrong.mean() - 0.2) < 3 * np.sqrt(0.16 / len(wrong))
    assert (
        max(scores[True]) < 0.7 and min(scores[False]) >= 0.6 and np.mean(scores[True]) < np.mean(scores[False]) - 0.2
    )
    assert not shares(SceneObjects())[0].any() and not shares(SceneObjects())[1].any()


def test_half_of_the_wrong_ones_have_another_shape_and_half_another_colour():
    kinds = []
    for scene, found in zip(SCENES, SceneObjects(wrong=1.0).look(PICTURES), strict=True):
        for item, seen in zip(scene.objects, by_object(found)[0], strict=True):
            color, size = (a.text for a in seen.attributes)
            assert size == item.size and (seen.finding.text == item.shape) != (color == item.color)
            kinds.append(color == item.color)
    assert abs(np.mean(kinds) - 0.5) < 3 * np.sqrt(0.25 / len(kinds))


def test_objects_of_one_scene_err_each_by_itself():
    """At a half, most scenes with two objects or more have true and wrong findings; none do where all err at once."""
    mixed = []
    for scene, found in zip(SCENES, SceneObjects(wrong=0.5).look(PICTURES), strict=True):
        pairs = zip(scene.objects, by_object(found)[0], strict=True)
        true = {seen.finding.text == item.shape and seen.attributes[0].text == item.color for item, seen in pairs}
        if len(scene.objects) >= 2:
            mixed.append(len(true) == 2)
    assert np.mean(mixed) > 0.6


def test_errors_are_drawn_by_seed_scene_and_object_whatever_the_batch():
    expert = SceneObjects(wrong=0.5, missing=0.2)
    whole = expert.look(PICTURES)
    assert [expert.look([picture])[0] for picture in PICTURES[:20]] == whole[:20]
    assert SceneObjects(wrong=0.5, missing=0.2, seed=1).look(PICTURES) != whole


def test_a_wrong_word_differs_in_one_letter():
    wrong = [
        (scene.text.word, found[0].text, found[0].score)
        for scene, found in zip(SCENES, SceneOCR(wrong=1.0).look(PICTURES), strict=True)
        if scene.text is not None
    ]
    for word, read, score in wrong:
        assert len(word) == len(read) and sum(a != b for a, b in zip(word, read, strict=True)) == 1 and score < 0.7
    assert not any(SceneOCR(missing=1.0).look(PICTURES))


def test_other_data_and_shares_above_one_are_refused():
    with pytest.raises(UsageError, match="expert=scene_detector needs SceneWorld's metadata 'scene'"):
        SceneObjects().look([Picture(np.zeros((8, 8, 3), np.uint8))])
    with pytest.raises(UsageError, match="wrong: expected a finite number from 0 to 1"):
        SceneOCR(wrong=1.5)
    abouts = [SceneObjects(), SceneObjects(wrong=0.1), SceneObjects(missing=0.1), SceneObjects(seed=1), SceneOCR()]
    assert len({str(expert.about()) for expert in abouts}) == 5
