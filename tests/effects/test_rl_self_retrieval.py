"""Self-retrieval on SceneWorld names what tells pictures apart, and look-alikes teach what random batches cannot.

One seed, at small size, of what `python -m benchmarks.rl.self_retrieval_effects` shows over three
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


@pytest.fixture
def gain(run_once, generic_captioner, judges):
    """By how much a number of the test pictures rises when an experiment tunes the generic captioner."""

    def of(experiment, name):
        words = [f"experiment={experiment}", f"init_from={generic_captioner}", *judges, *BRIEF, *ONE_CORE]
        words.append("metric=[facts,fact_kinds,rd20_trained]")
        found = numbers(run_once(f"brief_{experiment}", words))
        return found[f"test/{name}"] - found[f"test/initial/{name}"]

    return of


def test_a_listener_raises_recall_and_the_naming_of_colours(gain):
    assert gain("discritune_sceneworld", "rd20_r1") > 0.1
    assert gain("discritune_sceneworld", "color_recall") > 0.5


@pytest.mark.nightly
def test_a_listener_asked_for_other_pictures_raises_neither(gain):
    assert gain("discritune_shuffled_sceneworld", "rd20_r1") < 0.03
    assert gain("discritune_shuffled_sceneworld", "color_recall") < 0.03


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
