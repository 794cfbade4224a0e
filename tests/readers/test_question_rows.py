"""CapRL's form of questions by hand, both forms read back as they were written, and the split of a file."""

import json
from pathlib import Path

import pytest

from capkit.errors import UsageError
from capkit.readers.question_rows import Item, PictureRow, read_questions, write_caprl, write_caption_qa
from capkit.readers.question_sets import QuestionFile

BLUE = Item("what color is it?", ("Blue", "Amber", "Cyan"), "Amber")
LETTERS = Item("which letter is drawn?", ("B", "A", "none of them"), "A")
RELEASED = [
    {
        "image_path": "train2017/000000001.jpg",
        "qa_list": [
            {"question": "What color is it?\n   - A) Blue\n   - B) Amber\n   - C) Cyan", "answer": "B"},
            {"question": "Which letter is drawn?\n   - A) B\n   - B) A", "answer": "B"},
        ],
    }
]


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def rows_of(path, **settings):
    return [row for _, row in read_questions(Path(path), **settings)]


def test_a_row_of_caprl_by_hand(tmp_path):
    (row,) = rows_of(write(tmp_path / "q.json", RELEASED))
    assert row.key == "train2017/000000001.jpg" and row.split is None
    assert row.items == (
        Item("What color is it?", ("Blue", "Amber", "Cyan"), "Amber"),
        Item("Which letter is drawn?", ("B", "A"), "A"),  # option B, whose text is A
    )


@pytest.mark.parametrize(
    ("image_key", "key"),
    [("path", "train2017/000000001.jpg"), ("name", "000000001.jpg"), ("stem", "000000001")],
)
def test_a_picture_of_caprl_is_known_by_its_path_name_or_stem(tmp_path, image_key, key):
    file = write(tmp_path / "q.jsonl", json.dumps(RELEASED[0]) + "\n")
    assert QuestionFile(file, image_key=image_key).keys() == [key]


@pytest.mark.parametrize(
    ("question", "answer", "message"),
    [
        ("what?", "A", r"options '- A\) ...'"),
        ("what?\n - A) red\n - C) blue", "A", "in order"),
        ("what?\n - A) red\n and more\n - B) blue", "A", "in order"),
        (" - A) red\n - B) blue", "A", "expected a question"),
        ("what?\n - A) red\n - B) blue", "C", r"letter of an option \(A, B\) as answer, got 'C'"),
        ("what?\n - A) red\n - B) Blue", "Blue", "got 'Blue'"),  # the released filter reads B
        ("what?\n - A) red\n - B) red", "A", "different choices"),
        ("what?\n - A) red", "A", "2 to 26 choices"),
    ],
)
def test_another_form_is_an_error_that_names_the_row(tmp_path, question, answer, message):
    rows = [{"image_path": "a.jpg", "qa_list": [{"question": question, "answer": answer}]}]
    with pytest.raises(UsageError, match=rf"row 1 \(a.jpg\), question 1: .*{message}"):
        rows_of(write(tmp_path / "q.json", rows))


def aokvqa(**changes):
    row = {"image_id": 7, "question_id": "q1", "question": "what?", "choices": ["red", "Blue"], "correct_choice_idx": 1}
    return {**row, "direct_answers": ["blue"] * 10, "split": "val", **changes}


def test_a_question_of_aokvqa_is_a_row_of_its_own(tmp_path):
    source = QuestionFile(write(tmp_path / "q.json", [aokvqa(), aokvqa(question_id="q2", correct_choice_idx=0)]))
    assert source.keys() == ["7<->q1", "7<->q2"] and source.split == "val"
    assert source.of("7<->q1", {}) == (Item("what?", ("red", "Blue"), "Blue"),)
    with pytest.raises(UsageError, match="correct_choice_idx from 0 to 1, got 2"):
        rows_of(write(tmp_path / "q.json", [aokvqa(correct_choice_idx=2)]))
    test_row = {name: value for name, value in aokvqa().items() if name != "correct_choice_idx"}
    with pytest.raises(UsageError, match="no 'correct_choice_idx'"):
        rows_of(write(tmp_path / "q.json", [test_row]))


@pytest.mark.parametrize("writer", [write_caption_qa, write_caprl])
def test_what_is_written_is_read_back(tmp_path, writer):
    rows = [(PictureRow("a", (BLUE, LETTERS), "train"), "x/a.jpg"), (PictureRow("7", (LETTERS,), "train"), None)]
    writer(tmp_path / "q.json", rows)
    assert rows_of(tmp_path / "q.json") == [row for row, _ in rows]
    assert QuestionFile(tmp_path / "q.json").split == "train"


def test_categories_and_domains_are_kept_by_one_form(tmp_path):
    item = Item("how many?", ("one", "two"), "two", ("Counting", "Objects"), "nat")
    write_caption_qa(tmp_path / "q.jsonl", [(PictureRow("nat_1", (item,)), None)])
    assert rows_of(tmp_path / "q.jsonl")[0].items == (item,)
    write_caprl(tmp_path / "q.json", [(PictureRow("nat_1", (item,)), None)])
    assert rows_of(tmp_path / "q.json")[0].items == (Item("how many?", ("one", "two"), "two"),)


@pytest.mark.parametrize("text", ["what?\n - A) this", "what? ", "two\nlines\n - B) x"])
def test_a_question_that_caprl_cannot_hold_is_an_error(tmp_path, text):
    with pytest.raises(UsageError, match=r"behind it options|without line breaks"):
        write_caprl(tmp_path / "q.json", [(PictureRow("a", (Item(text, ("one", "two"), "one"),)), None)])
    assert not (tmp_path / "q.json").exists()


def test_one_question_of_aokvqa_alone_in_a_file(tmp_path):
    file = write(tmp_path / "q.jsonl", json.dumps(aokvqa()) + "\n")
    assert [row.key for row in rows_of(file)] == ["7<->q1"]


@pytest.mark.parametrize("rows", [RELEASED, [aokvqa()]])
def test_parquet_has_every_form_and_says_its_split(tmp_path, rows):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{**row, "split": "test", "image": b"not read"} for row in rows]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "q.parquet")
    source = QuestionFile(tmp_path / "q.parquet")
    assert source.split == "test" and len(source.keys()) == len(rows)


def test_a_file_belongs_to_one_split(tmp_path):
    write_caption_qa(
        tmp_path / "q.jsonl", [(PictureRow("a", (BLUE,), "train"), None), (PictureRow("b", (BLUE,), "test"), None)]
    )
    with pytest.raises(UsageError, match="questions of one split, got some of test behind those of train"):
        QuestionFile(tmp_path / "q.jsonl")
