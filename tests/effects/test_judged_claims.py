"""Metrics by claims on SceneWorld: DCScore, DNLI and OpenCHAIR give what was planted, exactly.

What is wrong, missing and absent is drawn and known from the scene; parts of the metrics are SceneWorld's exact ones,
or its language model asked by the bundled prompts.

Taken away by hand: with each claim matched to no fact, and with verdicts that are always true, the test of DCScore
fails; the weights of claims that share a fact are held by hand-worked tables (tests/metrics/test_dcscore.py), since no
planted caption says a thing twice. Controls: verdicts by another picture, references of other pictures, and failures
counted as published.
"""

from dataclasses import replace

import numpy as np
import pytest
from claims_planted import all_facts, num_facts, planted, scene_at, true_f1

from capkit.judges.chat_verifier import ChatVerifier
from capkit.judges.decomposers import ChatDecomposer
from capkit.llm.base import Answer
from capkit.metrics.coco.cider import cider_scores
from capkit.metrics.correlation import spearman
from capkit.metrics.dcscore import DCScore
from capkit.metrics.dnli import DNLI
from capkit.metrics.open_chair import OpenCHAIR
from capkit.sceneworld.judges import SceneDecomposer, SceneMatcher, SceneVerifier
from capkit.sceneworld.language.captions import caption, references
from capkit.sceneworld.language.nouns import SceneNouns
from capkit.sceneworld.language.plan import STYLES
from capkit.sceneworld.language.writing import write_facts
from capkit.sceneworld.llm import SceneLM
from capkit.sceneworld.world.options import SHAPES
from capkit.utils.rng import generator, stable_hash, uniform

pytestmark = pytest.mark.effect

ERRORS = range(5)
NUM_SCENES, SPEARMAN = 16, 0.95
# Five wordings of the facts of `all_facts`, none of them that of the captions.
SAME_FACTS = replace(STYLES["dense"], relations=0)
BLANK = np.zeros((2, 2, 3), np.uint8)


# DCScore --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ladder(seed):
    """Captions with 0 to 4 wrong and 0 to 4 missing facts of each scene: columns as metrics take them, true F1."""
    scenes = [scene_at(seed, index) for index in range(NUM_SCENES)]
    cases = [(scene, wrong, missing) for wrong in ERRORS for missing in ERRORS for scene in scenes]
    captions = [planted(scene, seed, wrong, missing) for scene, wrong, missing in cases]
    refs = [references(scene, "dense", SAME_FACTS) for scene, _, _ in cases]
    metadata = [
        {"key": str(place), "image": BLANK, "scene": scene.to_dict()} for place, (scene, _, _) in enumerate(cases)
    ]
    return (captions, refs, metadata), np.array([true_f1(*case) for case in cases])


def dcscores(columns):
    metric = DCScore(SceneDecomposer(), SceneMatcher(), SceneVerifier("both"))
    found = metric.judged(*columns)
    assert not any(item.num_failed for item in found)
    return np.array([item.values["score"] for item in found])


def test_dcscore_is_the_true_f1_and_falls_with_each_wrong_and_each_missing_fact(ladder, measured):
    columns, truth = ladder
    scores = dcscores(columns)
    assert measured("largest difference from the true F1", np.abs(scores - truth).max(), "<=", 1e-9)
    means = scores.reshape(len(ERRORS), len(ERRORS), NUM_SCENES).mean(-1)  # (wrong missing)
    assert measured("least fall of the mean by a wrong fact", -np.diff(means, axis=0).max(), ">", 0.01)
    assert measured("least fall of the mean by a missing fact", -np.diff(means, axis=1).max(), ">", 0.01)
    rank = spearman(scores, truth)
    assert measured("Spearman with the true F1", rank, ">=", SPEARMAN)
    cider = spearman(cider_scores(*columns[:2]), truth)
    assert measured("CIDEr's Spearman is lower by", rank - cider, ">=", 0.1)


def test_control_dcscore_by_the_scene_of_another_picture(ladder, measured):
    (captions, refs, metadata), truth = ladder
    others = [{**row, "scene": metadata[place - 1]["scene"]} for place, row in enumerate(metadata)]
    scores = dcscores((captions, refs, others))
    control = "verified by another picture"
    assert not measured("Spearman with the true F1", spearman(scores, truth), ">=", SPEARMAN, control=control)


# DNLI -----------------------------------------------------------------------------------------------------------------

NUM_DNLI = 200


@pytest.fixture(scope="module")
def contradicting(seed):
    """Captions with 0 to 4 wrong facts, their references, and the share of each that is wrong."""
    scenes = [scene_at(seed, index) for index in range(NUM_DNLI)]
    counts = generator(seed, "wrong").integers(0, 5, NUM_DNLI)
    captions = [planted(scene, seed, int(count), 0) for scene, count in zip(scenes, counts, strict=True)]
    refs = [[write_facts(all_facts(scene))] for scene in scenes]
    shares = np.array([count / num_facts(scene) for scene, count in zip(scenes, counts, strict=True)])
    return (captions, refs, [{"key": str(place)} for place in range(NUM_DNLI)]), shares


def dnli_numbers(columns, verifier, **settings):
    return DNLI(SceneDecomposer(), verifier, **settings).score(*columns)


def test_planted_wrong_facts_are_the_contradicted_share(contradicting, tmp_path, measured):
    columns, shares = contradicting
    asked = DNLI(ChatDecomposer(SceneLM(), cache_dir=str(tmp_path)), ChatVerifier(SceneLM(), cache_dir=str(tmp_path)))
    for found in (asked.score(*columns), dnli_numbers(columns, SceneVerifier("text"), neutral_is="new")):
        off = abs(found["dnli_contradicted_precision"] - shares.mean())
        assert measured("contradicted share off by", off, "<=", 1e-9)
        assert abs(found["dnli_entailed_precision"] - (1 - shares).mean()) <= 1e-9
        assert found["dnli_neutral_recall"] == 0
    captions, refs, metadata = columns
    shuffled = (captions, refs[1:] + refs[:1], metadata)
    off = abs(dnli_numbers(shuffled, SceneVerifier("text"))["dnli_contradicted_precision"] - shares.mean())
    assert not measured("contradicted share off by", off, "<=", 1e-9, control="references of other pictures")


def test_what_the_reference_does_not_say_is_contradicted_or_new(seed, measured):
    """References that leave out facts of captions that say all: contradicted as published, neutral with "new"."""
    scenes = [scene_at(seed, index) for index in range(20)]
    captions = [write_facts(all_facts(scene)) for scene in scenes]
    refs = [[planted(scene, seed, 0, place % 5)] for place, scene in enumerate(scenes)]
    shares = [(place % 5) / (num_facts(scene) - place % 5) for place, scene in enumerate(scenes)]
    columns = captions, refs, [{"key": str(place)} for place in range(len(scenes))]
    published = dnli_numbers(columns, SceneVerifier("text"))
    apart = dnli_numbers(columns, SceneVerifier("text"), neutral_is="new")
    off = (
        abs(published["dnli_contradicted_recall"] - np.mean(shares)),
        abs(apart["dnli_neutral_recall"] - np.mean(shares)),
    )
    assert measured("contradicted or new, share off by", max(off), "<=", 1e-9)
    assert apart["dnli_contradicted_recall"] == 0 and published["dnli_neutral_recall"] == 0
    shuffled = captions, refs[1:] + refs[:1], columns[2]
    off = abs(dnli_numbers(shuffled, SceneVerifier("text"), neutral_is="new")["dnli_neutral_recall"] - np.mean(shares))
    assert not measured("contradicted or new, share off by", off, "<=", 1e-9, control="references of other pictures")


class Broken:
    """A language model of which a share of the replies, drawn by the question, is no JSON."""

    takes_pictures = False

    def __init__(self, share):
        self.share, self.model = share, SceneLM()

    def about(self):
        return {"model": "broken", "share": self.share}

    def ask(self, questions):
        draws = uniform(np.array([stable_hash("broken", question.text) for question in questions]), 0)
        replies = self.model.ask(questions)
        return [Answer(f"Sure! {a.text}") if draw < self.share else a for draw, a in zip(draws, replies, strict=True)]


def test_broken_replies_are_counted_and_hardly_move_the_means(contradicting, tmp_path, measured):
    columns, _ = contradicting
    whole = dnli_numbers(columns, ChatVerifier(SceneLM(), cache_dir=str(tmp_path)))
    metric = DNLI(SceneDecomposer(), ChatVerifier(Broken(0.3), cache_dir=str(tmp_path)), max_failed=1.0)
    broken = metric.score(*columns)
    failed = broken["dnli_failed"] / broken["dnli_asked"]
    assert abs(failed - 0.3) < 0.1 and broken["dnli_asked"] == NUM_DNLI
    names = [name for name in whole if name.endswith(("_precision", "_recall"))]
    assert measured("largest move of a mean", max(abs(broken[name] - whole[name]) for name in names), "<", 0.02)
    # As the program counts: -1 of -1 claims, a share of 1, for each failure.
    published = (1 - failed) * broken["dnli_contradicted_precision"] + failed * 1
    moved = abs(published - whole["dnli_contradicted_precision"])
    assert not measured("largest move of a mean", moved, "<", 0.02, control="failures as published") and moved > 0.1
    strict = DNLI(SceneDecomposer(), ChatVerifier(Broken(0.3), cache_dir=str(tmp_path)))
    with pytest.warns(UserWarning, match="dnli is missing"):
        assert "dnli_contradicted_precision" not in strict.score(*columns)


# OpenCHAIR ------------------------------------------------------------------------------------------------------------


def test_the_planted_share_of_absent_objects_comes_out_exactly(seed, tmp_path, measured):
    scenes = [scene_at(seed, index) for index in range(100)]
    random = generator(seed, "absent")
    captions, present, absent = [], 0, 0
    for scene in scenes:
        shapes = {item.shape for item in scene.objects}
        others = [shape for shape in SHAPES if shape not in shapes][: int(random.integers(0, 3))]
        captions.append(" and ".join([caption(scene, "short").text.rstrip("."), *(f"a {shape}" for shape in others)]))
        present, absent = present + len(shapes), absent + len(others)
    refs = [references(scene, "human") for scene in scenes]
    metadata = [{"key": str(place)} for place in range(len(scenes))]
    metric = OpenCHAIR(SceneLM(), SceneNouns(), cache_dir=str(tmp_path))
    found = metric.score(captions, refs, metadata)
    assert measured("share off by", abs(found["open_chair"] - absent / (present + absent)), "<=", 1e-12)
    assert (found["open_chair_mentions"], found["open_chair_failed"]) == (present + absent, 0)
    more = metric.score([*captions, "how nice"], [*refs, refs[0]], [*metadata, {"key": "more"}])
    assert more == {**found, "open_chair_without_nouns": 1.0}, "a caption without a noun changes its own count alone"
    off = abs(metric.score(captions, refs[1:] + refs[:1], metadata)["open_chair"] - absent / (present + absent))
    assert not measured("share off by", off, "<=", 1e-12, control="references of other pictures") and off > 0.1
