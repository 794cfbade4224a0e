import csv
from fractions import Fraction

import numpy as np
import pytest

from capkit.curation.knowada_files import Adapted, Asked, KnowAdaWriter, read_knowada
from capkit.curation.steps.adapt_to_student import AdaptToStudent, is_unknown, threshold_share
from capkit.data.images import BadImage
from capkit.data.records import Caption, Record
from capkit.errors import UsageError
from capkit.llm.base import Answer
from capkit.sceneworld.chat.sections import sections
from capkit.sceneworld.llm import SceneLM, SceneVision

GRAY = np.zeros((4, 4, 3), np.uint8)
TABLES = ("questions", "answers", "judgments", "difficult_questions_list", "rewritten_captions")


# the threshold --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grades", "wanted"),
    [
        ([1] * 8 + [3] * 2, True),  # 8 of 10
        ([1] * 7 + [3] * 3, False),  # 7 of 10
        ([1] * 7 + [2] * 3, False),  # nearly right is not wrong
        ([1] * 4 + [3] + [None] * 5, True),  # 4 of the 5 that are left
        ([1] * 3 + [3] * 2 + [None] * 5, False),  # 3 of 5: with failures counted as wrong it were 8 of 10
        ([3] * 2 + [None] * 8, False),  # likewise
        ([None] * 10, None),
        ([], None),
    ],
)
def test_the_threshold_is_a_share_of_the_grades_that_there_are(grades, wanted):
    assert is_unknown(grades, Fraction(8, 10)) is wanted


def test_a_number_of_answers_is_a_share_of_them_and_exact():
    assert threshold_share(8, 10) == threshold_share(0.8, 10) == Fraction(4, 5)
    assert threshold_share(1, 10) == Fraction(1, 10) and threshold_share(1.0, 10) == 1
    assert 0.57 * 100 < 57, "in floating point 57 of 100 would miss a threshold of .57"
    assert is_unknown([1] * 57 + [3] * 43, threshold_share(0.57, 100))


@pytest.mark.parametrize("threshold", [11, 1.5])
def test_more_than_all_answers_are_refused(threshold):
    with pytest.raises(UsageError, match="num_answers=10"):
        threshold_share(threshold, 10)


# models that say what the test wants ----------------------------------------------------------------------------------


class Scripted:
    """Questions, answers, grades and a rewriting by functions of the prompt's sections (and of the sample)."""

    draws = True

    def __init__(self, name="scripted", **replies):
        self.name, self.replies, self.asked = name, replies, []

    def about(self):
        return {"model": self.name}

    def ask(self, questions):
        self.asked += questions
        return [Answer(self._reply(question)) for question in questions]

    def _reply(self, question):
        given = sections(question.text)
        kind = {
            ("caption",): "questions", ("question",): "answer", ("answer", "caption", "question"): "grade",
            ("caption", "questions"): "rewrite",
        }[tuple(sorted(given))]  # fmt: skip
        reply = self.replies[kind]
        return reply(given, question.sample) if callable(reply) else reply


def run(folder, records, *, questions="1. What colour is the car?\n2. What is behind it?", answer="a", grade="3",
        rewrite='{"caption": "a car"}', read=lambda key: GRAY, **settings):  # fmt: skip
    """Records, failures, the step and its models, with the replies given."""
    text_lm = Scripted("writer", questions=questions, rewrite=rewrite)
    student, judge = Scripted("student", answer=answer), Scripted("judge", grade=grade)
    failures = []
    step = AdaptToStudent(text_lm, student, judge, cache_dir=str(folder / "answers"), **settings)
    step.attach_failures(failures.append)
    step.attach_images(read)
    return list(step(lambda: records)), failures, step, (text_lm, student, judge)


def one(text="a red car in front of a house", key="0"):
    return Record(key, captions=[Caption(text)])


def colour_is_wrong(share):
    """A judge that grades the first `share` of ten answers about colour 1, all others 3."""
    return lambda given, sample: "1" if "colour" in given["question"] and int(given["answer"]) < share else "3"


def by_sample(given, sample):
    return str(sample)


def test_what_eight_of_ten_answers_got_wrong_leaves_the_caption(tmp_path):
    (record,), failures, step, models = run(tmp_path, [one()], answer=by_sample, grade=colour_is_wrong(8))
    assert [(c.text, c.source) for c in record.captions] == [
        ("a car", "knowada/knowada_rewrite_v1/writer/student")
    ] and not failures
    assert record.metadata["unknown_questions"] == [["What colour is the car?"]]
    (asked,) = [q for q in models[0].asked if "questions" in sections(q.text)]
    assert sections(asked.text) == {"caption": one().captions[0].text, "questions": "1. What colour is the car?"}
    assert step.counts["captions_rewritten"] == 1 and step.counts["answer_asked"] == step.counts["grade_asked"] == 20
    assert sorted(q.sample for q in models[1].asked) == sorted(2 * list(range(10)))


def test_at_seven_of_ten_it_stays_untouched_byte_for_byte(tmp_path):
    given = Record("0", captions=[Caption("A  red car,\tin front of\u00a0a house. ", "human", "en")], metadata={"a": 1})
    (record,), failures, step, _ = run(tmp_path, [given], answer=by_sample, grade=colour_is_wrong(7))
    assert record == given and not failures and step.counts["captions_untouched"] == 1


def test_a_caption_that_states_nothing_to_ask_for_stays_untouched(tmp_path):
    (record,), failures, step, _ = run(tmp_path, [one()], questions="None.")
    assert record == one() and not failures and step.counts["answer_asked"] == 0


def test_a_failed_answer_is_left_out_and_not_wrong(tmp_path):
    """Seven empty answers and two right ones, then one wrong: 1 of 3. As wrong ones they would be 8 of 10."""
    answer = lambda given, sample: "" if sample < 7 else str(sample)  # noqa: E731
    grade = lambda given, sample: "1" if given["answer"] == "9" else "3"  # noqa: E731
    (record,), failures, step, models = run(tmp_path, [one()], answer=answer, grade=grade)
    assert record == one() and not failures
    assert step.counts["answer_refused"] == 14 and step.counts["grade_asked"] == 6
    assert not any("None" in q.text for q in models[2].asked), "the released program asks the judge about None"


@pytest.mark.parametrize("reply", ["The score is 1 of 10", "10", "1/3", "-1", "1.0", "I would say 1", "", "one"])
def test_a_grade_is_a_whole_number_and_nothing_else(tmp_path, reply):
    """The released program takes the first number of a reply: 1, 10, 1, 1, 1, 1, and -1 where there is none."""
    grade = lambda given, sample: reply if int(given["answer"]) < 8 else "3"  # noqa: E731
    (record,), failures, step, _ = run(tmp_path, [one()], answer=by_sample, grade=grade)
    assert record == one() and not failures and step.counts["grade_refused"] == 16


def test_a_question_that_nothing_is_left_to_judge_by_leaves_the_caption_out(tmp_path):
    records, failures, _, _ = run(tmp_path, [one()], grade="no")
    assert not records and failures[0].reason == "no usable answer or grade to judge by: What colour is the car?"


def test_equal_questions_of_a_picture_are_one(tmp_path):
    """Four wrong answers to each of two: eight wrong ones among twenty, and the program asks for eight."""
    twice = "1. What colour is the car?\n2. What colour is the car?"
    (record,), _, step, _ = run(tmp_path, [one()], questions=twice, answer=by_sample, grade=colour_is_wrong(4))
    assert record == one() and step.counts["questions"] == 1 and step.counts["answer_asked"] == 10


def test_a_rewriting_that_failed_takes_no_caption_of_another_picture(tmp_path):
    """The released program repeats the picture before."""

    def rewrite(given, sample):
        return '{"caption": "cut off' if "blue" in given["caption"] else '{"caption": "a car"}'

    texts = ["a red car", "a blue car", "a green car"]
    records = [one(text, str(place)) for place, text in enumerate(texts)]
    kept, failures, _, _ = run(tmp_path, records, grade="1", rewrite=rewrite, answer=by_sample)
    assert [record.key for record in kept] == ["0", "2"]
    assert [(f.key, f.reason, f.said) for f in failures] == [
        ("1", "rewriting: unparsable answer: not one JSON object", '{"caption": "cut off')
    ]


def test_what_cannot_be_asked_about_is_left_out_with_its_reason(tmp_path):
    def read(key):
        if key == "1":
            raise BadImage("empty file (0 bytes)")
        return GRAY

    def questions(given, sample):
        return "What colour is it?" if "blue" in given["caption"] else "1. What colour is it?"

    records = [one(), one(key="1"), one("a blue car", "2"), one("  ", "3"), Record("4"), one(key="5")]
    kept, failures, _, _ = run(tmp_path, records, questions=questions, read=read)
    assert [record.key for record in kept] == ["0", "5"]
    told = {f.key: f.reason for f in failures}
    assert told.keys() == {"1", "2", "3", "4"} and told["1"] == "picture: empty file (0 bytes)"
    assert told["2"].startswith("questions: unparsable") and told["3"] == "an empty caption"
    assert told["4"] == "no caption"


def test_each_caption_of_a_picture_is_adapted_by_itself(tmp_path):
    record = Record("0", captions=[Caption("a red car"), Caption("a house"), Caption("a red bus")])
    questions = lambda given, sample: "1. What colour is it?" if "red" in given["caption"] else "none"  # noqa: E731
    (adapted,), _, _, _ = run(tmp_path, [record], questions=questions, answer=by_sample, grade="1")
    assert [c.text for c in adapted.captions] == ["a car", "a house", "a car"]
    assert adapted.metadata["unknown_questions"] == [["What colour is it?"], [], ["What colour is it?"]]


def test_a_second_run_asks_nothing(tmp_path):
    first, *_ = run(tmp_path, [one()], answer=by_sample, grade=colour_is_wrong(8))
    again, _, _, models = run(tmp_path, [one()], answer=by_sample, grade=colour_is_wrong(8))
    assert again == first and not any(model.asked for model in models)


def test_a_student_that_answers_in_one_way_only_is_refused(tmp_path):
    with pytest.raises(UsageError, match="10 answers to one question need a model that samples"):
        AdaptToStudent(SceneLM(), SceneVision(), SceneLM(), cache_dir=str(tmp_path))
    with pytest.raises(UsageError, match="vision_chat="):
        AdaptToStudent(SceneLM(), None, SceneLM(), cache_dir=str(tmp_path))


# the tables -----------------------------------------------------------------------------------------------------------


def test_the_tables_are_those_of_the_released_program(tmp_path):
    folder = tmp_path / "tables"
    run(tmp_path, [one(), one("a bus", "1")], tables=str(folder), num_answers=2, threshold=2, answer=by_sample,
        grade=lambda given, _: "1" if "colour" in given["question"] and "car" in given["caption"] else "3")  # fmt: skip
    rows = {name: list(csv.reader((folder / f"{name}.csv").open(newline=""))) for name in TABLES}
    colour, behind = "What colour is the car?", "What is behind it?"
    assert rows["questions"][:3] == [
        ["questions", "num_questions", "image_idx", "question_idx"], [colour, "2", "0", "0"], [behind, "2", "0", "1"]
    ]  # fmt: skip
    assert rows["answers"][:3] == [
        [*rows["questions"][0], "vlm_answers"], [colour, "2", "0", "0", "0"], [colour, "2", "0", "0", "1"]
    ]  # fmt: skip
    assert rows["judgments"][0][-2:] == ["vlm_answers", "judgments"] and len(rows["judgments"]) == 9
    assert [row[-1] for row in rows["judgments"][1:]] == ["1", "1", *6 * ["3"]]
    assert rows["difficult_questions_list"] == [
        ["", "num_questions", "image_idx", "question_idx", "questions"],
        ["0", "2", "0", "0", f"['{colour}']"], ["1", "2", "1", "0", ""],
    ]  # fmt: skip
    assert rows["rewritten_captions"] == [
        ["Unnamed: 0", *rows["difficult_questions_list"][0][1:], "rewritten_caption"],
        [*rows["difficult_questions_list"][1], "a car"], [*rows["difficult_questions_list"][2], "a bus"],
    ]  # fmt: skip


@pytest.mark.parametrize(("table", "still_asked"), [
    ("questions", {"answer": 20, "grade": 40, "rewrite": 1}), ("answers", {"grade": 40, "rewrite": 1}),
    ("judgments", {"rewrite": 1}), ("difficult_questions_list", {"rewrite": 1}), ("rewritten_captions", {}),
])  # fmt: skip
def test_a_run_goes_on_from_any_table(tmp_path, table, still_asked):
    grade = lambda given, sample: "1" if "colour" in given["question"] and "red" in given["caption"] else "3"  # noqa: E731
    records = [one(), one("a bus", "1")]
    first, *_ = run(tmp_path / "a", records, tables=str(tmp_path / "tables"), answer=by_sample, grade=grade)
    again, failures, step, _ = run(
        tmp_path / "b", records, start_from=str(tmp_path / "tables" / f"{table}.csv"), answer=by_sample, grade=grade
    )
    assert again == first and not failures
    assert {k: step.counts[f"{k}_asked"] for k in ("question", "answer", "grade", "rewrite")} == {
        "question": 0, "answer": 0, "grade": 0, "rewrite": 0, **still_asked
    }  # fmt: skip


def written(folder, name, *lines):
    path = folder / f"{name}.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


HEAD = "questions,num_questions,image_idx,question_idx,vlm_answers,judgments"


def test_the_released_programs_failures_and_equal_questions_are_read_for_what_they_are(tmp_path):
    """Picture 0: two right grades, eight that failed (-1, no cell, 10 from "1 of 10"). Picture 1: one question twice,
    six wrong each. The program finds both unknown: 8 of 10, and 12 of 20."""
    rows = (
        ["What is it?,1,0,0,a,3"] * 2
        + ["What is it?,1,0,0,a,-1"] * 6
        + ["What is it?,1,0,0,,", "What is it?,1,0,0,a,10"]
    )
    for number in (0, 1):
        rows += [f"Which?,2,1,{number},a,1.0"] * 6 + [f"Which?,2,1,{number},a,3.0"] * 4
    table = written(tmp_path, "judgments", HEAD, *rows)
    stage, pictures = read_knowada(table)
    assert stage == "judgments" and pictures[0].asked[0].grades == (3, 3, *[None] * 8)
    assert pictures[0].asked[0].answers[8] is None
    assert [asked.grades for asked in pictures[1].asked] == [(1,) * 6 + (3,) * 4]
    kept, failures, step, _ = run(tmp_path, [one(), one(key="1")], start_from=table)
    assert kept == [one(), one(key="1")] and not failures and step.counts["grade_asked"] == 0


def test_a_picture_that_a_table_lacks_is_a_failure(tmp_path):
    table = written(tmp_path, "judgments", HEAD, "What is it?,1,1,0,a,3")
    kept, failures, _, _ = run(tmp_path, [one(), one(key="1")], start_from=table)
    assert kept == [one(key="1")]
    assert [(f.key, f.reason) for f in failures] == [("0", "judgments.csv has no row of picture 0")]


@pytest.mark.parametrize(("name", "lines", "told"), [
    ("grades", [HEAD], "one of questions.csv, answers.csv"),
    ("judgments", ["questions,image_idx"], "line 1.*question_idx, vlm_answers, judgments missing"),
    ("judgments", [HEAD, "What?,1,0,0,a,good"], "line 2: judgments must be numbers"),
    ("judgments", [HEAD, "What?,1,first,0,a,1"], "line 2: image_idx must be a whole number"),
    ("judgments", [HEAD, "What?,1,0,0"], "line 2: expected 6 cells"),
    ("difficult_questions_list", [",num_questions,image_idx,question_idx,questions", "0,1,0,0,What?"], "be a list"),
])  # fmt: skip
def test_a_bad_table_is_refused_with_its_line(tmp_path, name, lines, told):
    with pytest.raises(UsageError, match=told):
        read_knowada(written(tmp_path, name, *lines))


def test_tables_that_are_not_finished_do_not_appear(tmp_path):
    with pytest.raises(RuntimeError), KnowAdaWriter(tmp_path) as writer:
        writer.add(0, Adapted((Asked("What?", ("a",), (1,)),), ("What?",), "a car"))
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_tables_want_all_records_with_one_caption_each(tmp_path):
    two = Record("0", captions=[Caption("a car"), Caption("a bus")])
    with pytest.raises(UsageError, match="one caption a picture"):
        run(tmp_path, [two], tables=str(tmp_path / "tables"))
    step = lambda **settings: run(tmp_path, [], **settings)[2]  # noqa: E731
    assert step().scope == "record" and step(tables=str(tmp_path / "tables")).scope == "all"
    table = written(tmp_path, "rewritten_captions", "image_idx,questions,rewritten_caption,num_questions,question_idx")
    with pytest.raises(UsageError, match=r"read judgments\.csv instead"):
        step(tables=str(tmp_path / "tables"), start_from=table)
