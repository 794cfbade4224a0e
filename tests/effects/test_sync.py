"""Captions paired anew with pictures that were drawn for them (SynC, Kim et al. 2025, arXiv 2507.18616) on SceneWorld.

Half of the pictures lack an object of their caption or show one in another colour. A pair is true if the picture shows
all that the caption says, which is read from the scene that was drawn. Pictures and captions are compared by a
committed dual encoder; the text side of another one is the sentence encoder. The table stands in docs/sync.md.
"""

import numpy as np
import pytest

from capkit.checkpoint.loading import load_dual_encoder
from capkit.curation.steps.reassign_images import ReassignImages
from capkit.sceneworld.language.oracles import score_caption
from capkit.sceneworld.sources.flawed_pictures import FlawedPictures
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.scene import Scene

pytestmark = [pytest.mark.effect, pytest.mark.xdist_group("sync")]

TRUE = 0.75
COUNT = 1200
OPTIONS = WorldOptions(
    ["circle", "square", "cross"],
    sizes=["large"],
    backgrounds=["white", "black"],
    min_objects=2,
    max_objects=2,
    inside_probability=0.0,
)


def true_pairs(records):
    """The share of pairs whose picture shows all that the caption says, and the number of pairs."""
    scenes = [Scene.from_dict(record.metadata["scene"]) for record in records]
    found = [
        score_caption(scene, caption.text, []).precision == 1
        for record, scene in zip(records, scenes, strict=True)
        for caption in record.captions
    ]
    return sum(found) / len(found), len(found)


class Generated:
    """Captions and the pictures drawn for them, and what a way to pair them gives."""

    def __init__(self, folder, encoders, seed):
        scenes = SceneWorld("train", COUNT, 32, seed=seed, style="short", options=OPTIONS, cache_dir=str(folder))
        self.source = FlawedPictures(scenes, OPTIONS, 0.5, seed)
        self.source.prepare()
        self.records = [self.source.record(index) for index in range(COUNT)]
        self._places = {record.key: place for place, record in enumerate(self.records)}
        self._folder, self._encoders, self._seed = folder, encoders, seed

    def image(self, key):
        return self.source.image(self._places[key])

    def paired(self, read=None, **settings):
        encoder, sentence_encoder = self._encoders
        given = {"sentence_encoder": sentence_encoder, "cache_dir": str(self._folder / "kept"), **settings}
        step = ReassignImages(encoder, **given)
        step.attach_images(read or self.image)
        return list(step(lambda: iter(self.records)))

    def dealt(self):
        """With the sentence embeddings of other captions."""
        rows = self._encoders[1].encode_text([record.captions[0].text for record in self.records]).numpy()
        path = self._folder / "dealt.npy"
        np.save(path, rows[np.random.default_rng(self._seed).permutation(len(rows))])
        return self.paired(sentence_encoder=None, sentence_features_file=str(path))


@pytest.fixture(scope="session")
def generated(tmp_path_factory, start, seed):
    encoders = [load_dual_encoder(str(start("judge", number))) for number in (0, 1)]
    return Generated(tmp_path_factory.mktemp("sync"), encoders, seed)


def test_three_quarters_of_the_pairs_become_true(generated, measured):
    """The control has the sentence embeddings of other captions: then the way back leads to any candidate."""
    pairs, number = true_pairs(generated.paired())
    assert measured("share of true pairs", pairs, ">=", TRUE) and number == int(0.9 * COUNT)
    raw, _ = true_pairs(generated.records)
    assert not measured("share of true pairs", raw, ">=", TRUE, control="as drawn")
    dealt, _ = true_pairs(generated.dealt())
    assert not measured("share of true pairs", dealt, ">=", TRUE, control="sentence embeddings dealt to other captions")


def test_it_is_better_than_filtering_and_than_plain_similarity_at_equal_size(generated, measured):
    pairs, number = true_pairs(generated.paired())
    ways = {
        "one to one": {"mapping": "one_to_one"},
        "one to one by similarity": {"mapping": "one_to_one", "score": "cosine", "sentence_encoder": None},
        "plain similarity": {"score": "cosine", "sentence_encoder": None},
    }
    for name, settings in ways.items():
        other, size = true_pairs(generated.paired(**settings))
        assert measured(f"share of true pairs over {name}", pairs - other, ">", 0) and size == number
    dealt, _ = true_pairs(generated.dealt())
    plain, _ = true_pairs(generated.paired(**ways["plain similarity"]))
    assert not measured(
        "share of true pairs over plain similarity",
        dealt - plain,
        ">",
        0,
        control="sentence embeddings dealt to other captions",
    )


def test_without_pictures_or_colours_nothing_is_gained(generated, measured):
    """Takes the pictures away, and their colours: blank ones and gray ones must miss the threshold."""
    blank, gray = {}, {}
    for record in generated.records:
        picture = generated.image(record.key)
        blank[record.key] = np.full_like(picture, 255)
        gray[record.key] = np.broadcast_to(picture.mean(-1, keepdims=True), picture.shape).astype(np.uint8)
    for name, pictures in (("blank pictures", blank), ("gray pictures", gray)):
        share, _ = true_pairs(generated.paired(pictures.__getitem__))
        assert not measured("share of true pairs", share, ">=", TRUE, control=name)
