"""Alt text and long captions of generated pictures, and the sentences that training draws of them."""

import pytest

from capkit.data.sub_captions import SubCaptions
from capkit.data.targets import targets_of
from capkit.sceneworld.language.facts import PLACES
from capkit.sceneworld.sources.long_captions import LongCaptions
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.scene import Scene
from capkit.text.sentences import sentences


@pytest.fixture
def source(tmp_path):
    options = WorldOptions(min_objects=3, max_objects=4)
    return SceneWorld("train", 30, size=32, options=options, cache_dir=str(tmp_path))


def test_alt_text_names_one_object_and_a_long_caption_has_a_sentence_for_each(source):
    for index in range(30):
        record = LongCaptions(source).record(index)
        objects = Scene.from_dict(record.metadata["scene"]).objects
        names = {f"{item.color} {item.shape}" for item in objects}
        texts = {name: [c.text for c in record.captions if c.source == name] for name in ("raw", "long")}
        assert len(texts["raw"]) == len(texts["long"]) == 2 == len({*texts["long"]})
        for text in texts["raw"]:
            assert sum(text.endswith(name) for name in names) == 1
        for text in texts["long"]:
            said = sentences(text)
            assert len(said) == len(objects)
            for sentence, item in zip(said, objects, strict=True):
                assert f"{item.color} {item.shape}" in sentence and PLACES[item.cell] in sentence


def test_which_object_alt_text_names_is_drawn_by_the_seed(source):
    def named(seed):
        return [LongCaptions(source, seed).record(index).captions[0].text for index in range(30)]

    assert named(0) == named(0) != named(1)
    assert LongCaptions(source).fingerprint() != LongCaptions(source, 1).fingerprint()
    first = [Scene.from_dict(source.record(i).metadata["scene"]).objects[0] for i in range(30)]
    is_first = [text.endswith(f"{item.color} {item.shape}") for text, item in zip(named(0), first, strict=True)]
    assert 3 <= sum(is_first) <= 20  # of three or four objects


def test_a_training_step_draws_alt_text_and_sentences_with_their_origin(source):
    record = LongCaptions(source).record(0)
    drawn = SubCaptions.of({"count": 4, "always": "raw", "from": ["long"]})(targets_of(record, "images")[0], (0, 0, 0))
    assert [target.caption.source.split("/")[0] for target in drawn] == ["raw", "long", "long", "long"]
    numbers = {int(target.caption.source.split("/")[1]) for target in drawn[1:]}
    assert numbers <= set(range(len(record.metadata["scene"]["objects"])))
