"""A scorer with an error of its own for each caption; captions whose noise has grades."""

from collections import Counter

import numpy as np
import pytest

from capkit.sceneworld.language.captions import references
from capkit.sceneworld.language.graded_noise import GRADES
from capkit.sceneworld.language.oracles import score_caption
from capkit.sceneworld.scorers import Facts, NoisyFacts
from capkit.sceneworld.sources.graded_noise import GradedNoise
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.scene import Scene, make_scene
from capkit.types import CaptionBatch, Samples

OPTIONS = WorldOptions(sizes=["large"], min_objects=2, max_objects=2, inside_probability=0.0)


def scores(scorer, count, start=0, text="a circle"):
    record = SceneWorld("train", 1, options=OPTIONS).record(0)
    batch = CaptionBatch([f"k{number}" for number in range(start, start + count)], metadata=[record.metadata] * count)
    return scorer(batch, Samples.from_texts([[text]] * count))[:, 0].numpy()


def test_an_error_has_its_standard_deviation_and_no_bias():
    errors = scores(NoisyFacts(), 600) - scores(Facts(), 600)
    assert abs(errors.mean()) < 0.02 and 0.105 < errors.std() < 0.135
    assert np.array_equal(scores(NoisyFacts(error=0), 9), scores(Facts(), 9))


def test_an_error_is_the_captions_own_in_whatever_batch():
    assert scores(NoisyFacts(), 9, start=5)[2] == scores(NoisyFacts(), 20)[7]
    assert scores(NoisyFacts(), 9)[2] != scores(NoisyFacts(seed=1), 9)[2]
    assert scores(NoisyFacts(), 9)[2] != scores(NoisyFacts(), 9, text="a circle and a circle")[2]


def world(share, count=300, **settings):
    source = SceneWorld("train", count, style="short", options=OPTIONS)
    return GradedNoise(source, OPTIONS, share=share, **settings)


def test_that_share_is_noisy_in_equal_grades_and_each_grade_fits_worse():
    source, found = world(0.8), {grade: [] for grade in range(len(GRADES))}
    for index in range(len(source)):
        record = source.record(index)
        scene, (caption,) = Scene.from_dict(record.metadata["scene"]), record.captions
        found[record.metadata["noise"]].append(score_caption(scene, caption.text, record.metadata["stated_facts"]).f1)
    assert 40 <= len(found[0]) <= 80 and all(40 <= len(values) <= 80 for values in found.values())
    means = [np.mean(values) for values in found.values()]
    assert means == sorted(means, reverse=True)
    assert (means[0], means[1]) == (1.0, pytest.approx(2 / 3)) and means[4] < 0.25  # two of four facts: F1 of 1 and 1/2


def test_pictures_and_facts_stay_those_of_the_scene():
    noisy, clean = world(1.0, 20), SceneWorld("train", 20, style="short", options=OPTIONS)
    for index in range(20):
        assert np.array_equal(noisy.image(index), clean.image(index))
        assert noisy.record(index).metadata["stated_facts"] == clean.record(index).metadata["stated_facts"]
        assert noisy.record(index).key == clean.record(index).key


def test_without_noise_a_caption_is_one_of_the_scenes_own():
    source = world(0.0, 20)
    for index in range(20):
        scene = make_scene(OPTIONS, 0, "train", index)
        assert source.record(index).captions[0].text in references(scene, "short")
        assert source.record(index).metadata["noise"] == 0


def test_a_fingerprint_is_that_of_the_noise_too():
    prints = [world(0.5).fingerprint(), world(0.6).fingerprint(), world(0.5, seed=1).fingerprint()]
    assert max(Counter(prints).values()) == 1 and world(0.5).fingerprint() == prints[0]
