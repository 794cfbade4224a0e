"""MOCHa on SceneWorld: fidelity takes hallucinated objects out of captions, adequacy puts missing facts in.

The start names an object that is not there in most captions and leaves half of the colours out (docs/sceneworld.md).
An object too many costs no fact, and a missing fact contradicts nothing: neither term mends the fault of the other.
What is true is read from the scenes. What is asked is that half of each fault goes; it was set before any run of seeds
1 and 2.
Three seeds: `--studies`; longer runs on more pictures: `python -m benchmarks.rl.effects` (docs/rl_effects.md).

What must fail the same thresholds: a run by either term alone fails that of the other, so a reward that drops a term
fails here; rewards of another picture, which keep all that the terms know of language, fail adequacy, and lose what
the start said.
"""

import json
import math

import pytest

from capkit.assets.cache import ABOUT, location
from capkit.config.arguments import parse
from capkit.config.compose import compose_config
from capkit.config.instantiate import build
from capkit.scorers.bert_score import BertScore
from capkit.types import CaptionBatch, Samples

pytestmark = pytest.mark.effect
has_minilm = pytest.mark.skipif(
    not (location("minilm") / ABOUT).is_file(), reason="needs python train.py prepare data=minilm"
)

BRIEF = [
    "max_steps=20", "val_every=20", "optimizer.lr=1e-3", "data.train.source.count=1000", "data.val.source.count=24",
    "data.test.source.count=128", "controls=0", "trainer=cpu", "trainer.devices=1",
]  # fmt: skip
HALF = 0.5  # of a fault of the start
# The start adds an object with probability .6 and leaves each of two colours out with .5. Its own true, whole captions
# are - log .4 - 2 log .5 = 2.3 nats away from it: no policy that writes such captions only is nearer.
KL_BOUND = -math.log(0.4) - 2 * math.log(0.5) + 1  # a nat more; the authors want it below 5


@pytest.fixture(scope="module")
def tuned(run_once, start, seed):
    """The numbers of a run, those of its start, and KL at its end (mean of the last ten steps)."""

    def run(*words, experiment="mocha_sceneworld"):
        given = [f"experiment={experiment}", f"init_from={start('hallucinating', seed)}", f"seed={seed}"]
        folder = run_once(experiment, [*given, *BRIEF, *words])
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        kl = [row["rl/kl"] for row in rows if "rl/kl" in row]
        return {**json.loads((folder / "metrics.json").read_text()), "kl": kl[-1]}

    return run


def alpha(fidelity):
    """The words for MOCHa's alpha: 1 is fidelity alone, 0 adequacy alone."""
    return [f"reward.nli_scenes.weight={fidelity}", f"reward.fact_recall.weight={2 * (1 - fidelity)}"]


def gain(numbers, name):
    return numbers[f"test/{name}"] - numbers[f"test/initial/{name}"]


def left(numbers, name, best):
    """What is left of the start's distance to the best value: 0 nothing, 1 all."""
    return (best - numbers[f"test/{name}"]) / (best - numbers[f"test/initial/{name}"])


def removes(measured, numbers, control=""):
    """Half of the hallucinated objects (CHAIR by shape and colour) and half of the contradictions are gone."""
    return [
        measured("hallucinated objects left", left(numbers, "scene_chair_i_color", 0), "<=", HALF, control),
        measured("contradictions left", left(numbers, "nli_scenes", 1), "<=", HALF, control),
    ]


def states(measured, numbers, control=""):
    """Half of the missing facts are said."""
    return measured("missing facts left", left(numbers, "fact_recall", 1), "<=", HALF, control)


def keeps(measured, numbers, control=""):
    """What the start said is not lost: nothing is mended by silence."""
    return [
        measured("gain in fact_recall", gain(numbers, "fact_recall"), ">=", -0.02, control),
        measured("gain in CIDEr", gain(numbers, "cider"), ">=", 0, control),
    ]


def test_both_terms_rise_and_chair_falls_with_cider_kept(tuned, measured):
    numbers = tuned()
    assert all(removes(measured, numbers)) and states(measured, numbers) and all(keeps(measured, numbers))


def test_the_policy_stays_near_its_start(tuned, measured):
    kl = tuned()["kl"]
    assert measured("KL", kl, ">", 0) and measured("KL", kl, "<", KL_BOUND)


def test_adequacy_alone_states_facts_and_leaves_what_is_hallucinated(tuned, measured):
    numbers = tuned(*alpha(0))
    assert states(measured, numbers)
    assert not any(removes(measured, numbers, control="adequacy alone"))


def test_fidelity_alone_removes_what_is_hallucinated_and_leaves_facts_out(tuned, measured):
    numbers = tuned(*alpha(1))
    assert all(removes(measured, numbers))
    assert not states(measured, numbers, control="fidelity alone")


def test_rewards_of_other_pictures_lose_what_the_start_said(tuned, measured):
    """To say less contradicts less of any picture, so hallucinated objects go as well; facts and CIDEr go with them."""
    numbers = tuned(experiment="mocha_shuffled_sceneworld")
    assert not states(measured, numbers, control="shuffled rewards")
    assert not any(keeps(measured, numbers, control="shuffled rewards"))


@pytest.mark.nightly
def test_kl_that_costs_nothing_grows_past_the_bound(tuned, measured):
    """In a hundred steps of one learning rate; with its weight it stays below."""
    words = ["max_steps=100", "val_every=100", "scheduler=constant", "optimizer.lr=5e-4"]
    assert measured("KL", tuned(*words)["kl"], "<", KL_BOUND)
    assert not measured("KL", tuned(*words, "objective.kl_weight=0.0")["kl"], "<", KL_BOUND, control="KL of weight 0")


@pytest.mark.nightly
@has_minilm
def test_bert_score_as_adequacy_mends_the_captions_too(tuned, measured):
    numbers = tuned(experiment="mocha_bert_score_sceneworld")
    assert all(removes(measured, numbers)) and states(measured, numbers) and all(keeps(measured, numbers))
    assert measured("KL", numbers["kl"], "<", KL_BOUND)


@pytest.mark.nightly
@has_minilm
def test_bert_score_is_rescaled_by_what_captions_of_other_pictures_have_in_common():
    """A caption of its own picture has an F1 of 1, with a wrong colour it is near the middle."""
    words = ["experiment=mocha_bert_score_sceneworld", "data.train.source.count=60"]
    config = compose_config(parse(words)).config
    source = build(config.data.train)
    source.prepare()
    references = [[caption.text for caption in source.record(i).captions] for i in range(60)]
    batch = CaptionBatch(keys=[str(i) for i in range(60)], references=references)
    others = [[texts[0]] for texts in references[1:] + references[:1]]
    scorer = BertScore(str(location("minilm")))
    baseline = float(scorer(batch, Samples.from_texts(others)).mean())
    assert config.reward.bert_score.scorer.baseline == pytest.approx(baseline, abs=0.03)
    wrong = [[texts[0].replace("red", "orange").replace("green", "yellow")] for texts in references]
    altered = [i for i, texts in enumerate(wrong) if texts[0] != references[i][0]]
    scores = scorer(batch, Samples.from_texts(wrong))[:, 0]
    assert len(altered) > 10
    assert baseline + 0.1 < float(scores[altered].mean()) < 0.95
