"""The page of judged captions: the hardest first, claims coloured by their verdicts, failures with their reasons."""

import json
import re

import numpy as np

from capkit.judges.claims import Failed
from capkit.metrics.caption_qa import CaptionQA
from capkit.metrics.dcscore import DCScore
from capkit.metrics.dnli import DNLI
from capkit.metrics.scoring import resample_rows, score_rows
from capkit.readers.base import Reading
from capkit.reports.judged import NUM_HARDEST, write_judged_page
from capkit.sceneworld.judges import SceneDecomposer, SceneMatcher, SceneVerifier

REFERENCE = "A large red circle is in the top left."


def row(key, caption, reference=REFERENCE):
    return {"key": key, "caption": caption, "references": [reference], "metadata": {}}


def test_the_hardest_come_first_with_claims_coloured_by_verdict(tmp_path):
    rows = [row("good", REFERENCE), row("bad", "A blue circle. <b>Calm</b>!"), row("half", "A red circle and a star.")]
    metrics = {"dcscore": DCScore(SceneDecomposer(), SceneMatcher(), SceneVerifier("text"))}
    numbers, intervals = score_rows(rows, metrics), resample_rows(rows, metrics, None, 0.95, 0)
    path = write_judged_page(tmp_path, rows, metrics, numbers, intervals, lambda key: np.zeros((4, 4, 3), np.uint8))
    page = path.read_text()
    assert re.findall(r"<div class='note'>(\w+): ", page) == ["bad", "half", "good"]
    assert "<span class='mark wrong'>object_0 is blue.</span>" in page
    assert page.count("<span class='mark right'>object_0 is a circle.</span>") == 3
    assert "<b>" not in page and "&lt;b&gt;" in page, "captions are text"
    assert page.count("<img src='data:image/png") == 3
    shown = re.search(r"<td>dcscore</td><td>([\d.]+)</td><td>([\d.]+) to ([\d.]+)</td>", page)
    assert float(shown[1]) == round(numbers["dcscore"], 2) and float(shown[2]) <= float(shown[1]) <= float(shown[3])


def test_failures_are_listed_with_their_reasons_and_many_pictures_cut(tmp_path):
    class Lost(SceneDecomposer):
        def decompose(self, texts):
            for item, text in texts:
                ((_, claims),) = super().decompose([(item, text)])
                yield item, Failed("claims: no answer") if text == "lost" else claims

    rows = [row(f"k{number}", "A red circle.") for number in range(20)] + [row("gone", "lost")]
    metrics = {"dnli": DNLI(Lost(), SceneVerifier("text"), max_failed=0.5)}
    page = write_judged_page(tmp_path, rows, metrics, score_rows(rows, metrics), {}).read_text()
    assert f"The {NUM_HARDEST} hardest of 20 pictures" in page and page.count("class='sample'") == NUM_HARDEST
    assert "Failed: 1" in page and "gone: claims: no answer" in page and "<img" not in page


def test_a_failure_of_some_questions_says_how_many_and_shows_one(tmp_path):
    class Half:
        def about(self):
            return {"reader": "half"}

        def read(self, texts, questions):
            lost = Reading(None, failure="no letter", said="hm")
            return [[Reading(0) if number else lost for number, _ in enumerate(asked)] for asked in questions]

    asked = [{"question": word, "choices": ["a", "b"], "answer": "a", "category": "Size"} for word in ("how?", "who?")]
    (tmp_path / "questions.json").write_text(json.dumps({"k": asked}))
    metrics = {"caption_qa": CaptionQA(Half(), str(tmp_path / "questions.json"), shuffle=False, max_failed=0.5)}
    rows = [row("k", "A red circle.")]
    page = write_judged_page(tmp_path, rows, metrics, score_rows(rows, metrics), {}).read_text()
    assert "<li>k: 1 of 2 judgements, such as no letter</li>" in page
    assert "<td>caption_qa/size</td><td>1</td>" in page and "<span class='mark open'>how? (unreadable)</span>" in page


def test_without_anything_to_show_there_is_no_page(tmp_path):
    assert write_judged_page(tmp_path, [row("a", "b")], {"length": object()}, {}, {}) is None
    assert not list(tmp_path.iterdir())
