"""Question sets as they are written: both forms, splits, and what a person decides."""

import json

import pytest

from capkit.curation.questions import Split
from capkit.curation.steps.write_questions import WriteQuestions
from capkit.data.records import Record
from capkit.errors import UsageError
from capkit.readers.question_sets import QuestionFile


def question(text, answer="a", **others):
    return {"question": text, "choices": ["a", "b"], "answer": answer, "category": ["Kind"], **others}


def records():
    waiting = [question("what?", first="a", second="b"), question("how?", first="b", second="b")]
    return [
        Record("0", "x/0.jpg", metadata={"questions": [question("who?")], "questions_to_review": waiting}),
        Record("1", metadata={"questions": []}),
        Record("2", metadata={"questions": [question("who?", "b")]}),
    ]


def run(split="train", is_dry=False, pictures=None, **settings):
    step = WriteQuestions(**settings)
    step.attach_split(Split(split, (pictures or {"train": {}, "test": {}}).__getitem__, is_dry))
    return list(step(records)), step


@pytest.mark.parametrize("form", ["caption_qa", "caprl"])
def test_the_set_is_of_the_split_and_read_back(tmp_path, form):
    file = tmp_path / "q.json"
    after, step = run("val", path=str(file), form=form)
    source = QuestionFile(file)
    assert source.split == "val" and source.keys() == ["0", "2"] and source.of("2", {})[0].answer == "b"
    assert [record.key for record in after] == ["0", "1", "2"]
    assert step.counts == {"questions": 2, "pictures": 2, "to_review": 2}
    if form == "caprl":
        first = json.loads(file.read_text())[0]
        assert first["image_path"] == "x/0.jpg"
        assert first["qa_list"] == [{"question": "who?\n   - A) a\n   - B) b", "answer": "A"}]


def test_what_a_person_decides_joins_the_set(tmp_path):
    run(path=str(tmp_path / "q.jsonl"), review=str(tmp_path / "look.jsonl"))
    rows = [json.loads(line) for line in (tmp_path / "look.jsonl").read_text().splitlines()]
    assert [(row["id"], row["question"], row["first"], row["verdict"]) for row in rows] == [
        ("0", "what?", "a", None),
        ("0", "how?", "b", None),
    ]
    with pytest.raises(UsageError, match="expected text as 'verdict', got null"):
        run(path=str(tmp_path / "r.jsonl"), reviewed=str(tmp_path / "look.jsonl"))
    for row, verdict in zip(rows, ("drop", "b"), strict=True):
        row["verdict"] = verdict
    (tmp_path / "done.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    after, step = run(path=str(tmp_path / "r.jsonl"), reviewed=str(tmp_path / "done.jsonl"))
    items = QuestionFile(tmp_path / "r.jsonl").of("0", {})
    assert [(item.question, item.answer) for item in items] == [("who?", "a"), ("how?", "b")]
    assert not after[0].metadata["questions_to_review"] and step.counts["to_review"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verdict": "c"}, "one of the choices, or 'drop', got 'c'"),
        ({"id": "9"}, "1 verdicts are on questions that no record has"),
        ({"choices": ["a", "b", "z"], "verdict": "z"}, "is none of"),
    ],
)
def test_verdicts_on_something_else_are_refused(tmp_path, change, message):
    row = {"id": "0", **question("what?"), "verdict": "a", **change}
    (tmp_path / "done.jsonl").write_text(json.dumps(row))
    with pytest.raises(UsageError, match=message):
        run(path=str(tmp_path / "r.jsonl"), reviewed=str(tmp_path / "done.jsonl"))
    assert not (tmp_path / "r.jsonl").exists()


@pytest.mark.parametrize("key", ["0", "another key of this file"])
def test_test_pictures_get_into_no_training_set(tmp_path, key):
    pictures = {"train": {"0": "x/0.jpg", "1": "x/1.jpg"}, "test": {key: "x/0.jpg", "1": "y/1.jpg"}}
    with pytest.raises(UsageError, match=r"1 pictures of the test split \('0'\)"):
        run(path=str(tmp_path / "q.jsonl"), pictures=pictures)


def test_the_questions_of_another_split_are_not_written_over(tmp_path):
    """As one command of two splits would."""
    file = tmp_path / "q.jsonl"
    run("train", path=str(file))
    run("train", path=str(file))
    with pytest.raises(UsageError, match=r"questions of split val, got .*q.jsonl, which holds those of train"):
        run("val", path=str(file))
    assert QuestionFile(file).split == "train"


def test_a_dry_run_writes_nothing(tmp_path):
    run(is_dry=True, path=str(tmp_path / "q.jsonl"), review=str(tmp_path / "look.jsonl"))
    assert not list(tmp_path.iterdir())


def test_a_set_without_questions_is_an_error(tmp_path):
    step = WriteQuestions(path=str(tmp_path / "q.jsonl"))
    with pytest.raises(UsageError, match="no record has a question left"):
        list(step(lambda: [Record("0")]))


def test_paths_are_checked():
    with pytest.raises(UsageError, match="needs a file to write"):
        WriteQuestions()
    with pytest.raises(UsageError, match="review and reviewed are both"):
        WriteQuestions(path="a", review="b", reviewed="./b")
