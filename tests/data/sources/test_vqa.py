"""VQAv2's, OK-VQA's and A-OKVQA's files: pictures with answers for training, and questions without any for a test."""

import json

import numpy as np
import pytest
from PIL import Image

from capkit.data.sources.vqa import VQAQuestions
from capkit.data.vqa import open_questions
from capkit.errors import UsageError
from capkit.text.asked import GENERIC, guided_prompt

QUESTIONS = [
    {"question_id": 70, "image_id": 7, "question": "what color is it?"},
    {"question_id": 80, "image_id": 8, "question": "how many?"},
    {"question_id": 71, "image_id": 7, "question": "is it open?"},
]
ANSWERS = {70: ["zebra red"] * 10, 80: ["two"] * 9 + ["2"], 71: ["yes"] * 10}


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in (7, 8):
        Image.fromarray(np.full((4, 4, 3), number, np.uint8)).save(folder / f"{number:012d}.jpg")
    captions = [{"image_id": number, "caption": f"a thing {number}"} for number in (8, 7, 7)]
    content = {
        "questions.json": {"questions": QUESTIONS},
        "annotations.json": {
            "annotations": [
                {"question_id": key, "image_id": key // 10, "answers": [{"answer": a, "answer_id": 1} for a in answers]}
                for key, answers in ANSWERS.items()
            ]
        },
        "aokvqa.json": [
            {**row, "choices": ["a", "b"], "correct_choice_idx": 0, "direct_answers": ANSWERS[row["question_id"]]}
            for row in QUESTIONS
        ],
        "captions.json": {"images": [], "annotations": captions},
    }
    for name, value in content.items():
        (tmp_path / name).write_text(json.dumps(value))
    return tmp_path


def source(files, questions="questions.json", **settings):
    settings = {"annotations": "annotations.json", "captions": "captions.json", **settings}
    paths = {key: str(files / settings.pop(key)) for key in ("annotations", "captions") if settings[key]}
    settings.pop("annotations", None)
    return VQAQuestions(str(files / "images"), str(files / questions), **paths, **settings)


@pytest.mark.parametrize("form", ["VQAv2 and OK-VQA", "A-OKVQA"])
def test_a_picture_has_its_captions_and_its_questions_with_answers(files, form):
    found = source(files) if form != "A-OKVQA" else source(files, "aokvqa.json", annotations=None)
    records = [found.record(index) for index in range(len(found))]
    assert [(r.key, r.image) for r in records] == [("7", "000000000007.jpg"), ("8", "000000000008.jpg")]
    assert [c.text for c in records[0].captions] == ["a thing 7"] * 2 and records[0].captions[0].prompt is None
    asked = [(q.id, q.question, list(q.answers)) for q in open_questions(records[0])]
    assert asked == [("70", "what color is it?", ANSWERS[70]), ("71", "is it open?", ANSWERS[71])]
    assert found.image(1).mean() == pytest.approx(8, abs=1)


@pytest.mark.parametrize("asked", ["guided", "generic"])
@pytest.mark.parametrize("form", ["questions.json", "aokvqa.json"])
def test_a_question_at_test_has_no_answer_in_reach(files, form, asked):
    """Nothing of a record holds an answer, with or without annotations, and other answers give the same records."""
    found = source(files, form, annotations=None, asked=asked)
    records = [found.record(index) for index in range(len(found))]
    assert [r.key for r in records] == ["7<->70", "7<->71", "8<->80"]
    prompts = [r.captions[0].prompt for r in records]
    assert prompts[0] == (GENERIC if asked == "generic" else guided_prompt("what color is it?"))
    assert not any(word in repr(r) for r in records for word in ("zebra", "yes", "two", "choices", "answers"))
    if form == "questions.json":
        again = source(files, asked=asked)
        assert [again.record(index) for index in range(3)] == records


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"annotations": None}, r"question 1 \(70\): expected answers, got none"),
        ({"questions": "aokvqa.json"}, "expected A-OKVQA's list alone"),
        ({"questions": "captions.json"}, "no 'questions'"),
        ({"annotations": "captions.json"}, "no 'question_id'"),
        ({"captions": "questions.json"}, "no 'annotations'"),
        ({"file_name": "x.jpg"}, "one place for the picture's number"),
        ({"file_name": "{name}.jpg"}, "one place for the picture's number"),
        ({"template": "what?"}, r"a prompt with \$question"),
    ],
)
def test_files_of_another_form_are_errors(files, settings, message):
    with pytest.raises(UsageError, match=message):
        len(source(files, **settings))


@pytest.mark.parametrize("asked", [None, "guided"])
def test_a_question_that_stands_there_twice_is_an_error(files, asked):
    (files / "questions.json").write_text(json.dumps({"questions": [*QUESTIONS, QUESTIONS[0]]}))
    with pytest.raises(UsageError, match="question 4: expected each question_id once, got 70 again"):
        len(source(files, asked=asked))


def test_captions_of_another_split_are_an_error(files):
    (files / "captions.json").write_text(json.dumps({"annotations": [{"image_id": 9, "caption": "a thing"}]}))
    with pytest.raises(UsageError, match=r"no captions of 2 of 2 pictures .*such as 7"):
        len(source(files))
