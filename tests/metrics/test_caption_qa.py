import json
import random
from collections import Counter

import numpy as np
import pytest

from capkit.errors import UsageError
from capkit.llm.base import Answer
from capkit.metrics.caption_qa import CaptionQA
from capkit.metrics.scoring import columns_of, resample_rows, score_rows
from capkit.readers.base import LETTERS, Reading
from capkit.readers.chat import ChatReader
from capkit.readers.question_sets import ABSTAIN
from capkit.text.checked import ScoreWarning

QUESTIONS = {
    "nat_1": [
        {"question": "color?", "choices": ["red", "blue", "green", "pink"], "answer": "red", "category": "Color"},
        {"question": "is it?", "choices": ["yes", "no"], "answer": "yes", "category": "Object"},
        {"question": "size?", "choices": ["small", "large"], "answer": "small", "category": "Color"},
    ],
    "doc_2": [{"question": "shape?", "choices": ["star", "moon"], "answer": "star", "category": "Object"}],
}


class Words:
    """Says the first choice that stands in the text; "?" is unreadable, else it abstains, else the last choice."""

    def about(self):
        return {"reader": "words"}

    def read(self, texts, questions):
        return [
            [self.reading(text, question) for question in asked] for text, asked in zip(texts, questions, strict=True)
        ]

    def reading(self, text, question):
        if "?" in text:
            return Reading(None, failure="no letter", said="hm")
        found = [place for place, choice in enumerate(question.choices) if choice in text]
        return Reading(
            found[0] if found else len(question.choices) - 1 if question.abstain is None else question.abstain
        )


@pytest.fixture
def questions(tmp_path):
    path = tmp_path / "questions.json"
    path.write_text(json.dumps(QUESTIONS))
    return str(path)


def rows(**captions):
    return [{"key": key, "caption": text, "references": [], "metadata": {}} for key, text in captions.items()]


def test_a_table_by_hand(questions):
    metric = CaptionQA(Words(), questions, shuffle=False)
    # nat_1: red is right; "no" is wrong (last of yes and no); abstained of two choices: 1/2 + .05
    # doc_2: star is right
    numbers = score_rows(rows(nat_1="red", doc_2="a star"), {"qa": metric})
    assert numbers["caption_qa"] == pytest.approx((1 + 0 + 0.55 + 1) / 4)
    assert numbers["caption_qa_by_picture"] == pytest.approx((1.55 / 3 + 1) / 2)
    assert numbers["caption_qa_accuracy"] == 0.5 and numbers["caption_qa_abstained"] == 0.25
    assert numbers["caption_qa_unreadable"] == 0 and numbers["caption_qa_failed"] == 0
    assert numbers["caption_qa/color"] == pytest.approx(1.55 / 2) and numbers["caption_qa/object"] == 0.5
    assert numbers["caption_qa/nat"] == pytest.approx(1.55 / 3) and numbers["caption_qa/doc"] == 1
    assert numbers["caption_qa_asked"] == 4


def test_categories_of_one_name_are_one(tmp_path):
    asked = [{**row, "category": name} for row, name in zip(QUESTIONS["nat_1"], ("A b", "a-B", "数"), strict=True)]
    (tmp_path / "q.json").write_text(json.dumps({"1": asked}))
    numbers = score_rows(rows(**{"1": "red"}), {"qa": CaptionQA(Words(), str(tmp_path / "q.json"), shuffle=False)})
    assert numbers["caption_qa/a_b"] == 0.5 and numbers["caption_qa/数"] == pytest.approx(0.55)


def test_an_unreadable_answer_is_in_no_mean_and_its_share_is_told(questions):
    captions = rows(nat_1="red", doc_2="?")
    numbers = score_rows(captions, {"qa": CaptionQA(Words(), questions, shuffle=False, max_failed=0.25)})
    assert numbers["caption_qa"] == pytest.approx(1.55 / 3) and numbers["caption_qa_unreadable"] == 0.25
    assert numbers["caption_qa_failed"] == 1 and numbers["caption_qa_by_picture"] == pytest.approx(1.55 / 3)
    with pytest.warns(ScoreWarning, match="caption_qa is missing: 1 of 4 judgements failed"):
        assert "caption_qa" not in score_rows(captions, {"qa": CaptionQA(Words(), questions, shuffle=False)})


def test_a_picture_without_a_caption_counts_as_an_empty_one_and_is_named(questions):
    metric = CaptionQA(Words(), questions, shuffle=False)
    with pytest.warns(ScoreWarning, match=r"1 pictures with questions have no caption \(doc_2\)"):
        numbers = score_rows(rows(nat_1="red"), {"qa": metric})
    assert numbers["caption_qa"] == pytest.approx((1.55 + 0.55) / 4) and numbers["caption_qa_asked"] == 4
    ignored = score_rows(rows(nat_1="red"), {"qa": CaptionQA(Words(), questions, shuffle=False, missing="ignore")})
    assert ignored["caption_qa"] == pytest.approx(1.55 / 3)
    with pytest.raises(UsageError, match=r"1 of 2 captions have no questions \('cat'\)"):
        score_rows(rows(nat_1="red", cat=""), {"qa": metric})


def test_a_page_shows_what_was_answered(questions):
    metric = CaptionQA(Words(), questions, shuffle=False)
    shown = metric.shown(metric.judged(*columns_of(rows(nat_1="red")))[0])
    assert shown.score == pytest.approx(1.55 / 3)
    assert shown.marks == [("color? red", "right"), ("is it? no", "wrong"), (f"size? {ABSTAIN}", "open")]
    assert metric.shown(metric.judged(*columns_of(rows(nat_1="?")))[0]) is None


def test_results_are_written_as_the_program_writes_them(questions, tmp_path):
    metric, table = CaptionQA(Words(), questions), rows(nat_1="red", doc_2="a star")
    metric.write(tmp_path, columns_of(table))
    found = json.loads((tmp_path / "caption_qa_results.json").read_text())
    assert list(found) == ["nat_1", "doc_2"]
    size = found["nat_1"][2]
    assert size == {
        "question": "size?", "choices": ["small", "large"], "ground_truth": "small", "model_answer": ABSTAIN,
        "model_response": ABSTAIN, "is_correct": False, "is_cannot_answer": True, "score": 0.55,
        "category": "Color",
    }  # fmt: skip
    # What the program's print_final_summary does with them.
    rows_of = [item for items in found.values() for item in items]
    assert sum(item["score"] for item in rows_of) / 4 == score_rows(table, {"qa": metric})["caption_qa"]
    assert Counter(item["category"] for item in rows_of) == {"Color": 2, "Object": 2}
    assert len((tmp_path / "caption_qa.jsonl").read_text().splitlines()) == 2


class Replies:
    """The letter of the first option that stands in the caption; replies of other forms where it has a digit."""

    def about(self):
        return {"model": "replies"}

    def ask(self, asked):
        return [Answer(self.reply(question.text)) for question in asked]

    def reply(self, prompt):
        caption, _, rest = prompt.partition("\n\nQuestion:")
        options = [line for line in rest.splitlines() if line[1:3] == ". "]
        letter = next((line[0] for line in options if line[3:] in caption), options[-1][0])
        for mark, form in {"1": f"A\nbecause of {letter}", "2": "a cat", "3": "I do not know"}.items():
            if mark in caption:
                return form
        return letter


def by_the_program(questions, captions, model):
    """The released program's loop in short (qa.py, seed 0): score, answer and mark of each question that it asks."""
    stream, found = random.Random(0), []
    starts = ("is ", "are ", "can ")
    for key, asked in questions.items():
        for row in asked if key in captions else []:
            options = list(row["choices"])
            has_both = any("yes" in o for o in options) and any("no" in o for o in options)
            options += [] if has_both or row["question"].startswith(starts) else [ABSTAIN]
            order = list(range(len(options)))
            stream.shuffle(order)
            shown = [options[place] for place in order]
            lines = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, shown, strict=False))
            said = model.reply(f"{captions[key]}\n\nQuestion:{row['question']}\n{lines}")
            said = said.partition("\n")[2] if "\n" in said else said
            words = [word for word in said.upper().split() if len(word) == 1 and word in LETTERS]
            place = LETTERS.index(words[0]) if words else 99
            answer = shown[place] if place < len(shown) else None
            score = 1 / len(row["choices"]) + 0.05 if answer == ABSTAIN else float(answer == row["answer"])
            found.append((round(score, 4), answer))
    return found


def test_legacy_is_what_the_released_program_computes(tmp_path):
    """Orders, abstain options, replies and what cannot be read; other reading moves the number."""
    options = ["red", "blue", "none", "yes", "north", "two", "six"]
    questions = {
        f"nat_{n}": [
            {"question": f"{start} {n}?", "choices": options[n % 3 : n % 3 + size], "answer": options[n % 3]}
            for start in ("what color", "is", "which")
            for size in (2, 4)
        ]
        for n in range(10, 30)
    }
    captions = {key: ["red", "blue north", "1 none", "2 yes", "3", "two"][n % 6] for n, key in enumerate(questions)}
    (tmp_path / "questions.json").write_text(json.dumps(questions))

    def metric(**settings):
        reader = ChatReader(Replies(), cache_dir=str(tmp_path / "kept"))
        return CaptionQA(reader, str(tmp_path / "questions.json"), max_failed=1.0, **settings)

    wanted = by_the_program(questions, captions, Replies())
    legacy, table = metric(legacy=True), rows(**captions)
    numbers = score_rows(table, {"qa": legacy})
    assert numbers["caption_qa"] == pytest.approx(np.mean([score for score, _ in wanted]), abs=1e-4)
    found = [row for judged in legacy.judged(*columns_of(table)) for row in judged.detail["questions"]]
    assert [(row["score"], row["model_answer"]) for row in found] == wanted
    assert numbers["caption_qa_failed"] == sum(answer is None for _, answer in wanted) > 0
    assert abs(score_rows(table, {"qa": metric()})["caption_qa"] - numbers["caption_qa"]) > 0.02
    assert legacy.describe()["reader"]["form"] == "generated letter, read as released"
    with pytest.raises(UsageError, match="leave out shuffle=false"):
        metric(legacy=True, shuffle=False)


def test_the_same_questions_asked_of_who_sees_give_an_upper_bound(questions, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    class Sees:
        def about(self):
            return {"model": "sees"}

        def ask(self, asked):
            letters = {"color?": "A", "is it?": "A", "size?": "B", "shape?": "A"}  # one of four is wrong
            return [Answer(letters[question.text.splitlines()[1]]) for question in asked]

    metric = CaptionQA(Words(), questions, shuffle=False, vision_chat=Sees())
    picture = lambda key: np.zeros((2, 2, 3), np.uint8)  # noqa: E731
    table = rows(nat_1="red", doc_2="a star")
    numbers = score_rows(table, {"qa": metric}, picture)
    assert numbers["caption_qa_seen"] == 0.75 and numbers["caption_qa_asked"] == 8
    assert numbers["caption_qa_gap"] == pytest.approx(0.75 - 2.55 / 4)
    assert set(metric.askers) == {"viewer"} and "viewer" in metric.describe()
    low, high = resample_rows(table, {"qa": metric}, picture, 0.9, 0)["caption_qa_gap"]
    assert low <= numbers["caption_qa_gap"] <= high


def test_parts_that_are_missing_are_named(questions):
    with pytest.raises(UsageError, match="needs a reader; add reader=hf, server or scene"):
        CaptionQA(questions=questions)
    with pytest.raises(UsageError, match="needs questions; give metric"):
        CaptionQA(Words())
