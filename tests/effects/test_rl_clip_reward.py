"""CLIP-S as a reward on SceneWorld: a captioner that leaves colours out learns to name them, and pays in CIDEr.

What `python -m benchmarks.rl.effects` shows beside other rewards (docs/rl_effects.md). What is named is read from the
scenes; retrieval is judged by a dual encoder that the reward never saw.
"""

import json

import pytest

pytestmark = pytest.mark.effect

ONE_CORE = ["trainer=cpu", "trainer.devices=1"]
BRIEF = ["val_every=100", "controls=0", "data.train.source.count=3200"]


@pytest.fixture(scope="module")
def tuned(run_once, start, judges, seed):
    """Final numbers of an experiment that starts from a captioner of generic captions."""

    def run(experiment):
        words = [
            f"experiment={experiment}",
            f"init_from={start('generic', seed)}",
            *judges,
            *ONE_CORE,
            *BRIEF,
            f"seed={seed}",
        ]
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


def test_captions_name_the_colours_that_their_pictures_have(rewarded, measured):
    assert measured("gain in colours named", gain(rewarded, "color_recall"), ">", 0.5)
    assert measured("colours right", rewarded["test/color_precision"], ">", 0.9)


def test_another_judge_finds_their_pictures(rewarded, measured):
    assert measured("gain in CLIP-S", gain(rewarded, "clip_score_mean"), ">", 0.5)
    assert measured("gain in R@1 in 20", gain(rewarded, "rd20_r1"), ">", 0.3)


@pytest.mark.nightly
def test_a_reward_for_other_pictures_gains_neither(shuffled, measured):
    control = "shuffled reward"
    assert not measured("gain in colours named", gain(shuffled, "color_recall"), ">", 0.5, control)
    assert not measured("gain in R@1 in 20", gain(shuffled, "rd20_r1"), ">=", 0.03, control)


def test_the_price_is_cider_and_repetition(rewarded, measured):
    assert measured("gain in CIDEr", gain(rewarded, "cider"), "<", -0.3)
    assert measured("gain in repetition", gain(rewarded, "repetition"), ">", 0)
