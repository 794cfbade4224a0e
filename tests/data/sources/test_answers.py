import json

import numpy as np
import pytest

from capkit.data.images import BadImage
from capkit.data.sources.answers import Answers
from capkit.errors import UsageError
from capkit.llm.asker import Asker
from capkit.llm.base import Answer, Picture, Question
from capkit.llm.replies import Unparsable


def lines(tmp_path, rows, name="pairs.jsonl"):
    file = tmp_path / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def pairs(number):
    return [{"prompt": f"question {i}\n[text]", "answer": f"answer {i}"} for i in range(number)]


def test_each_prompt_is_a_record_with_its_answers_and_no_picture(tmp_path):
    rows = [*pairs(2), {"prompt": "question 0\n[text]", "answer": "another"}]
    source = Answers(lines(tmp_path, rows), val=0, test=0)
    assert [[c.text for c in source.record(i).captions] for i in range(2)] == [["answer 0", "another"], ["answer 1"]]
    record = source.record(0)
    assert {caption.prompt for caption in record.captions} == {"question 0\n[text]"} == {record.metadata["prompt"]}
    with pytest.raises(BadImage):
        source.image(0)


def test_splits_share_no_prompt_and_do_not_depend_on_the_order_of_the_lines(tmp_path):
    rows = pairs(40)
    doubled = [*rows, *reversed(rows)]
    found = {}
    for split in ("train", "val", "test"):
        source = Answers(lines(tmp_path, doubled), split, val=0.1, test=0.2)
        found[split] = {source.record(i).key for i in range(len(source))}
        other = Answers(lines(tmp_path, doubled[::-1], "reversed.jsonl"), split, val=0.1, test=0.2)
        assert found[split] == {other.record(i).key for i in range(len(other))}
    assert {name: len(keys) for name, keys in found.items()} == {"train": 28, "val": 4, "test": 8}
    assert len(set.union(*found.values())) == 40
    assert len(Answers(lines(tmp_path, doubled), count=3)) == 3


def test_lines_that_name_their_split_are_obeyed(tmp_path):
    rows = [row | {"split": "test" if number == 2 else "train"} for number, row in enumerate(pairs(4))]
    assert len(Answers(lines(tmp_path, rows), "test")) == 1
    rows[0] |= {"prompt": rows[2]["prompt"]}
    with pytest.raises(UsageError, match="one prompt is in split 'train' and in 'test'"):
        len(Answers(lines(tmp_path, rows), "test"))


class Echo:
    """Answers "said TEXT"; the first sample of a question about "refused" is one that no reply can be."""

    draws = True

    def about(self):
        return {"model": "echo"}

    def ask(self, questions):
        return [Answer("bad" if q.text == "refused" and not q.sample else f"said {q.text}") for q in questions]


class Said:
    def read(self, text):
        if not text.startswith("said"):
            raise Unparsable("nothing is said")
        return text

    def schema(self):
        return None


def kept(tmp_path, *questions):
    asker = Asker(Echo(), tmp_path / "answers", Said(), retries=1, num_samples=2)
    asker.ask(questions)
    return tmp_path / "answers"


def test_what_a_model_answered_is_read_from_its_store_and_what_was_refused_is_not(tmp_path):
    folder = kept(tmp_path, Question("first\nline"), Question("refused"), Question("first\nline", sample=1))
    (file,) = folder.glob("*/answers.jsonl")
    with file.open("a") as out:
        out.write('{"key": "0", "text": "cut of')  # by a kill
    source = Answers(str(folder), val=0, test=0)
    found = {source.record(i).metadata["prompt"]: source.record(i).captions for i in range(len(source))}
    answers = {prompt: [caption.text for caption in captions] for prompt, captions in found.items()}
    assert answers == {"first\nline": ["said first\nline"] * 2, "refused": ["said refused"]}
    assert len(Answers(str(file), val=0, test=0)) == len(Answers(str(file.parent), val=0, test=0)) == 2


def test_questions_with_more_than_text_and_answers_alone_are_refused(tmp_path):
    seen = Picture(np.zeros((2, 2, 3), np.uint8))
    for number, question in enumerate((Question("a", (seen,)), Question("a", system="be brief"))):
        with pytest.raises(UsageError, match=r"expected questions of text alone, got one with (pictures|system)"):
            len(Answers(str(kept(tmp_path / str(number), question))))
    folder = kept(tmp_path / "old", Question("a"))
    (file,) = folder.glob("*/answers.jsonl")
    row = json.loads(file.read_text())
    file.write_text(json.dumps({"key": row["key"], "text": row["text"]}) + "\n")
    with pytest.raises(UsageError, match="got 1 answers alone, kept by an earlier version"):
        len(Answers(str(folder)))


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"prompt": "a"}, "line 1: no 'answer'; it has 'prompt'"),
        ({"prompt": "a", "answer": " "}, "line 1: expected text as 'answer', got ' '"),
        ({"prompt": "a\ud800", "answer": "b"}, "line 1: expected text as 'prompt'"),
        ({"prompt": 3, "answer": "b"}, "line 1: expected text as 'prompt', got 3"),
        (["a", "b"], "line 1: expected an object"),
    ],
)
def test_what_is_no_pair_is_told_by_its_line(tmp_path, row, told):
    with pytest.raises(UsageError, match=told):
        len(Answers(lines(tmp_path, [row, *pairs(2)])))


def test_a_folder_of_no_or_several_models_is_told(tmp_path):
    with pytest.raises(UsageError, match="expected a file of JSON lines or a folder of answers"):
        Answers(str(tmp_path / "nothing"))
    with pytest.raises(UsageError, match="expected the answers of one model, got none"):
        Answers(str(tmp_path))
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "answers.jsonl").write_text("")
    with pytest.raises(UsageError, match=r"got .*/a, .*/b; give the folder of one"):
        Answers(str(tmp_path))
    with pytest.raises(UsageError, match="expected answers, got none"):
        len(Answers(str(tmp_path / "a")))
