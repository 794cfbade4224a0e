"""Attention per word on SceneWorld: a captioner that learned to caption looks at the object that it names.

Nothing is trained here: the captioner is one that other effects start from. Objects come from the scenes; the captions
are the captioner's own, in the controls too. The numbers stand in docs/attention.md.
"""

import dataclasses

import numpy as np
import pytest
import torch
import yaml

from capkit.checkpoint.loading import load_captioner
from capkit.decoding.config import Decoding
from capkit.models.captioners.word_attention import require_attention, word_attention
from capkit.sceneworld.metrics.pointing import pointing
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.render import render
from capkit.sceneworld.world.scene import make_scene
from capkit.types import CaptionBatch

pytestmark = pytest.mark.effect

NUM_SCENES = 300
CHANCES, SHARE = 2.0, 0.65  # pointing over the area chance; and pointing, which untrained decoders must not reach
MORE = 0.5  # nouns on their object, less those on another one


@pytest.fixture(scope="module")
def captioner(start, seed):
    """A captioner, test scenes, their pictures as it encodes them, and what it writes about them."""
    run = start("generic", seed)
    test = yaml.safe_load((run / "config.yaml").read_text())["data"]["test"]
    options = WorldOptions(**{k: v for k, v in test["source"]["options"].items() if k != "_target_"})
    scenes = [make_scene(options, 1, "test", index) for index in range(NUM_SCENES)]
    pictures = np.stack([render(scene, test["source"]["size"]) for scene in scenes])
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1
    model, _ = load_captioner(str(run))
    with torch.inference_mode():
        context = model.encode(CaptionBatch([str(index) for index in range(NUM_SCENES)], pixels=pixels))
        return model, scenes, context, model.generate(context, Decoding(max_length=16))


@torch.inference_mode()
def points(model, scenes, context, samples):
    found = word_attention(require_attention(model), context, samples)
    return pointing([row.words for row in found], [row.shares for row in found], scenes)


def more(found):
    return found["pointing"] - found["pointing_others"]


def test_nouns_look_at_their_object(captioner, measured):
    """Fails where a word's row is that of its own token instead of its prediction, and where cells are transposed."""
    found = points(*captioner)
    assert found["pointing_nouns"] >= NUM_SCENES
    assert measured("pointing over the area chance", found["pointing"] / found["pointing_chance"], ">=", CHANCES)
    assert measured("pointing", found["pointing"], ">=", SHARE)
    assert measured("on their object, less on another", more(found), ">=", MORE)


def test_attention_to_another_image_does_not(captioner, measured):
    """Control: the captions are these, the image that is attended to is another one's.

    It is above the area chance: objects of all images stand near the centres of 3 x 3 places.
    """
    model, scenes, context, samples = captioner
    others = dataclasses.replace(context, states=context.states.roll(1, 0))
    found = points(model, scenes, others, samples)
    assert not measured("pointing", found["pointing"], ">=", SHARE, control="another image")
    assert not measured("on their object, less on another", more(found), ">=", MORE, control="another image")


def test_an_untrained_decoder_looks_at_objects_but_not_at_the_one_it_names(captioner, measured):
    """Control. It is above the area chance: a trained encoder's tokens of objects stand out to any decoder."""
    model, scenes, context, samples = captioner
    trained = {name: value.clone() for name, value in model.decoder.state_dict().items()}
    torch.manual_seed(0)
    model.decoder._initialise()
    try:
        found = points(model, scenes, context, samples)
    finally:
        model.decoder.load_state_dict(trained)
    assert not measured("pointing", found["pointing"], ">=", SHARE, control="untrained decoder")
    assert not measured("on their object, less on another", more(found), ">=", MORE, control="untrained decoder")
