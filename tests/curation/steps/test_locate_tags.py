import numpy as np
import pytest

from capkit.curation.steps.locate_tags import LocateTags
from capkit.data.images import BadImage
from capkit.data.records import Record, Region
from capkit.errors import UsageError
from capkit.experts.base import Finding
from capkit.sceneworld.experts import SceneDetector, SceneTagger
from capkit.sceneworld.world.scene import WorldOptions, make_scene

SCENES = [make_scene(WorldOptions(), 0, "train", index) for index in range(40)]
RECORDS = [Record(str(i), metadata={"scene": scene.to_dict()}) for i, scene in enumerate(SCENES)]


def blank(key):
    return np.zeros((8, 8, 3), np.uint8)


def located(tagger, detector, given=RECORDS, read=blank, **settings):
    failures, step = [], LocateTags(tagger, detector, **settings)
    step.attach_failures(failures.append)
    step.attach_images(read)
    return list(step(lambda: given)), failures, step


def test_every_object_gets_a_region_with_its_name_and_box():
    records, failures, step = located(SceneTagger(), SceneDetector(), batch_size=7)
    assert [record.key for record in records] == [record.key for record in RECORDS] and not failures
    for record, scene in zip(records, SCENES, strict=True):
        assert record.regions == [Region(item.box, item.shape) for item in scene.objects]
    assert step.counts == {"boxes": sum(len(scene.objects) for scene in SCENES), "without_boxes": 0}


class FirstTag(SceneTagger):
    def look(self, pictures):
        return [found[:1] for found in super().look(pictures)]


def test_the_detector_is_asked_for_what_the_tagger_named():
    records, _, _ = located(FirstTag(), SceneDetector())
    for record, scene in zip(records, SCENES, strict=True):
        first = scene.objects[0].shape
        assert record.regions == [Region(item.box, first) for item in scene.objects if item.shape == first]
    assert any(len({item.shape for item in scene.objects}) > 1 for scene in SCENES)


class Nothing(SceneDetector):
    def detect(self, pictures, names):
        return [[Finding("object", "x", (0.0, 0.0, 1.0, 1.0))] if number else [] for number, _ in enumerate(pictures)]


def test_a_picture_without_boxes_is_kept_and_an_unreadable_one_is_listed():
    def read(key):
        if key == "1":
            raise BadImage("empty file (0 bytes)")
        return blank(key)

    old = Region((0.0, 0.0, 0.5, 0.5), "old")
    given = [Record(record.key, regions=[old], metadata=record.metadata) for record in RECORDS[:4]]
    records, failures, step = located(SceneTagger(), Nothing(), given, read)
    assert [(record.key, len(record.regions)) for record in records] == [("0", 0), ("2", 1), ("3", 1)]
    assert [(f.key, f.step, f.reason) for f in failures] == [("1", "locate_tags", "picture: empty file (0 bytes)")]
    assert step.counts == {"boxes": 2, "without_boxes": 1}


def test_it_wants_both_experts_and_pictures():
    with pytest.raises(UsageError, match="a tagger and a detector"):
        LocateTags(SceneTagger())
    with pytest.raises(UsageError, match="attach_images"):
        list(LocateTags(SceneTagger(), SceneDetector())(lambda: RECORDS))
    with pytest.raises(UsageError, match="metadata 'scene'"):
        located(SceneTagger(), SceneDetector(), [Record("0")])


class OldTagger:
    def fingerprint_fields(self):
        return {}

    def tag(self, pictures):
        return [["circle"]] * len(pictures)


@pytest.mark.unchecked
def test_a_tagger_of_before_there_were_findings_is_told_how_to_move():
    with pytest.raises(UsageError, match=r"tagger: expected an object with about and look .* got OldTagger without"):
        LocateTags(OldTagger(), SceneDetector())


def test_what_it_depends_on_is_that_of_both_experts():
    about = LocateTags(SceneTagger(), SceneDetector()).fingerprint_fields()
    assert about == {
        "tagger": SceneTagger().about(), "detector": SceneDetector().about(),
    }  # fmt: skip
