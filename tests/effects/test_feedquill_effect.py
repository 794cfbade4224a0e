"""FeedQuill on SceneWorld: PPO on two raters of 200 pairs takes out objects that are not there; what is there stays.

The start names an object that is not there in most captions and leaves half of the colours out. Pairs are of its own
captions, judged by the scene; both raters stand on a committed dual encoder. Facts are read from the scenes. Controls:
raters of the same pairs with their sides drawn at random; r_p alone, which pays for no fact. The verifier's own numbers
are a reward too. Settings were not tuned (docs/preferences.md).
"""

import json

import pytest
from facts_changed import gain, wrong_left

from benchmarks.scene_pairs import CRITERIA, NUM_PICTURES

pytestmark = [pytest.mark.effect, pytest.mark.nightly]

ONE_CORE = ["controls=0", "trainer=cpu", "trainer.devices=1", "data.val.source.count=24"]
BRIEF = [*ONE_CORE, "val_every=200", "data.train.source.count=480", "data.test.source.count=200"]


@pytest.fixture(scope="module")
def raters(run_once, start, pairs, seed):
    """The words that name the two raters of a file of pairs."""

    def of(name):
        words = ["experiment=feedquill_rater_sceneworld", f"model.encoder.ckpt={start('judge', 0)}", f"seed={seed}"]
        words += [NUM_PICTURES, *ONE_CORE, "data.test.source.count=24", f"ratings={pairs / name}.jsonl"]
        folders = {one: run_once(f"rater {name} {one}", [*words, f"criterion={one}"]) for one in CRITERIA}
        return [f"reward.rater_{one}.scorer.rater.ckpt={folder}" for one, folder in folders.items()]

    return of


@pytest.fixture(scope="module")
def tuned(run_once, start, seed):
    """The numbers of a run."""

    def run(name, experiment, *words):
        given = [f"experiment={experiment}", f"init_from={start('hallucinating', seed)}", f"seed={seed}", *BRIEF]
        return json.loads((run_once(name, [*given, *words]) / "metrics.json").read_text())

    return run


@pytest.fixture(scope="module")
def rated(tuned, raters):
    return tuned("feedquill", "feedquill_sceneworld", *raters("judged"))


@pytest.fixture(scope="module")
def verified(tuned):
    return tuned("verifier", "feedquill_verifier_sceneworld")


def test_wrong_facts_go_and_true_ones_stay(rated, tuned, raters, measured):
    assert measured("wrong facts left", wrong_left(rated), "<=", 0.7)
    assert measured("gain in true facts", gain(rated, "fact_recall"), ">=", 0)
    drawn = tuned("feedquill of random sides", "feedquill_sceneworld", *raters("random"))
    assert not measured("wrong facts left", wrong_left(drawn), "<=", 0.7, "sides at random")


def test_the_share_alone_states_fewer_facts_than_share_and_number(verified, tuned, measured):
    """Of the true facts that a caption states; the wrong ones go either way."""
    alone = tuned("verifier, share alone", "feedquill_verifier_sceneworld", "reward.num_true_claims.weight=0")
    both = verified["test/fact_recall"]
    assert measured("true facts by the share alone / by both", alone["test/fact_recall"] / both, "<=", 0.9)
    assert measured("wrong facts left, share alone", wrong_left(alone), "<=", 0.7)


def test_a_rater_of_the_share_alone_states_no_fewer_facts(rated, tuned, raters, measured):
    """That it does, by a tenth, was wanted and does not hold: its pairs set captions that state more above others."""
    alone = tuned(
        "feedquill, r_p alone", "feedquill_sceneworld", *raters("judged"), "reward.rater_num_true_claims.weight=0"
    )
    assert measured("wrong facts left, r_p alone", wrong_left(alone), "<=", 0.7)
    share = alone["test/fact_recall"] / rated["test/fact_recall"]
    assert measured("true facts by r_p alone / by both raters", share, ">", 0.9)


def test_the_verifiers_own_numbers_do_as_well(verified, measured):
    assert measured("wrong facts left", wrong_left(verified), "<=", 0.7)
    assert measured("gain in true facts", gain(verified, "fact_recall"), ">=", 0)
