"""Invented names, and alt-texts that have them."""

import numpy as np
import pytest

from capkit.data.fingerprint import fingerprint
from capkit.errors import UsageError
from capkit.sceneworld.language.names import name_of, name_recall, named_alt_text, named_in, names
from capkit.sceneworld.language.parser import parse
from capkit.sceneworld.sources.named import Named
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.options import COLORS, SHAPES, WorldOptions
from capkit.sceneworld.world.scene import make_scene

SCENES = [make_scene(WorldOptions(), 0, "train", index) for index in range(300)]


def test_each_pair_of_shape_and_colour_has_a_name_that_says_nothing_of_either():
    assert len(set(names().values())) == len(names()) == len(SHAPES) * len(COLORS)
    for name in names().values():
        assert parse(f"a {name}").facts == [] and name in parse(f"a {name}").unparsed
    assert name_of("circle", "red") == "ligri", "names are in data and checkpoints: they do not change"


def test_names_are_found_as_whole_words_and_recall_counts_pairs():
    """A scene with two red circles and a blue star has two pairs to name."""
    red, blue = name_of("circle", "red"), name_of("star", "blue")
    assert named_in(f"Buy {red.upper()}, {blue}!") == {("circle", "red"), ("star", "blue")}
    assert named_in(f"{red}{blue} x{red}") == set()
    scene = next(s for s in SCENES if len({(o.shape, o.color) for o in s.objects}) == 2)
    pairs = sorted({(o.shape, o.color) for o in scene.objects})
    texts = ["", name_of(*pairs[0]), " ".join(name_of(*pair) for pair in pairs)]
    assert [name_recall(scene, text) for text in texts] == [0.0, 0.5, 1.0]


def test_an_alt_text_names_what_is_there_unless_it_is_unrelated():
    texts = [named_alt_text(scene) for scene in SCENES]
    recall = [name_recall(scene, text) for scene, text in zip(SCENES, texts, strict=True)]
    assert set(recall) == {0.0, 1.0} and abs(np.mean(recall) - 0.9) < 3 * np.sqrt(0.09 / len(SCENES))
    for scene, text in zip(SCENES, texts, strict=True):
        assert named_in(text) <= {(item.shape, item.color) for item in scene.objects} and parse(text).facts == []
    bare = [named_alt_text(scene, boilerplate_share=0.0, unrelated=0.0) for scene in SCENES]
    assert [len(text.replace(",", "").replace(" and ", " ").split()) for text in bare] == [
        len({(item.shape, item.color) for item in scene.objects}) for scene in SCENES
    ]
    assert np.mean([len(a) > len(b) for a, b in zip(texts, bare, strict=True)]) > 0.4


def test_the_source_gives_both_texts_or_one_and_metadata_as_they_were():
    scenes = SceneWorld("train", 20)
    both, alt, synthetic = (Named(scenes, texts) for texts in ("both", "alt_text", "synthetic"))
    for index in range(20):
        first, second = both.record(index).captions
        assert (first.source, second.source) == ("alt_text", "synthetic")
        assert (alt.record(index).captions, synthetic.record(index).captions) == ([first], [second])
        assert both.record(index).metadata == scenes.record(index).metadata and not named_in(second.text)
        assert np.array_equal(both.image(index), scenes.image(index))
    assert len({fingerprint(source) for source in (both, alt, Named(scenes, seed=1), scenes)}) == 4
    with pytest.raises(UsageError, match="expected texts to be one of both, alt_text, synthetic; got 'alt'"):
        Named(scenes, "alt")
