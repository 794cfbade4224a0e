"""Captions that a question asks for: true, brief, and with no answer in what asks for them."""

from capkit.sceneworld.language.oracles import score_caption
from capkit.sceneworld.language.parser import parse
from capkit.sceneworld.reading import SceneQuestions, answer_from
from capkit.sceneworld.sources.guided_captions import GuidedCaptions
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.options import COLORS, SHAPES, WorldOptions
from capkit.sceneworld.world.scene import Scene
from capkit.text.asked import GENERIC

WORLD = WorldOptions(min_objects=3, max_objects=4)


def records(asked=None, count=40):
    source = GuidedCaptions(SceneWorld("test", count, 32, style="short", options=WORLD), asked)
    return [source.record(index) for index in range(len(source))]


def scene_of(record):
    return Scene.from_dict(record.metadata["scene"])


def test_a_picture_has_a_true_caption_of_six_words_at_most_for_each_question_and_a_generic_one():
    for record in records():
        *guided, generic = record.captions
        assert generic.prompt == GENERIC
        for caption in record.captions:
            assert len(caption.text.split()) <= 6
            assert score_caption(scene_of(record), caption.text, record.metadata["stated_facts"]).precision == 1
        for caption in guided:
            question = caption.prompt.rpartition(": ")[2]
            (item,) = SceneQuestions().of(record.key, {**record.metadata, "asked": question})
            assert answer_from(parse(caption.text), question) == item.answer


def test_a_question_asks_for_one_caption_by_itself_by_another_or_by_none():
    own, other, generic = (records(asked) for asked in ("own", "other", "generic"))
    assert [r.key for r in own] == [r.key for r in other] == [r.key for r in generic] and own[0].key.endswith("?0")
    for first, second, third in zip(own, other, generic, strict=True):
        (item,) = SceneQuestions().of(first.key, first.metadata)
        assert first.captions[0].prompt.endswith(item.question) and third.captions[0].prompt == GENERIC
        asked = second.captions[0].prompt.rpartition(": ")[2]
        assert asked != item.question
        named = {word for text in (asked, item.question) for word in text.rstrip("?").split()}
        objects = [o for o in scene_of(first).objects if {o.color, o.shape} & named]
        assert len(objects) > 1  # two questions about one object would have one caption
        # The metric asks this question alone; without "asked" all of the scene's.
        assert len(SceneQuestions().of(first.key, {"scene": first.metadata["scene"]})) > 1


def test_no_answer_is_in_reach_of_a_captioner_that_is_asked():
    """A prompt has the question's words; of colours and shapes only the one by which the object is named."""
    for record in records("own"):
        words = set(record.captions[0].prompt.rstrip("?").split())
        assert len(words & {*COLORS, *SHAPES}) == 1
        (item,) = SceneQuestions().of(record.key, record.metadata)
        assert item.answer not in words
