"""CLIP-S as a reward on SceneWorld: a captioner that leaves colours out learns to name them, and pays in CIDEr.

One seed of what `python -m benchmarks.rl.effects` shows over three (docs/rl_effects.md). What is named is read from the
scenes; retrieval is judged by a dual encoder that the reward never saw.
"""

import json

import pytest

ONE_CORE = ["trainer=cpu", "trainer.devices=1", "val_every=100"]


@pytest.fixture(scope="module")
def tuned(run_once, generic_captioner, judges):
    """Final numbers of an experiment that starts from a captioner of generic captions."""

    def run(experiment):
        words = [f"experiment={experiment}", f"init_from={generic_captioner}", *judges, *ONE_CORE]
        return json.loads((run_once(experiment, words) / "metrics.json").read_text())

    return run


def gain(numbers, name):
    return numbers[f"test/{name}"] - numbers[f"test/initial/{name}"]


@pytest.fixture(scope="module")
def rewarded(tuned):
    return tuned("clip_reward_sceneworld")


@pytest.fixture(scope="module")
def shuffled(tuned):
    return tuned("clip_reward_shuffled_sceneworld")


@pytest.mark.effect
def test_captions_name_the_colours_that_their_pictures_have(rewarded):
    assert gain(rewarded, "color_recall") > 0.5 and rewarded["test/color_precision"] > 0.9


@pytest.mark.effect
def test_another_judge_finds_their_pictures(rewarded):
    assert gain(rewarded, "clip_score_mean") > 0.5
    assert gain(rewarded, "rd20_r1") > 0.3


@pytest.mark.effect
@pytest.mark.nightly
def test_a_reward_for_other_pictures_gains_neither(shuffled):
    assert gain(shuffled, "color_recall") < 0.5
    assert gain(shuffled, "rd20_r1") < 0.03


@pytest.mark.effect
def test_the_price_is_cider_and_repetition(rewarded):
    assert gain(rewarded, "cider") < -0.3
    assert gain(rewarded, "repetition") > 0
