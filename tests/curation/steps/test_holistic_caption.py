import numpy as np
import pytest

from capkit.curation.steps.blend_captions import BlendCaptions
from capkit.curation.steps.holistic_caption import HolisticCaption
from capkit.data.images import BadImage
from capkit.data.records import Caption, Record
from capkit.errors import UsageError
from capkit.llm.base import Answer, Picture, Question
from capkit.sceneworld.language.captions import references
from capkit.sceneworld.language.oracles import score_caption
from capkit.sceneworld.language.parser import parse
from capkit.sceneworld.language.plan import STYLES, make_plan
from capkit.sceneworld.llm import SceneLM, SceneVision
from capkit.sceneworld.world.render import render
from capkit.sceneworld.world.scene import WorldOptions, make_scene

SCENES = [make_scene(WorldOptions(), 0, "train", index) for index in range(80)]
RECORDS = [
    Record(str(i), captions=[Caption(t) for t in references(s)], metadata={"scene": s.to_dict()})
    for i, s in enumerate(SCENES)
]


def read(key):
    return render(SCENES[int(key)], 32)


def boosted(folder, vision, given=RECORDS, read=read, **settings):
    """BlendCap, then HolisticCap: the records and the failures."""
    failures = []
    blend = BlendCaptions(SceneLM(), cache_dir=str(folder))
    holistic = HolisticCaption(SceneLM(), vision, cache_dir=str(folder), **settings)
    for step in (blend, holistic):
        step.attach_failures(failures.append)
    holistic.attach_images(read)
    return list(holistic(lambda: blend(lambda: given))), failures


def scores(records, style):
    """Against the scene, and against what the references (or the dense description) of it state."""
    found = []
    for record in records:
        scene = SCENES[int(record.key)]
        found.append(score_caption(scene, record.captions[-1].text, make_plan(scene, style, STYLES[style]).facts()))
    return found


@pytest.mark.unchecked
def test_what_was_seen_is_added_and_everything_that_was_said_is_kept(tmp_path):
    records, failures = boosted(tmp_path, SceneVision())
    assert len(records) == len(SCENES) and not failures
    assert all(score.precision == 1.0 and score.recall == 1.0 for score in scores(records, "human"))
    assert np.mean([score.recall for score in scores(records, "dense")]) > 0.99
    blended = list(BlendCaptions(SceneLM(), cache_dir=str(tmp_path))(lambda: RECORDS))
    assert np.mean([score.recall for score in scores(blended, "dense")]) < 0.75


@pytest.mark.unchecked
def test_what_contradicts_the_anchor_is_dropped(tmp_path):
    """The references name every object's colour, so each wrong colour that is seen contradicts them.

    A place may go to the wrong one of two circles where their colours were seen wrong: precision is not quite 1. The
    control is the description without an anchor, which keeps its errors.
    """
    vision = SceneVision(wrong=0.5)
    records, failures = boosted(tmp_path, vision)
    assert len(records) == len(SCENES) and not failures
    for record in records:
        named = [(m.shape, *sorted(m.attributes)[:1]) for m in parse(record.captions[0].text).mentions]
        there = [(item.shape, ("color", item.color)) for item in SCENES[int(record.key)].objects]
        assert sorted(named) == sorted(there)
    precisions = [score.precision for score in scores(records, "human")]
    assert np.mean(precisions) > 0.98
    described = vision.ask([Question("Describe.", (_picture(i),)) for i in range(len(SCENES))])
    alone = [score_caption(scene, answer.text, []) for scene, answer in zip(SCENES, described, strict=True)]
    assert np.mean([score.precision for score in alone]) < 0.95


def _picture(index):
    return Picture(read(str(index)), RECORDS[index].metadata)


@pytest.mark.unchecked
def test_an_error_that_nothing_contradicts_stays(tmp_path):
    """The limit of the method: references that name no colour cannot correct one."""
    from capkit.sceneworld.language.captions import Detail

    given = [
        Record(str(i), captions=[Caption(t) for t in references(s, "human", Detail(color=False, relations=1))],
               metadata={"scene": s.to_dict()})
        for i, s in enumerate(SCENES)
    ]  # fmt: skip
    records, _ = boosted(tmp_path, SceneVision(wrong=0.5), given)
    assert np.mean([score.precision for score in scores(records, "human")]) < 0.97


def test_the_new_caption_names_its_prompt_and_both_models(tmp_path):
    (record, *_), _ = boosted(tmp_path, SceneVision(), RECORDS[:2])
    assert [c.source for c in record.captions] == ["holisticcap/holistic_v1/scene_lm/scene_vision"]
    (record, *_), _ = boosted(tmp_path, SceneVision(), RECORDS[:2], keep=True)
    assert [c.source.partition("/")[0] for c in record.captions] == ["blendcap", "holisticcap"]


class Silent:
    """A vision model that has nothing to say about the second picture."""

    def __init__(self):
        self.asked = 0

    def about(self):
        return {"model": "silent"}

    def ask(self, questions):
        self.asked += len(questions)
        return [Answer("  " if self.is_odd(question) else "a white background") for question in questions]

    def is_odd(self, question):
        return question.pictures[0].metadata == RECORDS[1].metadata


def test_a_picture_or_an_answer_that_is_missing_leaves_the_record_out(tmp_path):
    def read_all_but_one(key):
        if key == "2":
            raise BadImage("empty file (0 bytes)")
        return read(key)

    records, failures = boosted(tmp_path, Silent(), RECORDS[:4], read_all_but_one)
    assert [record.key for record in records] == ["0", "3"]
    assert {(f.key, f.step, f.reason) for f in failures} == {
        ("1", "holistic_caption", "unparsable answer: it is empty"),
        ("2", "holistic_caption", "picture: empty file (0 bytes)"),
    }


def test_a_second_run_asks_for_the_failures_alone(tmp_path):
    boosted(tmp_path, Silent(), RECORDS[:4])
    again = Silent()
    records, _ = boosted(tmp_path, again, RECORDS[:4])
    assert again.asked == 1 and len(records) == 3


def test_without_blendcap_there_is_no_anchor(tmp_path):
    step = HolisticCaption(SceneLM(), SceneVision(), cache_dir=str(tmp_path))
    step.attach_images(read)
    with pytest.raises(UsageError, match=r"step=\[blend_captions,holistic_caption\]"):
        list(step(lambda: RECORDS))


def test_it_wants_two_models_and_pictures(tmp_path):
    with pytest.raises(UsageError, match="vision_chat="):
        HolisticCaption(SceneLM(), cache_dir=str(tmp_path))
    step = HolisticCaption(SceneLM(), SceneVision(), cache_dir=str(tmp_path))
    with pytest.raises(UsageError, match="attach_images"):
        list(step(lambda: BlendCaptions(SceneLM(), cache_dir=str(tmp_path))(lambda: RECORDS)))


def test_five_captions_come_from_five_descriptions_each_anchored(tmp_path):
    """Each keeps every fact of the references and adds none that is wrong; together they add more than one alone."""
    vision = SceneVision(omitted=0.5)
    records, failures = boosted(tmp_path, vision, RECORDS[:20], num_captions=5)
    assert len(records) == 20 and not failures
    recalls = []
    for record in records:
        assert len(record.captions) == 5 and {c.source.partition("/")[0] for c in record.captions} == {"holisticcap"}
        scene = SCENES[int(record.key)]
        said = make_plan(scene, "human", STYLES["human"]).facts()
        found = [score_caption(scene, caption.text, said) for caption in record.captions]
        assert all(score.precision == 1.0 and score.recall == 1.0 for score in found)
        recalls.append(len({caption.text for caption in record.captions}))
    assert np.mean(recalls) > 3, "the five differ"


def test_five_descriptions_are_asked_once_each_and_kept_apart(tmp_path):
    first, _ = boosted(tmp_path, SceneVision(omitted=0.5), RECORDS[:3], num_captions=5)
    step = HolisticCaption(SceneLM(), SceneVision(omitted=0.5), cache_dir=str(tmp_path), num_captions=5)
    step.attach_images(read)
    blend = BlendCaptions(SceneLM(), cache_dir=str(tmp_path))
    assert [r.captions for r in step(lambda: blend(lambda: RECORDS[:3]))] == [r.captions for r in first]
    assert step.counts["vision_cached"] == 15 and step.counts["vision_asked"] == 0


class OnceSilent(Silent):
    """Its second sample has nothing to say about the second picture."""

    draws = True

    def is_odd(self, question):
        return super().is_odd(question) and question.sample == 1


def test_a_record_keeps_the_captions_that_succeed(tmp_path):
    records, failures = boosted(tmp_path, OnceSilent(), RECORDS[:4], num_captions=3)
    assert [len(record.captions) for record in records] == [3, 2, 3, 3]
    assert [(f.key, f.reason) for f in failures] == [("1", "unparsable answer: it is empty")]


def test_a_model_that_says_the_same_each_time_is_refused(tmp_path):
    with pytest.raises(UsageError, match="one way only"):
        HolisticCaption(SceneLM(), SceneVision(), cache_dir=str(tmp_path), num_captions=5)
    with pytest.raises(UsageError, match="one way only"):
        HolisticCaption(SceneLM(), Silent(), cache_dir=str(tmp_path), num_captions=5)
