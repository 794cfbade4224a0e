import numpy as np
import pytest

from capkit.curation.steps.grade_captions import GradeCaptions, broken_rule
from capkit.data.images import BadImage
from capkit.data.records import Caption, Record
from capkit.errors import UsageError
from capkit.llm.base import Answer
from capkit.sceneworld.chat.sections import sections

GRAY = np.zeros((4, 4, 3), np.uint8)


@pytest.mark.parametrize(("text", "rule"), [
    ("It rises. Then it falls.", None), ("It rises. Then it falls", "full_stop"), ("It rises", "full_stop"),
    ("It rises.", "sentences"), ("It rises by 0.5 percent.", "sentences"), ("Does it rise? It does.", None),
    (f"One. {'word ' * 98}end.", None), (f"One. {'word ' * 99}end.", "words"), (" It rises. It falls. ", None),
])  # fmt: skip
def test_a_caption_ends_with_a_full_stop_and_has_two_sentences_and_at_most_a_hundred_words(text, rule):
    assert broken_rule(text, 100, 2) == rule


class Grader:
    """Grades a caption with its last word before the full stop."""

    takes_pictures = True

    def about(self):
        return {"model": "grader"}

    def ask(self, questions):
        return [Answer(sections(q.text)["figure_caption"].rstrip(".").split()[-1]) for q in questions]


def run(folder, records, grader, read=lambda key: GRAY, **settings):
    failures = []
    step = GradeCaptions(grader, cache_dir=str(folder), **settings)
    step.attach_failures(failures.append)
    step.attach_images(read)
    return list(step(lambda: records)), failures, step


def record(key, *grades, **metadata):
    return Record(key, captions=[Caption(f"A caption. Its grade is {grade}.") for grade in grades], metadata=metadata)


def test_grades_five_and_six_stay_with_their_grade(tmp_path):
    after, failures, step = run(tmp_path, [record("0", *range(1, 7)), record("1", 4, 2)], Grader())
    assert [(r.key, [c.score for c in r.captions]) for r in after] == [("0", [5.0, 6.0])]
    assert [(f.key, f.reason) for f in failures] == [("1", "no caption with grade 5 or more; the best has 4")]
    assert step.counts["kept"] == 2 and step.counts["dropped_grade"] == 6


@pytest.mark.parametrize("grade", ["7", "0", "six", "5.5", "6/6"])
def test_what_is_no_grade_is_a_failure_and_no_caption_stays_for_it(tmp_path, grade):
    after, failures, step = run(tmp_path, [record("0", grade)], Grader())
    assert not after and "unparsable" in failures[0].reason and step.counts["dropped_grade"] == 0


def test_rules_alone_ask_nobody_and_count_what_they_drop(tmp_path):
    captions = [Caption(t) for t in ("One. Two.", "One.", "One. Two", "One. " * 101)]
    records = [Record("0", captions=captions), Record("1", captions=captions[1:]), Record("2")]
    after, failures, step = run(tmp_path, records, None)
    assert [(r.key, [c.text for c in r.captions]) for r in after] == [("0", ["One. Two."])]
    assert {f.key: f.reason for f in failures} == {
        "1": "no caption passes the rules: sentences, full_stop, words", "2": "no caption passes the rules: no caption"
    }  # fmt: skip
    assert step.counts == {"kept": 1, "dropped_sentences": 2, "dropped_full_stop": 2, "dropped_words": 2}


def test_a_figure_stays_once(tmp_path):
    records = [record("0", 6, arxiv_id="a"), record("1", 6, arxiv_id="a"), record("2", 6, arxiv_id="b")]
    after, failures, step = run(tmp_path, records, None, once="arxiv_id")
    assert [r.key for r in after] == ["0", "2"] and failures[0].key == "1" and step.scope == "all"
    assert len(run(tmp_path, records, None)[0]) == 3 and run(tmp_path, [], None)[2].scope == "record"
    with pytest.raises(UsageError, match="no metadata 'figure'"):
        run(tmp_path, records, None, once="figure")


def test_an_unreadable_picture_is_reported(tmp_path):
    def read(key):
        raise BadImage("empty file (0 bytes)")

    after, failures, _ = run(tmp_path, [record("0", 6)], Grader(), read)
    assert not after and [f.reason for f in failures] == ["picture: empty file (0 bytes)"]


def test_a_grade_above_six_is_refused(tmp_path):
    with pytest.raises(UsageError, match="from 1 to 6"):
        GradeCaptions(Grader(), min_grade=7, cache_dir=str(tmp_path))
