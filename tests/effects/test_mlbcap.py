"""MLBCAP: four generators that each know one part of a figure, a judge that picks, then mends.

Scenes are the figures. What is right is read from the scene: F1 against all of its facts, the drawn word among them.
Taken away by hand: without the sorting of candidates the order of the generators decides; with `union` of the candidate
alone in place of `corrected`, precision does not rise.
"""

from collections import Counter

import numpy as np
import pytest

from capkit.curation.figures import FIELDS
from capkit.curation.steps.judge_candidates import JudgeCandidates
from capkit.curation.steps.write_candidates import Generator, WriteCandidates
from capkit.data.records import Record
from capkit.sceneworld.figures import SceneDocuments, SceneJudge, SceneWriter
from capkit.sceneworld.language.facts import scene_facts
from capkit.sceneworld.language.oracles import score_caption
from capkit.sceneworld.world.render import render
from capkit.sceneworld.world.scene import WorldOptions, make_scene

pytestmark = pytest.mark.effect

NUM_SCENES, GAIN, BIAS = 80, 0.1, 0.3


class World:
    """Scenes of a seed, as figures with candidates of four generators."""

    def __init__(self, folder, seed):
        self.folder, self.seed = str(folder), seed
        self.scenes = [make_scene(WorldOptions(text_probability=0.5), seed, "train", i) for i in range(NUM_SCENES)]
        records = [Record(str(i), metadata={"scene": scene.to_dict()}) for i, scene in enumerate(self.scenes)]
        self.records = list(SceneDocuments()(lambda: records))
        self.generators = {
            "picture": Generator(SceneWriter(["picture"], 1 / 3, seed), "mlbcap_caption_v1", sees=True),
            "texts": Generator(SceneWriter(["mention", "paragraph"])),
            "drawn": Generator(SceneWriter(["ocr"])),
            "noise": Generator(SceneWriter(seed=seed)),
        }

    def candidates(self, fields=FIELDS, names=None):
        """Records with candidates by the generators, in the order of the names."""
        generators = {name: self.generators[name] for name in names or self.generators}
        return self._through(WriteCandidates(generators, fields=fields, cache_dir=self.folder), self.records)

    def judged(self, records, fields=FIELDS, first_bias=0.0, **settings):
        judge = SceneJudge(first_bias, self.seed)
        return self._through(JudgeCandidates(judge, fields=fields, cache_dir=self.folder, **settings), records)

    def _through(self, step, records):
        step.attach_images(lambda key: render(self.scenes[int(key)], 64))
        return list(step(lambda: records))

    def scores(self, records, place=-1):
        scenes = [self.scenes[int(record.key)] for record in records]
        return [
            score_caption(scene, record.captions[place].text, scene_facts(scene))
            for scene, record in zip(scenes, records, strict=True)
        ]

    def f1(self, scene, text):
        return score_caption(scene, text, scene_facts(scene)).f1


@pytest.fixture(scope="module")
def world(tmp_path_factory, seed):
    return World(tmp_path_factory.mktemp("mlbcap"), seed)


@pytest.fixture(scope="module")
def candidates(world):
    return world.candidates()


def mean_f1(scores):
    return float(np.mean([score.f1 for score in scores]))


def test_the_pick_is_better_than_each_generator_and_than_a_random_pick(world, candidates, measured):
    """A generator that has no caption for a picture scores 0 there."""
    by_generator, random = Counter(), []
    for record in candidates:
        scores = [world.f1(world.scenes[int(record.key)], caption.text) for caption in record.captions]
        random.append(np.mean(scores))
        for caption, score in zip(record.captions, scores, strict=True):
            by_generator[caption.source.split("/")[1]] += score / NUM_SCENES
    pick = mean_f1(world.scores(world.judged(candidates, mend_prompt=None)))
    assert len(candidates) == NUM_SCENES and len(by_generator) == 4
    for name, mean in by_generator.items():
        assert measured(f"F1 of the pick - {name}", pick - mean, ">=", 0)
    assert measured("F1 of the pick - a random one", pick - np.mean(random), ">", GAIN)
    control = world.judged(candidates, first_bias=1.0, mend_prompt=None)  # the first of an order that is drawn
    gain = mean_f1(world.scores(control)) - np.mean(random)
    assert not measured("F1 of the pick - a random one", gain, ">", GAIN, "a judge that takes the first")


@pytest.mark.parametrize(("field", "max_words"), [("mlbcap_long", 50), ("mlbcap_short", 30)])
def test_mending_raises_precision_and_never_passes_the_length(world, candidates, measured, field, max_words):
    picked = world.judged(candidates, mend_prompt=None)
    mended = world.judged(candidates, field=field, max_words=max_words)
    assert len(mended) == NUM_SCENES
    before, after = (np.mean([s.precision for s in world.scores(records)]) for records in (picked, mended))
    lengths = [[len(record.captions[-1].text.split()) for record in records] for records in (picked, mended)]
    assert measured("precision mended - picked", after - before, ">", 0.02)
    assert measured("longest, words", max(lengths[1]), "<=", max_words)
    assert not measured("longest, words", max(lengths[0]), "<=", max_words, "not mended")
    assert all(record.metadata[field] == record.captions[-1].text for record in mended)


def picks(records):
    return [record.metadata["mlbcap_long_picked"] for record in records]


def test_a_judge_that_likes_the_first_picks_alike_whatever_the_order(world, candidates, measured):
    """Without shuffling the generator that is listed first gains; noise is, where it stands first."""
    noise_first = world.candidates(names=["noise", "drawn", "texts", "picture"])
    shares = {}
    for shuffle in (True, False):
        settings = {"first_bias": BIAS, "mend_prompt": None, "shuffle": shuffle}
        chosen = [picks(world.judged(records, **settings)) for records in (candidates, noise_first)]
        shares[shuffle] = [sum("candidate/noise/" in source for source in each) / NUM_SCENES for each in chosen]
        if shuffle:
            assert chosen[0] == chosen[1]
    assert measured("share of noise picked", max(shares[True]), "<", 0.15)
    assert not measured("share of noise picked", shares[False][1], "<", 0.15, "noise listed first, no shuffling")
    assert measured("share of noise picked, listed last", shares[False][0], "<", 0.05)


def test_without_the_text_in_the_figure_pictures_with_text_lose(world, candidates, measured):
    fields = [name for name in FIELDS if name != "ocr"]
    with_ocr, without_ocr = world.judged(candidates), world.judged(world.candidates(fields), fields)
    f1 = {}
    for has_text in (True, False):
        for name, records in (("with", with_ocr), ("without", without_ocr)):
            chosen = [record for record in records if (world.scenes[int(record.key)].text is not None) == has_text]
            f1[has_text, name] = mean_f1(world.scores(chosen))
    assert measured("F1 lost without OCR", f1[True, "with"] - f1[True, "without"], ">", 0.02)
    lost = f1[False, "with"] - f1[False, "without"]
    assert not measured("F1 lost without OCR", lost, ">", 0.02, "pictures without text")
