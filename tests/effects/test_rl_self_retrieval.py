"""Self-retrieval on SceneWorld names what tells pictures apart, on another corpus too, and look-alikes teach more.

At small size what `python -m benchmarks.rl.self_retrieval_effects` shows over three seeds
(docs/self_retrieval_effects.md). What is named is read from the scenes.
"""

import json

import pytest

from benchmarks.rl import boosted_captions
from benchmarks.rl.effects import Study
from benchmarks.rl.self_retrieval_effects import boosted_captioner, tuned_by_readers

pytestmark = pytest.mark.effect

ONE_CORE = ["trainer=cpu", "trainer.devices=1"]
BRIEF = ["max_steps=50", "val_every=50", "data.test.source.count=200", "controls=0"]


def numbers(folder):
    return json.loads((folder / "metrics.json").read_text())


# The listener ---------------------------------------------------------------------------------------------------------


TUNED, SHUFFLED = "discritune_sceneworld", "discritune_shuffled_sceneworld"


@pytest.fixture
def listener(run_once, generic_captioners, judges):
    """The run of an experiment that tunes the generic captioner of a seed."""

    def of(experiment, seed):
        words = [f"experiment={experiment}", f"init_from={generic_captioners[seed]}", *judges, *BRIEF, *ONE_CORE]
        words += ["metric=[cider,facts,fact_kinds,rd20_trained]", f"seed={seed}"]
        return run_once(f"brief_{experiment}_{seed}", words)

    return of


@pytest.fixture
def gain(listener):
    """By how much a number of the test pictures rises when an experiment tunes the generic captioner."""

    def of(experiment, seed, name):
        found = numbers(listener(experiment, seed))
        return found[f"test/{name}"] - found[f"test/initial/{name}"]

    return of


def test_a_listener_raises_recall_and_the_naming_of_colours(gain, seed):
    assert gain(TUNED, seed, "rd20_r1") > 0.1
    assert gain(TUNED, seed, "color_recall") > 0.5


def test_a_listener_asked_for_other_pictures_raises_neither(gain, seed):
    assert gain(SHUFFLED, seed, "rd20_r1") < 0.03
    assert gain(SHUFFLED, seed, "color_recall") < 0.03


# Another corpus -------------------------------------------------------------------------------------------------------


@pytest.fixture
def abroad(run_once, generic_captioners, listener, judges):
    """Numbers of captioners of data=sceneworld_generic on a corpus with other scenes and references (docs/data.md)."""
    judge = judges[1].removeprefix("eval_encoder=")  # neither rewards nor mines

    def of(experiment, seed):
        captioner = generic_captioners[seed] if experiment is None else listener(experiment, seed)
        words = ["task=evaluate", f"ckpt={captioner}", "data=sceneworld_out_of_domain", "decoding.max_length=16"]
        words += ["metric=[cider,facts,rd20_trained]", f"metric.rd20.encoder.ckpt={judge}", *ONE_CORE]
        return numbers(run_once(f"abroad_{experiment}_{seed}", words))

    return of


@pytest.fixture
def gain_abroad(abroad):
    def of(experiment, seed, name):
        return abroad(experiment, seed)[f"test/{name}"] - abroad(None, seed)[f"test/{name}"]

    return of


def test_on_another_corpus_captions_come_closer_to_the_references_and_at_home_they_leave_them(gain, gain_abroad, seed):
    """What DiscriTune's title claims: the references at home are vague, those of the other corpus are not.

    Without tuning every gain is 0; with the reward taken away, the next test's numbers.
    """
    assert gain(TUNED, seed, "cider") < -0.5
    assert gain_abroad(TUNED, seed, "cider") > 0.5
    assert gain_abroad(TUNED, seed, "fact_recall") > 0.05
    assert gain_abroad(TUNED, seed, "rd20_r1") > 0.2


def test_on_another_corpus_a_listener_asked_for_other_pictures_brings_captions_no_closer(gain_abroad, seed):
    assert gain_abroad(SHUFFLED, seed, "cider") < 0.1
    assert gain_abroad(SHUFFLED, seed, "fact_recall") < 0.01
    assert gain_abroad(SHUFFLED, seed, "rd20_r1") < 0.03


# Bags of look-alikes --------------------------------------------------------------------------------------------------


def rise(comparison, arm, name):
    return comparison.numbers(arm)[name] - comparison.numbers("start")[name]


def finds_look_alikes(comparison, arm):
    """By an encoder of another seed than the one that mined and rewarded, in bags that it mined itself."""
    return rise(comparison, arm, "truematch_5_r1") > 0.1 and rise(comparison, arm, "rd20_r1") > -0.02


def says_what_they_differ_in(comparison, arm):
    """Read from the scenes: the background is named, and little that is wrong."""
    found = comparison.numbers(arm)
    return (
        found["background_recall"] > 0.5 and found["fact_precision"] > 0.85 and rise(comparison, arm, "fact_recall") > 0
    )


@pytest.mark.nightly
def test_batches_of_look_alikes_raise_recall_among_look_alikes(look_alike_bags, seeds):
    """BagCurri with its running mean. Where training bags are random groups, nothing rises (R@1 .81 from .82)."""
    for seed in seeds:
        comparison = look_alike_bags(seed)
        assert comparison.numbers("start")["background_said"] < 0.05
        assert finds_look_alikes(comparison, "bags") and says_what_they_differ_in(comparison, "bags")


@pytest.mark.nightly
def test_random_batches_of_the_same_number_do_not(look_alike_bags, seeds):
    """The control: everything but the curriculum is the same."""
    for seed in seeds:
        comparison = look_alike_bags(seed)
        assert not finds_look_alikes(comparison, "random")
        assert not says_what_they_differ_in(comparison, "random")
        gap = comparison.numbers("bags")["truematch_5_r1"] - comparison.numbers("random")["truematch_5_r1"]
        assert gap > 0.05


# Plain, merged and enriched captions ----------------------------------------------------------------------------------


@pytest.mark.study
def test_likelihood_training_finds_more_and_says_more_after_richer_captions(tmp_path, seeds):
    """MLE(HolisticCap) > MLE(BlendCap) > MLE(plain), in retrieval by an encoder that read all three, and in facts.

    The control is the captions of other pictures, with which every captioner is at chance.
    """
    study = Study(tmp_path)
    for seed in seeds:
        plain, blend, holistic = (boosted_captions.numbers(study, kind, seed) for kind in boosted_captions.KINDS)
        for name, chance in (("rd20_r1", 0.1), ("fact_recall", 0.5)):
            assert holistic[name] > blend[name] + 0.05 and blend[name] > plain[name] + 0.05
            assert holistic[f"shuffled/{name}"] < chance < holistic[name]


# Generic captions against merged ones ---------------------------------------------------------------------------------


@pytest.mark.study
def test_faithfulness_is_kept_after_merged_captions_and_some_is_lost_after_generic_ones(tmp_path, seeds):
    """By judges that read both. Fact precision is read from the scenes."""
    study = Study(tmp_path)

    def loss(start_of, seed):
        found = numbers(tuned_by_readers(study, start_of(seed), "1e-4", seed))
        return found["test/initial/fact_precision"] - found["test/fact_precision"]

    generic = [loss(lambda seed: study.base("generic", seed), seed) for seed in seeds]
    merged = [loss(lambda seed: boosted_captioner(study, seed), seed) for seed in seeds]
    assert max(merged) < 0.01 < sum(generic) / len(generic)
    assert all(after_merged < after_generic for after_merged, after_generic in zip(merged, generic, strict=True))
