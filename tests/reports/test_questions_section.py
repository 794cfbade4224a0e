"""The section of a reward that asks questions: charts of what was logged, and answers before and now."""

import re

import numpy as np

from capkit.reports.questions import questions_section
from capkit.reports.rl import write_rl_report
from capkit.run.folder import RunFolder

PICTURE = np.zeros((8, 8, 3), np.uint8)
TERM = "reward/question_answering"
STEPS = [
    {
        "step": step, TERM: 0.3 + step / 100, f"{TERM}_right_color": 0.2, f"{TERM}_right_object_count": 0.5,
        f"{TERM}_repeated": 0.25, f"{TERM}_unread": 0.0, f"{TERM}_abstained": 0.4, f"{TERM}_read_seconds": 1.5,
        f"{TERM}_answers_per_second": 700.0, "rl/length": 8.0, "rl/repetition": 0.1, "rl/hit_max_length": 0.2,
        "train/images_per_second": 4.0,
    }
    for step in (10, 20)
]  # fmt: skip
VALIDATED = {"step": 10, f"val/{TERM}": 0.6}


def said(text, right=False, abstained=False):
    return {"said": text, "right": right, "abstained": abstained}


ROW = {
    "key": "a<b>", "caption": "a red <hat>", "before": "", "references": [], "metadata": {},
    "answers": [
        {"question": "what is <it>?", "answer": "a hat", "before": said(None), "now": said("a hat", right=True)},
        {"question": "how many?", "answer": "one", "before": said("three"), "now": said("Cannot", abstained=True)},
    ],
}  # fmt: skip


def titles(page):
    return re.findall(r"font-weight='600' font-size='13'>([^<]*)<", page)


def test_what_was_logged_is_drawn():
    page = questions_section([*STEPS, VALIDATED], [], images_per_step=16)
    assert titles(page) == [
        "questions answered rightly", "right, by kind of question", "words of a caption",
        "repetition, share cut at the length", "share of questions", "answers a second",
        "the reader&#x27;s share of a step",
    ]  # fmt: skip
    assert {"color", "object count", "repeated", "abstained", "unread", "cut", "greedy"} <= set(
        re.findall(r">([a-z ]+)</text>", page)
    )


def test_the_readers_share_is_its_seconds_over_those_of_a_step():
    """16 pictures at 4 a second take 4 seconds, of which reading took 1.5."""
    page = questions_section(STEPS, [], images_per_step=16)
    assert "[20, 0.375]" in re.sub(r"\[[\d.]+, (\d+), ([\d.]+)\]", r"[\1, \2]", page.split("<svg")[-1])
    assert "share of a step" not in questions_section(STEPS, [])  # not known how many pictures a step has


def test_answers_before_and_now_stand_beside_the_right_one_escaped():
    page = questions_section([], [(ROW, PICTURE)])
    cells = [
        [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<td>(.*?)</td>", row)] for row in page.split("<tr>")
    ]
    assert [row for row in cells if row] == [
        ["what is &lt;it&gt;?", "a hat", "not read", "a hat"],
        ["how many?", "one", "three", "abstained"],
    ]
    assert re.findall(r'class="answer (\w+)">(?:not read|a hat|three|abstained)<', page) == [
        "open", "right", "wrong", "open"
    ]  # fmt: skip
    assert "a red &lt;hat&gt;" in page and "<i>(empty)</i>" in page


def test_many_kinds_of_question_are_drawn_in_several_charts():
    rows = [{"step": step, **{f"{TERM}_right_k{n}": 0.5 for n in range(9)}} for step in (1, 2)]
    assert titles(questions_section(rows, [])).count("right, by kind of question") == 2


def test_a_terms_kinds_are_not_those_of_a_term_whose_name_goes_on():
    rows = [{"step": 1, "reward/qa_right_color": 0.25, "reward/qa_shuffled_right_color": 0.75}]
    page = questions_section(rows, [])
    assert page.count("1, 0.25]") == page.count("1, 0.75]") == 1


def test_runs_without_questions_have_no_such_section(tmp_path):
    assert questions_section([{"step": 1, "reward/cider": 1.0}], []) == ""
    folder = RunFolder(tmp_path)
    folder.open({"seed": 0, "data": {"batch_size": 16}})
    folder.append(10, {"reward/total": 1.0})
    write_rl_report(folder, "a run", [])
    assert "<h2>Questions</h2>" not in folder.report.read_text()
    for row in STEPS:
        folder.append(row["step"] + 10, {name: value for name, value in row.items() if name != "step"})
    write_rl_report(folder, "a run", [], answers=[(ROW, PICTURE)])
    assert "<h2>Questions</h2>" in folder.report.read_text() and "share of a step" in folder.report.read_text()
