"""System 13 where CLIP-S alone degenerates: captions repeat words; the grammar reward prevents it and keeps the gain.

From a captioner of 500 steps, rewarded by an encoder of 400. Repetition is that of 4-grams, which no caption of the
world's grammar repeats (`test_no_reference_repeats_four_words`). Retrieval is judged by an encoder that no reward saw.

Caught: a grammar weight / 100 (words repeat as under CLIP-S alone) and CLIP-S of another picture (nothing is gained:
the control). Not caught: a grammar head that never saw repetition, which knows babble from its other negatives.
"""

import json

import pytest

from capkit.metrics.diversity import repetition
from capkit.text.ptb import ptb_tokenize

# The runs that it starts from take five minutes of CPU: too long for CI.
pytestmark = [pytest.mark.effect, pytest.mark.nightly]

POINTS, KEPT = 0.05, 0.7
ALONE, GRAMMAR, SHUFFLED = (f"clip_reward_degenerate{part}_sceneworld" for part in ("", "_grammar", "_shuffled"))


@pytest.fixture(scope="module")
def tuned(run_once, weak_captioners, weak_encoder, grammar_judge, judges):
    """The folder of an experiment that starts from a weak captioner and is rewarded by a weak encoder."""

    def run(experiment, seed):
        words = [
            f"experiment={experiment}",
            f"seed={seed}",
            f"init_from={weak_captioners[seed]}",
            f"reward_encoder={weak_encoder}",
            judges[1],
            "trainer=cpu",
            "trainer.devices=1",
            "eval_limit=200",
        ]
        if experiment != ALONE:
            words.append(f"reward.grammar.scorer.encoder.ckpt={grammar_judge}")
        return run_once(f"{experiment} {seed}", words)

    return run


@pytest.fixture(scope="module")
def gains(tuned):
    """What an experiment adds to a number of the captioner that it starts from, on held-out pictures."""

    def of(experiment, seed):
        numbers = json.loads((tuned(experiment, seed) / "metrics.json").read_text())
        return {
            name: numbers[f"test/{name}"] - numbers[f"test/initial/{name}"]
            for name in ("repetition", "rd20_r1", "clip_score_mean", "cider")
        }

    return of


def degenerates(gain):
    """Found by the judge, and repeating words."""
    return gain["rd20_r1"] > 0.1 and gain["repetition"] >= POINTS


def keeps_language(gain, alone):
    """Found by the judge as CLIP-S alone is, without repeating words."""
    return gain["rd20_r1"] >= KEPT * alone["rd20_r1"] > 0 and gain["repetition"] < POINTS


def test_clip_score_alone_repeats_words_and_loses_cider(gains, seed):
    alone = gains(ALONE, seed)
    assert degenerates(alone) and not keeps_language(alone, alone), alone
    assert alone["clip_score_mean"] > 0.3 and alone["cider"] < -1, alone


def test_the_grammar_reward_prevents_it_and_keeps_the_gain(gains, seed):
    alone, both = gains(ALONE, seed), gains(GRAMMAR, seed)
    assert keeps_language(both, alone) and not degenerates(both), (both, alone)
    assert both["cider"] > alone["cider"] + 0.3, (both, alone)


def test_a_reward_for_other_pictures_with_grammar_gains_nothing(gains, seed):
    alone, shuffled = gains(ALONE, seed), gains(SHUFFLED, seed)
    assert not degenerates(shuffled) and not keeps_language(shuffled, alone), (shuffled, alone)
    assert shuffled["clip_score_mean"] < 0.3, shuffled


def test_no_reference_repeats_four_words(tuned, seed):
    rows = json.loads((tuned(ALONE, seed) / "predictions" / "test_references.json").read_text())
    texts = [annotation["caption"] for annotation in rows["annotations"]]
    words = [line.split() for line in ptb_tokenize(texts)]
    assert len(words) >= 200 and max(repetition(line, 4) for line in words) == 0
    assert sum(repetition(line, 2) for line in words) > 0  # two objects may be of one kind
