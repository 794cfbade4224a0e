"""System 13 where CLIP-S alone degenerates: captions repeat words; the grammar reward prevents it and keeps the gain.

From a captioner of 500 steps, rewarded by an encoder of 400: `weak` and `weak_judge` of benchmarks/starts.py.
Repetition is that of 4-grams, which no caption of the world's grammar repeats (`test_no_reference_repeats_four_words`).
Retrieval is judged by an encoder that no reward saw.

Caught: a grammar weight / 100 (words repeat as under CLIP-S alone) and CLIP-S of another picture (nothing is gained:
the control). Not caught: a grammar head that never saw repetition, which knows babble from its other negatives.
"""

import functools
import json

import pytest

from capkit.metrics.diversity import repetition
from capkit.text.ptb import ptb_tokenize

pytestmark = pytest.mark.effect

POINTS, KEPT = 0.05, 0.7
ALONE, GRAMMAR, SHUFFLED = (f"clip_reward_degenerate{part}_sceneworld" for part in ("", "_grammar", "_shuffled"))


@pytest.fixture(scope="module")
def tuned(run_once, start, judges, seed):
    """The folder of an experiment that starts from a weak captioner and is rewarded by a weak encoder."""

    def run(experiment):
        words = [
            f"experiment={experiment}",
            f"seed={seed}",
            f"init_from={start('weak', seed)}",
            f"reward_encoder={start('weak_judge', 0)}",
            judges[1],
            "trainer=cpu",
            "trainer.devices=1",
            "data.train.source.count=2240",
            "data.test.source.count=200",
            "eval_limit=200",
            "controls=0",
        ]
        if experiment != ALONE:
            words.append(f"reward.grammar.scorer.encoder.ckpt={start('grammar', 0)}")
        return run_once(f"{experiment} {seed}", words)

    return run


@pytest.fixture(scope="module")
def gains(tuned):
    """What an experiment adds to a number of the captioner that it starts from, on held-out pictures."""

    @functools.cache
    def of(experiment):
        numbers = json.loads((tuned(experiment) / "metrics.json").read_text())
        return {
            name: numbers[f"test/{name}"] - numbers[f"test/initial/{name}"]
            for name in ("repetition", "rd20_r1", "clip_score_mean", "cider")
        }

    return of


def degenerates(measured, gain, control=""):
    """Found by the judge, and repeating words."""
    found = [
        measured("gain in R@1 in 20", gain["rd20_r1"], ">", 0.1, control),
        measured("gain in repetition", gain["repetition"], ">=", POINTS, control),
    ]
    return all(found)


def keeps_language(measured, gain, alone, control=""):
    """Found by the judge as CLIP-S alone is, without repeating words."""
    kept = gain["rd20_r1"] / alone["rd20_r1"] if alone["rd20_r1"] > 0 else float("nan")
    found = [
        measured("gain in R@1 in 20, share of that of CLIP-S alone", kept, ">=", KEPT, control),
        measured("gain in repetition", gain["repetition"], "<", POINTS, control),
    ]
    return all(found)


def test_clip_score_alone_repeats_words_and_loses_cider(gains, measured):
    alone = gains(ALONE)
    assert degenerates(measured, alone)
    assert not keeps_language(measured, alone, alone, control="CLIP-S alone")
    assert measured("gain in CLIP-S", alone["clip_score_mean"], ">", 0.3)
    assert measured("gain in CIDEr", alone["cider"], "<", -1)


def test_the_grammar_reward_prevents_it_and_keeps_the_gain(gains, measured):
    alone, both = gains(ALONE), gains(GRAMMAR)
    assert keeps_language(measured, both, alone) and not degenerates(measured, both, control="with grammar")
    assert measured("CIDEr over CLIP-S alone", both["cider"] - alone["cider"], ">", 0.3)


def test_a_reward_for_other_pictures_with_grammar_gains_nothing(gains, measured):
    alone, shuffled, control = gains(ALONE), gains(SHUFFLED), "shuffled CLIP-S with grammar"
    assert not degenerates(measured, shuffled, control)
    assert not keeps_language(measured, shuffled, alone, control)
    assert not measured("gain in CLIP-S", shuffled["clip_score_mean"], ">=", 0.3, control)


def test_no_reference_repeats_four_words(tuned):
    rows = json.loads((tuned(ALONE) / "predictions" / "test_references.json").read_text())
    texts = [annotation["caption"] for annotation in rows["annotations"]]
    words = [line.split() for line in ptb_tokenize(texts)]
    assert len(words) >= 200 and max(repetition(line, 4) for line in words) == 0
    assert sum(repetition(line, 2) for line in words) > 0  # two objects may be of one kind
