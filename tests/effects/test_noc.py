"""Alignment levels on SceneWorld (NoC, Kang et al. 2023): a captioner of noisy captions, asked for the best level.

One caption a picture, most of them noisy in grades (no colours, wrong facts, boilerplate, another picture's caption);
the scorer errs by a standard deviation of .12. Pictures are read by the frozen image tower of a committed dual encoder.
What is true is read from the scenes. Studies see twice as many captions, at other shares of noise too, and compare
with the filter. The tables stand in docs/noc.md.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from capkit.checkpoint.loading import load_dual_encoder
from capkit.cli import main
from capkit.data.alignment_bins import bins_of_corpus
from capkit.data.features import FeatureWriter
from capkit.data.records import read_manifest, write_manifest
from capkit.data.sources.manifest import Manifest
from capkit.metrics.correlation import spearman
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.options import WorldOptions

pytestmark = [pytest.mark.effect, pytest.mark.xdist_group("noc")]

ONE_CORE = ["trainer=cpu", "trainer.devices=1"]
COLORS = ["red", "yellow", "green", "cyan", "blue", "purple"]
SHAPES = ["circle", "square", "triangle", "cross"]
OPTIONS = WorldOptions(SHAPES, COLORS, ["large"], ["white", "black"], min_objects=1, max_objects=1)
WORLD = [f"colors={COLORS}".replace(" ", ""), "min_objects=1", "max_objects=1"]
BINS = 6
STEPS = 900
VANILLA = ["~model.conditions", "conditions.alignment=null"]
FILTERED = [*VANILLA, "data.min_score=0.3"]
LONG = ["data.batch_size=32", "max_steps=450", "val_every=450", "data.test.count=200"]  # of studies


class Corpus:
    """A scored corpus, features of its pictures, and captioners of it: each is trained once a session."""

    def __init__(self, folder, run_once, judge, seed):
        self.folder, self._run_once, self._judge, self._seed = folder, run_once, judge, seed

    def align(self, share, *scorer):
        options = [f"data.train.source.options.{word}" for word in WORLD]
        words = ["align", "data=sceneworld_graded_noise", f"data.train.share={share}", *options, f"seed={self._seed}"]
        words += ["data.train.source.count=1200", f"bins={BINS}", f"out={self.folder}"]
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder.parent)
            assert main([*words, *(scorer or ["scorer=noisy_facts"])]) == 0
        self._write_features()
        return self

    def shuffled(self):
        """The same captions, their scores passed on to others at random."""
        other = Corpus(self.folder.with_name("shuffled"), self._run_once, self._judge, self._seed)
        records = list(read_manifest(self.folder / "train.jsonl"))
        order = np.random.default_rng(self._seed).permutation(len(records))
        scores = [records[place].captions[0].score for place in order]
        write_manifest(
            other.folder / "train.jsonl",
            (
                replace(record, captions=[replace(record.captions[0], score=score)])
                for record, score in zip(records, scores, strict=True)
            ),
        )
        bins = bins_of_corpus(Manifest(str(other.folder / "train.jsonl")), BINS, "uniform", "shuffled")
        bins.write(other.folder / "bins.json")
        other.features = self.features
        return other

    def _write_features(self):
        judge = load_dual_encoder(str(self._judge))
        self.features = self.folder / "features"
        sources = [Manifest(str(self.folder / "train.jsonl"))]
        sources += [SceneWorld(split, 600, 32, style="short", options=OPTIONS) for split in ("val", "test")]
        keys = [source.record(index).key for source in sources for index in range(len(source))]
        pictures = [source.image(index) for source in sources for index in range(len(source))]
        with torch.inference_mode():
            pixels = judge.preprocess(pictures).split(200)
            found = torch.cat([judge.image_tower(some) for some in pixels]).numpy()
        with FeatureWriter(self.features, keys, found.shape[1:]) as writer:
            writer.write(keys, found)

    def train(self, *words):
        """The run folder of a captioner: unless words say otherwise, of levels, and asked for the top one."""
        options = [f"data.val.options.{word}" for word in WORLD]
        given = ["experiment=noc_sceneworld", f"data.train.path={self.folder / 'train.jsonl'}", *options]
        given += [f"data.conditions.alignment.file={self.folder / 'bins.json'}", f"data.features={self.features}"]
        given += [
            f"model.conditions.alignment.count={BINS}",
            "data.transform=null",
            "model.image_encoder=null",
            "model.feature_width=64",
            "model.num_layers=1",
        ]
        given += ["data.val.count=20", "data.test.count=600", f"max_steps={STEPS}", f"val_every={STEPS}", "controls=0"]
        given += ["data.batch_size=16"]
        return self._run_once(f"noc_{self._seed}", [*given, "metric=[facts]", *ONE_CORE, f"seed={self._seed}", *words])

    def f1(self, *words):
        return json.loads((self.train(*words) / "metrics.json").read_text())["test/fact_f1"]

    def of_levels(self, *words):
        """Fact F1 of the captions of each level."""
        command = ["evaluate", f"ckpt={self.train(*words)}", "conditions.alignment=sweep", *ONE_CORE]
        swept = self._run_once(f"noc_sweep_{self._seed}", command, "sweep.html")
        return [row["numbers"]["test/fact_f1"] for row in json.loads((swept / "sweep.json").read_text())]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory, run_once, start, seed):
    found = {}

    def of(share, *scorer):
        if (share, *scorer) not in found:
            folder = tmp_path_factory.mktemp("noc") / "aligned"
            found[share, *scorer] = Corpus(folder, run_once, start("judge", 0), seed).align(share, *scorer)
        return found[share, *scorer]

    return of


def test_the_top_level_is_better_than_no_levels(corpus, measured):
    """Fails where captioner or data drop the level: then all of them write as the one without levels does."""
    of = corpus(0.8)
    assert measured("fact F1 of the top level over vanilla", of.f1() - of.f1(*VANILLA), ">=", 0.2)


def test_a_higher_level_fits_better_and_the_lowest_worse_than_no_levels(corpus, measured):
    of = corpus(0.8)
    values, vanilla = of.of_levels(), of.f1(*VANILLA)
    assert measured("Spearman's correlation of level and fact F1", spearman(range(BINS), values), ">=", 0.9)
    assert measured("fact F1 of the lowest level over vanilla", values[0] - vanilla, "<", 0.0)


def test_levels_that_were_shuffled_over_captions_say_nothing(corpus, measured):
    """The control: captions of the top and of the bottom are as good as each other."""
    values = corpus(0.8).shuffled().of_levels()
    assert measured("difference of top and bottom", abs(values[-1] - values[0]), "<", 0.05)
    assert not measured(
        "fact F1 of the top level over the bottom", values[-1] - values[0], ">=", 0.2, "shuffled levels"
    )


@pytest.mark.study
@pytest.mark.parametrize("share", [0.8, 0.9])
def test_the_top_level_is_better_than_no_levels_and_than_filtering(corpus, share, measured):
    of = corpus(share)
    top, vanilla, filtered = of.f1(*LONG), of.f1(*VANILLA, *LONG), of.f1(*FILTERED, *LONG)
    assert measured("fact F1 of the top level over vanilla", top - vanilla, ">=", 0.2)
    assert measured("fact F1 of the top level over the filter's", top - filtered, ">", 0.0)


@pytest.mark.study
def test_at_less_noise_the_top_level_is_better_than_no_levels(corpus, measured):
    """By less: at 60 % a captioner without levels sees twice as many clean captions as at 80 %."""
    of = corpus(0.6)
    top, vanilla = of.f1(*LONG), of.f1(*VANILLA, *LONG)
    assert measured("fact F1 of the top level over vanilla", top - vanilla, ">", 0.0)
