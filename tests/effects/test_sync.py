"""Captions paired anew with pictures that were drawn for them (SynC, Kim et al. 2025, arXiv 2507.18616) on SceneWorld.

Half of the pictures lack an object of their caption or show one in another colour. A pair is true if the picture shows
all that the caption says, which is read from the scene that was drawn. Pictures and captions are compared by a
committed dual encoder; the text side of another one is the sentence encoder. The table stands in docs/sync.md.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from capkit.checkpoint.loading import load_dual_encoder
from capkit.cli import main
from capkit.curation.steps.reassign_images import ReassignImages
from capkit.data.records import read_manifest, write_manifest
from capkit.sceneworld.language.oracles import score_caption
from capkit.sceneworld.sources.flawed_pictures import FlawedPictures
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.scene import Scene

pytestmark = [pytest.mark.effect, pytest.mark.xdist_group("sync")]

TRUE = 0.75
COUNT = 2000
OPTIONS = WorldOptions(
    ["circle", "square", "triangle", "cross"],
    sizes=["large"],
    backgrounds=["white", "black"],
    min_objects=2,
    max_objects=2,
    inside_probability=0.0,
)


def is_true(record, caption):
    return score_caption(Scene.from_dict(record.metadata["scene"]), caption.text, []).precision == 1


def true_pairs(records):
    """The share of pairs whose picture shows all that the caption says, and the number of pairs."""
    found = [is_true(record, caption) for record in records for caption in record.captions]
    return sum(found) / len(found), len(found)


class Generated:
    """Captions and the pictures drawn for them, and what each way to pair them gives."""

    def __init__(self, folder, encoders, seed):
        scenes = SceneWorld("train", COUNT, 32, seed=seed, style="short", options=OPTIONS, cache_dir=str(folder))
        self.source = FlawedPictures(scenes, 0.5, seed)
        self.source.prepare()
        self.records = [self.source.record(index) for index in range(COUNT)]
        self.places = {record.key: place for place, record in enumerate(self.records)}
        self._folder, self._encoders, self._seed = folder, encoders, seed

    def paired(self, read=None, **settings):
        encoder, sentence_encoder = self._encoders
        step = ReassignImages(
            encoder, **{"sentence_encoder": sentence_encoder, "cache_dir": str(self._folder / "kept"), **settings}
        )
        step.attach_images(read or (lambda key: self.source.image(self.places[key])))
        return list(step(lambda: iter(self.records)))

    def dealt(self):
        """The control: each caption has the sentence embedding of another one."""
        texts = [record.captions[0].text for record in self.records]
        rows = self._encoders[1].encode_text(texts).numpy()
        path = self._folder / "dealt.npy"
        np.save(path, rows[np.random.default_rng(self._seed).permutation(len(rows))])
        return self.paired(sentence_encoder=None, sentence_features_file=str(path))


@pytest.fixture(scope="session")
def generated(tmp_path_factory, start, seed):
    encoders = [load_dual_encoder(str(start("judge", number))) for number in (0, 1)]
    with torch.inference_mode():
        return Generated(tmp_path_factory.mktemp("sync"), encoders, seed)
