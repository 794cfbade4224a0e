from collections import Counter

import numpy as np
import pytest

from capkit.curation.steps.judge_candidates import JudgeCandidates
from capkit.data.images import BadImage
from capkit.data.records import Caption, Record
from capkit.errors import UsageError
from capkit.llm.base import Answer
from capkit.sceneworld.chat.sections import sections

GRAY = np.zeros((4, 4, 3), np.uint8)
NAMES = ("a", "b", "c", "d")


class Judge:
    takes_pictures = True

    def __init__(self, pick=lambda lines: "1", mend="A mended caption."):
        self.pick, self.mend, self.asked = pick, mend, []

    def about(self):
        return {"model": "judge"}

    def ask(self, questions):
        self.asked += questions
        given = [sections(question.text) for question in questions]
        return [Answer(self.pick(g["candidates"].splitlines()) if "candidates" in g else self.mend) for g in given]


def record(key="0", names=NAMES):
    candidates = [Caption(f"By {name}.", f"candidate/{name}/p/m") for name in names]
    return Record(key, captions=[Caption("An author's caption."), *candidates], metadata={"ocr": "sun"})


def run(folder, records, judge, read=lambda key: GRAY, **settings):
    failures = []
    step = JudgeCandidates(judge, cache_dir=str(folder), **settings)
    step.attach_failures(failures.append)
    step.attach_images(read)
    return list(step(lambda: records)), failures, step


def who(name):
    """A judge that finds one generator's caption, wherever it stands."""
    return lambda lines: next(line.partition(". ")[0] for line in lines if line.endswith(f"By {name}."))


def test_the_number_picks_the_caption_that_was_shown_there(tmp_path):
    records = [record(str(i)) for i in range(20)]
    after, failures, _ = run(tmp_path, records, Judge(who("c")), mend_prompt=None)
    assert [c.text for r in after for c in r.captions] == ["By c."] * 20 and not failures
    assert {r.metadata["mlbcap_long_picked"] for r in after} == {"candidate/c/p/m"}
    assert all(r.metadata["mlbcap_long"] == "By c." for r in after)


def test_the_order_is_drawn_by_seed_and_key_whatever_the_order_of_the_generators(tmp_path):
    keys = [str(i) for i in range(400)]
    first = run(tmp_path, [record(key) for key in keys], Judge(), mend_prompt=None)[0]
    again = run(tmp_path, [record(key, NAMES[::-1]) for key in keys], Judge(), mend_prompt=None)[0]
    orders = [r.metadata["mlbcap_long_order"] for r in first]
    assert orders == [r.metadata["mlbcap_long_order"] for r in again]
    counts = Counter(order[0] for order in orders)
    assert all(abs(counts[f"candidate/{name}/p/m"] - 100) < 35 for name in NAMES), "four standard deviations"
    other = run(tmp_path, [record(key) for key in keys], Judge(), mend_prompt=None, seed=1)[0]
    assert orders != [r.metadata["mlbcap_long_order"] for r in other]


def test_without_shuffling_they_stand_as_listed(tmp_path):
    (after,), _, _ = run(tmp_path, [record(names="dbca")], Judge(), mend_prompt=None, shuffle=False)
    assert after.metadata["mlbcap_long_order"] == [f"candidate/{name}/p/m" for name in "dbca"]
    assert after.captions[0].text == "By d."


@pytest.mark.parametrize(
    "reply", ["Answer 2 is right", "2.", "The best is 3", "5", "0", "-1", "", "None of them", "1 or 2"]
)
def test_anything_but_a_number_of_a_candidate_is_a_failure(tmp_path, reply):
    after, failures, _ = run(tmp_path, [record()], Judge(lambda lines: reply))
    assert not after and failures[0].reason.startswith("pick: ") and failures[0].key == "0"


def test_a_number_without_a_candidate_is_asked_again_as_the_next_sample(tmp_path):
    class Draws(Judge):
        draws = True

        def ask(self, questions):
            self.asked += questions
            return [Answer("5" if question.sample == 0 else "2") for question in questions]

    judge = Draws()
    (after,), failures, step = run(tmp_path, [record()], judge, mend_prompt=None, pick_retries=1)
    assert not failures and step.counts["pick_refused"] == 1 and [q.sample for q in judge.asked] == [0, 1]
    assert after.metadata["mlbcap_long_picked"] == after.metadata["mlbcap_long_order"][1]
    (again,), _, step = run(tmp_path, [record()], judge, mend_prompt=None, pick_retries=1)
    assert again == after and step.counts["pick_asked"] == 0
    after, failures, _ = run(tmp_path / "b", [record()], Draws(), mend_prompt=None)
    assert not after and "from 1 to 4, got 5" in failures[0].reason


def test_the_judge_mends_its_pick_and_the_text_may_be_free(tmp_path):
    judge = Judge(who("b"))
    (after,), failures, step = run(tmp_path, [record()], judge)
    assert not failures and step.counts["pick_asked"] == step.counts["mend_asked"] == 1
    assert [(c.text, c.source) for c in after.captions] == [("A mended caption.", "mlbcap/mlbcap_mend_v1/judge")]
    pick, mend = judge.asked
    assert sections(mend.text)["candidate"] == "By b." and "At most 50 words" in mend.text
    assert all(sections(q.text)["ocr"] == "sun" and len(q.pictures) == 1 for q in (pick, mend))


def test_a_mended_caption_is_in_the_language_of_its_pick(tmp_path):
    told = Record("0", captions=[Caption("By b.", "candidate/b/p/m", "pt-BR")])
    (after,), _, _ = run(tmp_path, [told], Judge(who("b")))
    assert [caption.language for caption in after.captions] == ["pt-BR"]


def test_a_mended_caption_that_is_too_long_is_a_failure_and_the_pick_takes_not_its_place(tmp_path):
    judge = Judge(mend=" ".join(["word"] * 31))
    assert len(run(tmp_path / "a", [record()], judge)[0]) == 1
    after, failures, _ = run(tmp_path / "b", [record()], judge, max_words=30)
    assert not after and "31 words, more than max_words=30" in failures[0].reason


def test_two_lengths_cost_one_pick(tmp_path):
    judge = Judge()
    records, _, _ = run(tmp_path, [record()], judge, keep=True)
    (after,), _, step = run(tmp_path, records, judge, field="mlbcap_short", max_words=30, keep=True)
    assert step.counts["pick_cached"] == 1 and step.counts["mend_asked"] == 1
    assert {"mlbcap_long", "mlbcap_short"} <= after.metadata.keys() and len(after.captions) == 7


def test_one_candidate_is_not_picked_and_none_is_a_failure(tmp_path):
    records = [record(names="a"), record("1", names=""), record("2")]

    def read(key):
        if key == "2":
            raise BadImage("empty file (0 bytes)")
        return GRAY

    after, failures, step = run(tmp_path, records, Judge(), read, mend_prompt=None)
    assert [r.key for r in after] == ["0"] and step.counts["pick_asked"] == 0
    assert {(f.key, f.reason) for f in failures} == {
        ("1", "no candidate; run write_candidates first"), ("2", "picture: empty file (0 bytes)")
    }  # fmt: skip


def test_it_needs_a_judge(tmp_path):
    with pytest.raises(UsageError, match="vision_chat="):
        JudgeCandidates(cache_dir=str(tmp_path))
