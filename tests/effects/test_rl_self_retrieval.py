"""Self-retrieval on SceneWorld names what tells pictures apart, on another corpus too, and look-alikes teach more.

At small size what `python -m benchmarks.rl.self_retrieval_effects` shows over three seeds
(docs/self_retrieval_effects.md). What is named is read from the scenes.
"""

import json
from functools import partial

import pytest

from benchmarks.rl import boosted_captions
from benchmarks.rl.self_retrieval_effects import boosted_captioner, tuned_by_readers

pytestmark = pytest.mark.effect

ONE_CORE = ["trainer=cpu", "trainer.devices=1"]
BRIEF = ["max_steps=50", "val_every=50", "data.test.source.count=200", "controls=0", "data.train.source.count=1600"]


def numbers(folder):
    return json.loads((folder / "metrics.json").read_text())


# The listener ---------------------------------------------------------------------------------------------------------


TUNED, SHUFFLED = "discritune_sceneworld", "discritune_shuffled_sceneworld"


@pytest.fixture
def listener(run_once, start, judges, seed):
    """The run of an experiment that tunes the generic captioner."""

    def of(experiment):
        words = [f"experiment={experiment}", f"init_from={start('generic', seed)}", *judges, *BRIEF, *ONE_CORE]
        words += ["metric=[cider,facts,fact_kinds,rd20_trained]", f"seed={seed}"]
        return run_once(f"brief_{experiment}_{seed}", words)

    return of


@pytest.fixture
def gain(listener):
    """By how much a number of the test pictures rises when an experiment tunes the generic captioner."""

    def of(experiment, name):
        found = numbers(listener(experiment))
        return found[f"test/{name}"] - found[f"test/initial/{name}"]

    return of


def test_a_listener_raises_recall_and_the_naming_of_colours(gain, measured):
    assert measured("gain in R@1 in 20", gain(TUNED, "rd20_r1"), ">", 0.1)
    assert measured("gain in colours named", gain(TUNED, "color_recall"), ">", 0.5)


def test_a_listener_asked_for_other_pictures_raises_neither(gain, measured):
    for name, what in (("rd20_r1", "R@1 in 20"), ("color_recall", "colours named")):
        assert not measured(f"gain in {what}", gain(SHUFFLED, name), ">=", 0.03, "asked for other pictures")


# Another corpus -------------------------------------------------------------------------------------------------------


@pytest.fixture
def abroad(run_once, start, listener, judges, seed):
    """Numbers of captioners of data=sceneworld_generic on a corpus with other scenes and references (docs/data.md)."""
    judge = judges[1].removeprefix("eval_encoder=")  # neither rewards nor mines

    def of(experiment):
        captioner = start("generic", seed) if experiment is None else listener(experiment)
        words = ["task=evaluate", f"ckpt={captioner}", "data=sceneworld_out_of_domain", "decoding.max_length=16"]
        words += ["metric=[cider,facts,rd20_trained]", f"metric.rd20.encoder.ckpt={judge}", *ONE_CORE]
        return numbers(run_once(f"abroad_{experiment}_{seed}", words))

    return of


@pytest.fixture
def gain_abroad(abroad):
    def of(experiment, name):
        return abroad(experiment)[f"test/{name}"] - abroad(None)[f"test/{name}"]

    return of


def test_on_another_corpus_captions_come_closer_to_the_references_and_at_home_they_leave_them(
    gain, gain_abroad, measured
):
    """What DiscriTune's title claims: the references at home are vague, those of the other corpus are not.

    Without tuning every gain is 0; with the reward taken away, the next test's numbers.
    """
    assert measured("gain in CIDEr at home", gain(TUNED, "cider"), "<", -0.5)
    for name, least in (("cider", 0.5), ("fact_recall", 0.05), ("rd20_r1", 0.2)):
        assert measured(f"gain in {name} abroad", gain_abroad(TUNED, name), ">", least)


def test_on_another_corpus_a_listener_asked_for_other_pictures_brings_captions_no_closer(gain_abroad, measured):
    for name, least in (("cider", 0.1), ("fact_recall", 0.01), ("rd20_r1", 0.03)):
        control = "asked for other pictures"
        assert not measured(f"gain in {name} abroad", gain_abroad(SHUFFLED, name), ">=", least, control)


# Bags of look-alikes --------------------------------------------------------------------------------------------------


def rise(comparison, arm, name):
    return comparison.numbers(arm)[name] - comparison.numbers("start")[name]


def finds_look_alikes(measured, comparison, arm, control=""):
    """By an encoder of another seed than the one that mined and rewarded, in bags that it mined itself."""
    found = [
        measured("gain in R@1 in bags of 5", rise(comparison, arm, "truematch_5_r1"), ">", 0.1, control),
        measured("gain in R@1 in 20", rise(comparison, arm, "rd20_r1"), ">", -0.02, control),
    ]
    return all(found)


def says_what_they_differ_in(measured, comparison, arm, control=""):
    """Read from the scenes: the background is named, and little that is wrong."""
    found = comparison.numbers(arm)
    said = [
        measured("background named", found["background_recall"], ">", 0.5, control),
        measured("fact precision", found["fact_precision"], ">", 0.85, control),
        measured("gain in fact recall", rise(comparison, arm, "fact_recall"), ">", 0, control),
    ]
    return all(said)


def test_batches_of_look_alikes_raise_recall_among_look_alikes(look_alike_bags, measured):
    """BagCurri with its running mean. Where training bags are random groups, nothing rises (R@1 .81 from .82)."""
    assert measured("start: background said", look_alike_bags.numbers("start")["background_said"], "<", 0.05)
    assert finds_look_alikes(measured, look_alike_bags, "bags")
    assert says_what_they_differ_in(measured, look_alike_bags, "bags")


def test_random_batches_of_the_same_number_do_not(look_alike_bags, measured):
    """The control: everything but the curriculum is the same."""
    assert not finds_look_alikes(measured, look_alike_bags, "random", control="random batches")
    assert not says_what_they_differ_in(measured, look_alike_bags, "random", control="random batches")
    bags, random = (look_alike_bags.numbers(arm)["truematch_5_r1"] for arm in ("bags", "random"))
    assert measured("R@1 in bags of 5, bags - random batches", bags - random, ">", 0.05)


# Plain, merged and enriched captions ----------------------------------------------------------------------------------


@pytest.mark.study
def test_likelihood_training_finds_more_and_says_more_after_richer_captions(study, seed, measured):
    """MLE(HolisticCap) > MLE(BlendCap) > MLE(plain), in retrieval by an encoder that read all three, and in facts.

    The control is the captions of other pictures, with which every captioner is at chance.
    """
    plain, blend, holistic = (boosted_captions.numbers(study, kind, seed) for kind in boosted_captions.KINDS)
    for name, chance in (("rd20_r1", 0.1), ("fact_recall", 0.5)):
        assert measured(f"{name}, holistic - blend", holistic[name] - blend[name], ">", 0.05)
        assert measured(f"{name}, blend - plain", blend[name] - plain[name], ">", 0.05)
        assert measured(f"{name}, holistic", holistic[name], ">", chance)
        assert not measured(f"{name}, holistic", holistic[f"shuffled/{name}"], ">=", chance, "of other pictures")


# Generic captions against merged ones ---------------------------------------------------------------------------------


@pytest.fixture
def lost(study):
    """Fact precision, read from the scenes, that self-retrieval costs after a kind of captions; judges read both."""
    starts = {"generic": partial(study.base, "generic"), "merged": partial(boosted_captioner, study)}

    def of(kind, seed):
        found = numbers(tuned_by_readers(study, starts[kind](seed), "1e-4", seed))
        return found["test/initial/fact_precision"] - found["test/fact_precision"]

    return of


@pytest.mark.study
def test_faithfulness_is_kept_after_merged_captions_better_than_after_generic_ones(lost, seed, measured):
    generic, merged = lost("generic", seed), lost("merged", seed)
    assert measured("fact precision lost after merged captions", merged, "<", 0.01)
    assert measured("loss after generic - after merged captions", generic - merged, ">", 0)


@pytest.mark.study
def test_on_average_some_faithfulness_is_lost_after_generic_captions(lost, seeds, measured):
    losses = [lost("generic", seed) for seed in seeds]
    assert measured("fact precision lost, mean", sum(losses) / len(losses), ">", 0.01)
