"""Questions as models write them: options' own letters, answers that are none of the options, a taxonomy's leaves."""

import json

import numpy as np
import pytest

from capkit.curation.questions import Split, written_item
from capkit.curation.steps.ask_questions import AskQuestions, leaves
from capkit.data.images import BadImage
from capkit.data.records import Record
from capkit.errors import UsageError
from capkit.llm.base import Answer
from capkit.llm.ledger import Ledger
from capkit.readers.question_rows import Item
from capkit.sceneworld.llm import SceneVision
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.render import render
from capkit.sceneworld.world.scene import make_scene

GRAY = np.zeros((4, 4, 3), np.uint8)


class Writer:
    """Says what stands for the category that it is asked about, or `said` where there is none."""

    takes_pictures = True

    def __init__(self, said=None, **by_category):
        self.said, self.by_category, self.asked = said, by_category, []

    def about(self):
        return {"model": "writer"}

    def ask(self, questions):
        self.asked += questions
        return [Answer(**self._answer(question.text)) for question in questions]

    def _answer(self, text):
        category = text.rpartition("[category]\n")[2].strip()
        said = self.by_category.get(category.partition(":")[0].split(" > ")[-1], self.said)
        return said if isinstance(said, dict) else {"text": said}


def reply(*rows):
    keys = ("question", "choices", "answer")
    return json.dumps({"questions": [dict(zip(keys, row, strict=True)) for row in rows]})


def run(folder, model, records=None, read=lambda key: GRAY, **settings):
    failures = []
    step = AskQuestions(model, cache_dir=str(folder / "answers"), **settings)
    step.attach_failures(failures.append)
    step.attach_images(read)
    return list(step(lambda: records or [Record("0")])), failures, step


def row(choices, answer):
    return {"question": "what color?", "choices": choices, "answer": answer}


@pytest.mark.parametrize(
    ("choices", "answer", "expected"),
    [
        (["red", "Blue"], "Blue", (("red", "Blue"), "Blue")),
        (["A) Blue", "B) red"], "Blue", (("Blue", "red"), "Blue")),  # the text, not the letter B
        (["A) Blue", "B) red"], "B", (("Blue", "red"), "red")),
        (["A) Blue", "B) red"], "B) red", (("Blue", "red"), "red")),
        (["A. Blue", "B. red"], "(A)", (("Blue", "red"), "Blue")),
        (["A) B", "B) A"], "A", (("B", "A"), "A")),  # a text before a letter
        (["Answer", "Bee"], "Answer", (("Answer", "Bee"), "Answer")),
        (["A. C. Milan", "Juventus"], "A. C. Milan", (("A. C. Milan", "Juventus"), "A. C. Milan")),
        (["yes", "no"], "No", None),
        (["red", "blue"], "B", None),  # no option has a letter
        (["red", "blue"], "pink", None),
        (["red", "red"], "red", None),
        (["red"], "red", None),
        (["A) red", "B) red"], "A", None),
    ],
)
def test_options_and_answers_as_they_were_written(choices, answer, expected):
    item = written_item(row(choices, answer), ("Color",))
    assert item == (None if expected is None else Item("what color?", *expected, ("Color",)))


def test_a_question_whose_answer_is_no_option_is_dropped_and_the_others_stay(tmp_path):
    said = reply(("what?", ["a", "b"], "a"), ("how?", ["a", "b"], "c"), ("who?", ["A) x", "B) y"], "B"))
    (after,), failures, step = run(tmp_path, Writer(said))
    assert [(q["question"], q["answer"]) for q in after.metadata["questions"]] == [("what?", "a"), ("who?", "y")]
    assert step.counts["questions"] == 3 and step.counts["dropped"] == 1 and not failures


@pytest.mark.parametrize(
    "said",
    [
        "Here: " + reply(("what?", ["a", "b"], "a")),
        "none",
        reply(),
        reply(*[("what?", ["a", "b"], "a")] * 6),  # more than the five that were asked for
        '{"questions": [{"question": "what?", "choices": "a, b", "answer": "a"}]}',
    ],
)
def test_a_reply_of_another_form_is_a_failure(tmp_path, said):
    after, failures, step = run(tmp_path, Writer(said))
    assert not after and failures[0].reason.startswith("questions: unparsable answer") and failures[0].said == said
    assert step.counts["ask_failed"] == 1


def test_a_picture_that_cannot_be_read_is_reported(tmp_path):
    def read(key):
        raise BadImage("broken")

    after, failures, _ = run(tmp_path, Writer(reply(("what?", ["a", "b"], "a"))), read=read)
    assert not after and [failure.reason for failure in failures] == ["picture: broken"]


def test_a_record_without_any_usable_question_is_left_out(tmp_path):
    after, failures, _ = run(tmp_path, Writer(reply(("what?", ["a", "b"], "c"))))
    assert not after and [failure.reason for failure in failures] == ["no usable question"]


TAXONOMY = {"Attribute": {"Color": None, "State": ["open", "closed"]}, "Text": {}}


def test_each_leaf_of_a_taxonomy_is_asked_for_and_may_have_nothing(tmp_path):
    file = tmp_path / "taxonomy.json"
    file.write_text(json.dumps(TAXONOMY))
    assert leaves(file) == [(("Attribute", "Color"), ""), (("Attribute", "State"), "open, closed"), (("Text",), "")]
    model = Writer("none", Color=reply(("what?", ["a", "b"], "a")), Text={"text": None, "failure": "gave up"})
    (after,), failures, step = run(tmp_path, model, taxonomy=str(file))
    assert [q["category"] for q in after.metadata["questions"]] == [["Attribute", "Color"]]
    assert step.counts["leaves_without"] == 1
    assert [failure.reason for failure in failures] == ["questions > Text: gave up"]  # a failure is not "none"
    assert any("Attribute > State: open, closed" in question.text for question in model.asked)


@pytest.mark.parametrize("content", [[], {}, {"a": 3}, {"a": [1]}, None])
def test_a_taxonomy_of_another_form_is_an_error(tmp_path, content):
    file = tmp_path / "taxonomy.json"
    file.write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"expected (nested objects|an object, null or a list)"):
        leaves(file)


def test_questions_join_those_that_are_there(tmp_path):
    there = {"question": "who?", "choices": ["x", "y"], "answer": "x", "category": []}
    record = Record("0", metadata={"questions": [there]})
    (after,), _, _ = run(tmp_path, Writer(reply(("what?", ["a", "b"], "a"))), [record])
    assert [q["question"] for q in after.metadata["questions"]] == ["who?", "what?"]


def test_a_dry_run_counts_a_question_a_leaf(tmp_path):
    file = tmp_path / "taxonomy.json"
    file.write_text(json.dumps(TAXONOMY))
    model = Writer("none")
    step = AskQuestions(model, taxonomy=str(file), cache_dir=str(tmp_path / "answers"))
    step.attach_images(lambda key: GRAY)
    ledger = Ledger(is_dry=True)
    step.askers["ask"].account = account = ledger.account("ask", model)
    assert len(list(step(lambda: [Record("0")]))) == 1 and not model.asked
    assert account.num_expected == 3


def test_scenes_are_asked_about_exactly(tmp_path):
    scenes = [make_scene(WorldOptions(), 0, "train", index) for index in range(10)]
    records = [Record(str(i), metadata={"scene": scene.to_dict()}) for i, scene in enumerate(scenes)]
    after, failures, _ = run(tmp_path, SceneVision(), records, lambda key: render(scenes[int(key)], 32))
    assert len(after) == 10 and not failures
    assert all(1 <= len(record.metadata["questions"]) <= 5 for record in after)
    assert any(q["answer"] == "no" for record in after for q in record.metadata["questions"])


def test_test_pictures_in_the_training_split_are_refused_before_anything_is_asked(tmp_path):
    pictures = {"train": {"a": "x/a.jpg", "b": "x/b.jpg"}, "test": {"b": "x/b.jpg"}}
    step = AskQuestions(Writer("none"), cache_dir=str(tmp_path))
    with pytest.raises(UsageError, match=r"1 pictures of the test split \('b'\)"):
        step.attach_split(Split("train", pictures.__getitem__))
    step.attach_split(Split("test", pictures.__getitem__))  # a test set of its own
    pictures["test"] = {"b": "other/b.jpg"}  # another file of that name
    step.attach_split(Split("train", pictures.__getitem__))


def test_a_model_that_sees_is_needed():
    with pytest.raises(UsageError, match="needs a model that sees"):
        AskQuestions()
