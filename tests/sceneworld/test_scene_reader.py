import pytest

from capkit.errors import UsageError
from capkit.readers.base import ChoiceQuestion, Reader
from capkit.readers.question_sets import shown_as
from capkit.sceneworld.language.captions import caption
from capkit.sceneworld.language.parser import parse
from capkit.sceneworld.language.questions import questions
from capkit.sceneworld.reading import SceneQuestions, SceneReader, answer_from
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.scene import make_scene

TOTAL = "there are three shapes on a white background. "
CAPTION = (
    TOTAL + "a red circle is in the top left. a blue circle is in the top right. a large star is in the bottom right."
)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("how many shapes are there?", "three"),
        ("how many circles are there?", "two"),  # counted: the caption says how many shapes there are in all
        ("how many squares are there?", "zero"),
        ("what color is the circle?", None),  # two, of two colours
        ("what color is the star?", None),
        ("what size is the star?", "large"),
        ("where is the star?", "bottom right"),
        ("what shape is blue?", "circle"),
        ("what shape is green?", None),
        ("is there a blue circle?", "yes"),
        ("is there a green circle?", "no"),
        ("is there a green star?", None),  # the star may be green
        ("is the red circle to the left of the blue circle?", "yes"),  # by their places
        ("is the blue circle to the left of the red circle?", "no"),
        ("is the red circle above the blue circle?", "no"),
        ("is the red circle inside the blue circle?", None),
        ("is the red circle above the green star?", None),
        ("what is the background?", "white"),
        ("what is written in the picture?", None),
        ("why?", None),
    ],
)
def test_what_follows_from_a_caption(question, answer):
    assert answer_from(parse(CAPTION), question) == answer


def test_without_a_total_mentions_are_not_all_there_is():
    said = parse("a red circle and a blue circle")
    assert answer_from(said, "how many circles are there?") is None
    assert answer_from(said, "is there a green circle?") is None
    assert answer_from(said, "is the red circle above the blue circle?") is None
    assert answer_from(parse("a red circle above a blue star"), "is the blue star above the red circle?") == "no"


def test_a_dense_caption_never_gives_a_wrong_answer():
    for index in range(40):
        scene = make_scene(WorldOptions(), 3, "val", index)
        said = parse(caption(scene, "dense").text)
        for question in questions(scene):
            assert answer_from(said, question.text) in (None, question.answer), question


def test_what_is_not_told_is_abstained_or_denied_whatever_the_order():
    reader = SceneReader()
    assert isinstance(reader, Reader)
    yes_no = ChoiceQuestion("is there a red star?", ("yes", "no"))
    ((reading,),) = reader.read([""], [[yes_no]])
    assert yes_no.choices[reading.choice] == "no"
    options = ChoiceQuestion("what color is the star?", ("red", "cannot", "blue"), 1)
    assert reader.read([""], [[options]])[0][0].choice == 1
    assert SceneReader("first").read(["", "a blue star"], [[options], [options]])[0][0].choice == 0
    assert SceneReader("first").read(["a blue star"], [[options]])[0][0].choice == 2


def test_questions_come_from_the_scene():
    scene = make_scene(WorldOptions(), 0, "test", 0)
    items = SceneQuestions().of("0", {"scene": scene.to_dict()})
    assert [item.answer for item in items] == [question.answer for question in questions(scene)]
    assert {item.category for item in items} >= {("count",), ("exists",), ("background",)}
    assert all(len(shown_as(item, "0", 0).choices) <= 26 for item in items)
    with pytest.raises(UsageError, match="need its scenes; '0' has none"):
        SceneQuestions().of("0", {})
