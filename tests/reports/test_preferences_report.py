"""The page of a run on pairs: each pair with what it was and is, and an alarm where the chosen captions fell."""

import numpy as np
import pytest

from capkit.reports.preferences import fall, write_preferences_report
from capkit.run.folder import RunFolder


def logged(drops, split="train"):
    return [{"step": step, f"{split}/preference/chosen_drop": drop} for step, drop in drops.items()]


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        (logged({0: 0.0, 10: 0.5}), None),
        (logged({0: 0.0, 10: 0.6, 20: 1.5, 30: 0.2}), {"step": 10, "kind": "trained on", "deepest": 1.5}),
        (
            logged({10: 0.9}) + logged({5: 0.7, 10: 1.1}, "val"),
            {"step": 5, "kind": "held out", "deepest": 1.1},
        ),
        ([], None),
    ],
)
def test_the_alarm_names_the_first_step_below_the_limit_and_the_deepest_fall(rows, found):
    assert fall(rows, 0.5) == found


def page_of(path, deepest):
    folder = RunFolder(path)
    folder.open({"seed": 0})
    for step in (0, 10, 20):
        drop = {"preference/chosen_drop": step / 20 * deepest, "preference/chosen_logprob": -5.0 - step}
        row = {"loss": 0.6, "preference/rejected_logprob": -9.0, "preference/accuracy": 0.5, **drop}
        folder.append(step, {f"{split}/{name}": value for split in ("train", "val") for name, value in row.items()})
    pair = {"key": "a.png", "chosen": "<b>two dogs", "rejected": "one cat", "criterion": "rated", "scores": None}
    pair |= {"before": [-5.0, -6.0], "now": [-4.25, -9.5], "margin": -4.25}
    write_preferences_report(folder, "run", [(pair, np.zeros((8, 8, 3), np.uint8))], [], 0.5)
    return folder.report.read_text()


def test_a_pair_shows_its_picture_captions_log_probabilities_and_margin(tmp_path):
    page = page_of(tmp_path, 0.1)
    assert "&lt;b&gt;two dogs" in page and "-5.00 → -4.25" in page and "-6.00 → -9.50" in page
    assert '<div class="turned">margin -4.25</div>' in page and "a.png, by rated" in page
    assert "have become less probable" not in page and ">max_drop<" not in page
    assert page.count(">chosen</text>") == page.count(">rejected</text>") == 2


def test_an_alarm_stands_above_pairs_whose_chosen_captions_fell(tmp_path):
    page = page_of(tmp_path, 1.5)
    alarm, pairs = page.index("have become less probable"), page.index("Held-out pairs")
    assert alarm < pairs and "max_drop=0.5 nats a token from step 10 on" in page and "by 1.50 at most" in page
    assert ">max_drop<" in page
