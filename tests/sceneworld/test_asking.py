import re

import pytest

from capkit.sceneworld.chat.adapting import grade, question_lines, rewritten
from capkit.sceneworld.language.asking import answer_to, questions_about, seen, without
from capkit.sceneworld.language.captions import caption
from capkit.sceneworld.language.facts import scene_facts
from capkit.sceneworld.language.oracles import score_caption
from capkit.sceneworld.language.parser import parse
from capkit.sceneworld.language.writing import UnsayableError
from capkit.sceneworld.world.scene import WorldOptions, make_scene

SCENES = [make_scene(WorldOptions(text_probability=0.5), 0, "train", index) for index in range(30)]
TEXT = (
    "there are two shapes on a white background. a large red circle is in the top left. a small blue circle is in the "
    "center. the red circle is to the left of the blue circle."
)
ANSWERS = {
    "what color is the large circle?": "red", "where is the large circle?": "top left",
    "what size is the circle in the top left?": "large", "what shape is the large thing?": "circle",
    "what color is the small circle?": "blue", "where is the small circle?": "center",
    "what size is the circle in the center?": "small", "what shape is the small thing?": "circle",
    "is the large circle to the left of the small circle?": "yes", "what is the background?": "white",
    "how many shapes are there?": "two",
}  # fmt: skip


def test_there_is_a_question_for_each_fact_that_names_no_object_by_its_colour():
    asked = questions_about(parse(TEXT))
    assert {question: answer_to(question, parse(TEXT)) for question in asked} == ANSWERS


def test_what_can_only_be_named_by_its_colour_is_not_asked_about():
    asked = questions_about(parse("a large red circle and a large blue circle"))
    assert asked == []
    asked = questions_about(parse("a large red circle and a large blue square"))
    assert "what color is the circle?" in asked and not re.search("red|blue", " ".join(asked))


def test_a_scene_states_all_of_its_facts_and_answers_as_its_captions_do():
    for scene in SCENES:
        assert sorted(seen(scene).facts) == sorted(scene_facts(scene))
        said = parse(caption(scene, "dense").text)
        for question in questions_about(said):
            assert answer_to(question, seen(scene)) == answer_to(question, said) is not None, question


def test_a_caption_loses_the_facts_that_are_asked_for_and_no_others():
    for scene in SCENES:
        text = caption(scene, "dense").text
        said = parse(text)
        for kind in ("color", "size", "place"):
            start = {"color": "what color", "size": "what size", "place": "where"}[kind]
            asked = [question for question in questions_about(said) if question.startswith(start)]
            if not asked:
                continue
            left = parse(without(said, asked))
            assert sum(f.startswith(kind) for f in left.facts) == sum(f.startswith(kind) for f in said.facts) - len(
                asked
            )
            score = score_caption(scene, without(said, asked), [])
            assert score.precision == 1.0
            others = [f for f in said.facts if not f.startswith((kind, "left", "above", "inside"))]
            assert sum(not f.startswith((kind, "left", "above", "inside")) for f in left.facts) == len(others)


def test_relations_counts_background_and_text_leave_too():
    asked = [
        "is the large circle to the left of the small circle?",
        "what is the background?",
        "how many shapes are there?",
    ]
    left = parse(without(parse(TEXT), asked))
    assert not left.relations and not left.globals and len(left.mentions) == 2
    assert (
        without(parse("a red circle with the word sun"), ["what is written in the picture?"])
        == "there is a red circle."
    )


@pytest.mark.parametrize("question", ["what color is the star?", "who is it?", "how many hearts are there?"])
def test_a_question_about_nothing_there_has_no_answer(question):
    assert answer_to(question, parse("a red circle")) is None
    assert grade({"caption": "a red circle", "question": question, "answer": "red"}).text is None


def test_nothing_left_is_no_caption():
    with pytest.raises(UnsayableError, match="nothing is left"):
        without(parse("a white background"), ["what is the background?"])
    with pytest.raises(UnsayableError):
        rewritten({"caption": "a white background", "questions": "1. what is the background?"})


def test_the_models_follow_the_prompts():
    assert question_lines({"caption": "a red circle"}).text == "1. what color is the circle?"
    assert question_lines({"caption": "a nice picture"}).text == "none"
    given = {"caption": TEXT, "question": "what color is the large circle?"}
    assert [grade({**given, "answer": said}).text for said in ("red", "blue", "red circle")] == ["3", "1", "1"]
