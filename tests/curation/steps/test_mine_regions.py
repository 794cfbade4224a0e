"""Phrases of captions and the boxes where a detector finds them: by hand, and on SceneWorld against the scene."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from capkit.cli import main
from capkit.curation.steps.mine_regions import FUNCTION_WORDS, MineRegions, phrases_of
from capkit.data.images import BadImage
from capkit.data.records import Caption, Record, read_manifest
from capkit.errors import UsageError
from capkit.experts.base import Finding
from capkit.llm.base import Picture
from capkit.sceneworld.experts import ScenePhraseDetector
from capkit.sceneworld.language.captions import references
from capkit.sceneworld.language.oracles import score_caption
from capkit.sceneworld.world.render import render
from capkit.sceneworld.world.scene import Scene, WorldOptions, make_scene

SCENES = [make_scene(WorldOptions(), 0, "train", index) for index in range(10)]
RECORDS = [
    Record(str(i), captions=[Caption(text) for text in references(scene)[:2]], metadata={"scene": scene.to_dict()})
    for i, scene in enumerate(SCENES)
]


def pixels(key):
    return render(SCENES[int(key)], 32)


def mined(tmp_path, detector, given=RECORDS, read=pixels, **settings):
    failures = []
    step = MineRegions(detector, cache_dir=str(tmp_path / "answers"), **settings)
    step.attach_failures(failures.append)
    step.attach_images(read)
    return list(step(lambda: given)), failures, step


# phrases -------------------------------------------------------------------------------------------------------------


def test_phrases_of_a_caption_by_hand():
    assert phrases_of("A dog with a red ball", 8) == [
        "dog", "dog with a red", "dog with a red ball", "red", "red ball", "ball",
    ]  # fmt: skip
    assert phrases_of("A dog with a red ball", 2) == ["dog", "red", "red ball", "ball"]


@pytest.mark.parametrize("incomplete", ["with a red ball", "dog with", "a", "the dog", "red ball of"])
def test_what_a_function_word_begins_or_ends_is_no_phrase(incomplete):
    assert incomplete not in phrases_of(f"the dog with a red ball of {incomplete} wool", 8)
    assert incomplete in phrases_of(f"xx {incomplete} yy", 8, function_words=())  # the control: without the word list


def test_no_phrase_is_too_long_crosses_a_mark_or_is_named_twice():
    found = phrases_of("one two, three four three four five six seven eight nine ten", 8)
    assert max(len(phrase.split()) for phrase in found) == 8 and len(set(found)) == len(found)
    assert "two three" not in found and "one two" in found and "three four" in found
    assert phrases_of("and the, of!", 8) == [] and "of" in FUNCTION_WORDS


# the step ------------------------------------------------------------------------------------------------------------


class Fixed:
    """Finds every phrase at one box, with a score by its number of words; and something nobody asked for."""

    def __init__(self, scores):
        self.scores, self.asked = scores, []

    def about(self):
        return {"model": "fixed", "scores": self.scores}

    def detect(self, pictures, names):
        self.asked += [list(asked) for asked in names]
        box = (0.0, 0.0, 0.5, 0.5)
        found = [
            [Finding("object", name, box, self.scores[len(name.split()) - 1]) for name in asked] for asked in names
        ]
        return [[*items, Finding("object", "joined words", box, 0.9)] for items in found]


def test_boxes_above_the_score_are_kept_and_counted_by_length(tmp_path):
    given = [Record("0", captions=[Caption("big dog here"), Caption("cão", language="pt")])]
    records, failures, step = mined(tmp_path, Fixed([0.5, 0.1]), given)
    assert [region.text for region in records[0].regions] == ["big", "dog"] and not failures
    assert step.counts | {"cached": 0} == {
        "phrases": 3, "boxes": 2, "words_1": 2, **{f"words_{n}": 0 for n in range(2, 9)},
        "below_score": 1, "other_phrases": 1, "cached": 0, "without_regions": 0,
    }  # fmt: skip


def test_records_without_regions_or_picture_are_listed_and_left_out(tmp_path):
    def read(key):
        if key == "2":
            raise BadImage("empty file (0 bytes)")
        return pixels(key)

    given = [Record(key, captions=[Caption(text)]) for key, text in (("0", "of the"), ("1", "big dog"), ("2", "cat"))]
    records, failures, step = mined(tmp_path, Fixed([0.05, 0.05]), given, read)
    assert records == [] and step.counts["without_regions"] == 2
    assert {failure.key: failure.reason for failure in failures} == {
        "0": "no phrase in its captions", "1": "none of 3 phrases was found", "2": "picture: empty file (0 bytes)",
    }  # fmt: skip


def test_a_run_that_was_stopped_asks_only_for_what_it_had_not(tmp_path):
    first = Fixed([0.5] * 8)
    part, _, _ = mined(tmp_path, first, RECORDS[:4], batch_size=3)
    again = Fixed([0.5] * 8)
    whole, _, step = mined(tmp_path, again, batch_size=5)
    assert step.counts["cached"] == 4 and len(again.asked) == len(RECORDS) - 4 and whole[:4] == part
    rewritten = Fixed([0.5] * 8)
    mined(tmp_path, rewritten, [replace(RECORDS[0], captions=[Caption("big dog")])])
    assert rewritten.asked == [["big", "big dog", "dog"]], "other phrases of the same picture"
    other = Fixed([0.4] * 8)
    mined(tmp_path, other)
    assert len(other.asked) == len(RECORDS), "another detector has found nothing yet"


def test_wrong_settings_are_refused(tmp_path):
    with pytest.raises(UsageError, match="needs a detector"):
        MineRegions()
    with pytest.raises(UsageError, match="min_score"):
        MineRegions(Fixed([]), min_score=1.5, cache_dir=str(tmp_path))


# SceneWorld ----------------------------------------------------------------------------------------------------------


def truth(records):
    """Share of mined texts that are true of the object whose box they have, by the scene; and of those, how many."""
    true = []
    for record in records:
        scene = Scene.from_dict(record.metadata["scene"])
        for region in record.regions:
            distances = [np.abs(np.subtract(item.box, region.box)).max() for item in scene.objects]
            nearest = scene.objects[int(np.argmin(distances))]
            alone = Scene((nearest,), scene.background)
            score = score_caption(alone, region.text, [])
            true.append(score.precision == 1 and not score.num_unparsed and min(distances) < 1e-6)
    return np.mean(true), len(true)


def test_what_the_exact_detector_finds_is_true_and_an_erring_one_is_caught(tmp_path):
    records, failures, step = mined(tmp_path, ScenePhraseDetector())
    share, count = truth(records)
    assert share == 1 and count == step.counts["boxes"] > 60 and not failures
    lengths = Counter(len(region.text.split()) for record in records for region in record.regions)
    assert {n: step.counts[f"words_{n}"] for n in lengths} == dict(lengths) and min(lengths) == 1 and max(lengths) >= 3
    # Every object that a caption names in full is found by that name.
    named = [
        (f"{item.size} {item.color} {item.shape}", item.box, record)
        for record, scene in zip(records, SCENES, strict=True)
        for item in scene.objects
    ]
    found = [any((r.text, r.box) == (name, box) for r in record.regions) for name, box, record in named]
    assert np.mean(found) == 1
    erring, _, _ = mined(tmp_path, ScenePhraseDetector(noise=0.3), given=RECORDS[:3])
    assert truth(erring)[0] < 0.9
    again, _, _ = mined(tmp_path / "other", ScenePhraseDetector(noise=0.3), given=RECORDS[1:2])
    assert again == erring[1:2], "errors are drawn by scene and phrase, whatever else is mined"


def test_a_phrase_about_two_objects_or_with_unknown_words_is_found_nowhere():
    scene = SCENES[0]
    item = scene.objects[0]
    picture = Picture(pixels("0"), {"scene": scene.to_dict()})
    names = [item.shape, f"two {item.shape}s", f"furry {item.shape}", f"{item.shape} left of a {item.shape}"]
    (found,) = ScenePhraseDetector().detect([picture], [names])
    assert {detection.text for detection in found} == {item.shape}


@pytest.mark.integration
def test_shards_by_the_command_line_give_what_one_process_gives(tmp_path):
    words = [
        "curate", "step=[mine_scene_regions]", "data.train.count=12", "data.train.size=32",
        f"data.train.cache_dir={tmp_path / 'scenes'}", f"step.mine_scene_regions.cache_dir={tmp_path / 'answers'}",
    ]  # fmt: skip
    assert main([*words, f"out={tmp_path / 'whole'}"]) == 0
    for shard in (1, 0):
        assert main([*words, f"out={tmp_path / 'parts'}", f"shard={shard}", "num_shards=2"]) == 0
    assert (tmp_path / "whole/train.jsonl").read_bytes() == (tmp_path / "parts/train.jsonl").read_bytes()
    counts, parts = (
        json.loads((tmp_path / name / "train.report.json").read_text())["counts"] for name in ("whole", "parts")
    )
    assert counts["mine_scene_regions/words_2"] > 0 and parts["mine_scene_regions/cached"] == 12
    assert {**counts, "mine_scene_regions/cached": 12} == parts
    assert all(record.regions for record in read_manifest(tmp_path / "whole/train.jsonl"))
