"""Self-retrieval on SceneWorld names what tells pictures apart, on another corpus too, and look-alikes teach more.

At small size what `python -m benchmarks.rl.self_retrieval_effects` shows over three seeds
(docs/self_retrieval_effects.md). What is named is read from the scenes.
"""

import json

import pytest

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

WORLD = [f"data.{split}.source.count={count}" for split, count in (("train", 4000), ("val", 50), ("test", 1000))]
WORLD.append("data=sceneworld_backgrounds")
TUNING = [
    "data.batch_size=16", "objective.baseline=leave_one_out", "max_steps=40", "val_every=40", "metric=[facts]",
    "controls=0", "eval_limit=16",
]  # fmt: skip


@pytest.fixture
def background_judge(run_once):
    words = ["experiment=judge_sceneworld", *WORLD, *ONE_CORE, "data.train.background=0.5"]
    return run_once("background_judge", [*words, "max_steps=400", "val_every=400"])


@pytest.fixture
def background_captioner(run_once):
    """It names every object with its colour, and no background."""
    words = ["experiment=generic_mle_sceneworld", *WORLD, *ONE_CORE, "max_steps=600", "val_every=600", "controls=0"]
    return run_once("background_captioner", [*words, "eval_limit=16"])


@pytest.fixture
def look_alikes(run_once, background_judge):
    """Bags of a split's look-alikes."""

    def of(split, sizes):
        encoder = f"encoder={{_target_: capkit.checkpoint.loading.load_dual_encoder, ckpt: {background_judge}}}"
        words = ["task=mine", *WORLD, f"split={split}", "by=combined", encoder, "duplicate_threshold=0.95"]
        mined = run_once(f"mine_{split}", [*words, "num_neighbors=50", "trainer=cpu"], "neighbors/neighbors.json")
        return run_once(f"bags_{split}", ["task=bags", f"neighbors={mined}", f"sizes={sizes}"], "bags/bags.json")

    return of


@pytest.fixture
def judged(run_once, background_judge, look_alikes):
    """Numbers of a captioner on the test pictures, in bags of five look-alikes and among 19 random ones."""

    def of(name, folder):
        words = ["task=evaluate", f"ckpt={folder}", *WORLD, *ONE_CORE, "data.batch_size=100", "decoding.max_length=16"]
        words += ["metric=[truematch_trained,rd20_trained,fact_kinds]", "metric.fact_kinds.kinds=[background]"]
        words += [f"metric.truematch.encoder.ckpt={background_judge}", f"metric.rd20.encoder.ckpt={background_judge}"]
        words.append(f"metric.truematch.files=[{look_alikes('test', '[5]') / 'bags' / 'hard-5.json'}]")
        return numbers(run_once(f"judged_{name}", words))

    return of


@pytest.fixture
def tuned(run_once, background_judge, background_captioner):
    def of(name, words):
        judges = [f"reward_encoder={background_judge}", f"eval_encoder={background_judge}"]
        words = [*words, *WORLD, *TUNING, *ONE_CORE, f"init_from={background_captioner}", *judges]
        return run_once(name, words)

    return of


@pytest.mark.nightly
def test_look_alike_batches_raise_recall_in_look_alike_bags_and_random_batches_of_the_same_number_do_not(
    tuned, judged, look_alikes, background_captioner
):
    """Bags of two for 30 steps, then of four."""
    folder = f"curriculum.folder={look_alikes('train', '[2,4,8]')}"
    start = judged("start", background_captioner)
    random = judged("random", tuned("random_batches", ["experiment=discritune_sceneworld"]))
    bags = judged("bags", tuned("bag_batches", ["experiment=ndlb_bagcurri_sceneworld", folder]))
    assert start["test/background_said"] < 0.05
    assert bags["test/truematch_5_r1"] - random["test/truematch_5_r1"] > 0.05
    assert bags["test/rd20_r1"] - random["test/rd20_r1"] > -0.02
    assert bags["test/background_recall"] > 0.5 > random["test/background_recall"]


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
