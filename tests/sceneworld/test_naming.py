"""What scene_lm answers to prompts with an alt-text and a synthetic caption."""

import json

import pytest

from capkit.llm.base import Question
from capkit.llm.prompts import Prompt
from capkit.sceneworld.language.names import name_of, name_recall, named_in
from capkit.sceneworld.language.oracles import score_caption
from capkit.sceneworld.language.parser import parse
from capkit.sceneworld.llm import SceneLM
from capkit.sceneworld.sources.named import Named
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.scene import Scene

RED, STAR = name_of("circle", "red"), name_of("star", "blue")


def fused(alt_text, synthetic, prompt="fuse_alt_text_v1"):
    text = Prompt(prompt, ["alt_text", "synthetic"]).fill(alt_text=alt_text, synthetic=synthetic)
    (answer,) = SceneLM().ask([Question(text)])
    return json.loads(answer.text)["caption"]


@pytest.mark.parametrize(
    ("alt_text", "synthetic", "wanted"),
    [
        (f"buy {STAR}, {RED} hq", "a red circle and a blue star.", f"a red circle ({RED}) and a blue star ({STAR})."),
        (f"{RED} {RED}", "two large red circles", f"two large red circles ({RED})"),
        (RED.upper(), "a blue circle and a circle", f"a blue circle and a circle ({RED})"),
        (RED, "a red star, a circle and a red circle", f"a red star, a circle and a red circle ({RED})"),
        (RED, "a red star and a circle that is red", f"a red star and a circle ({RED}) that is red"),
        (RED, "a blue star.", f"a blue star ({RED})."),
        ("img_1234.jpg", "picture of a cross", "picture of a cross"),
    ],
)  # fmt: skip
def test_names_stand_behind_what_they_name_and_the_shops_words_are_gone(alt_text, synthetic, wanted):
    assert fused(alt_text, synthetic) == fused(alt_text, synthetic, "fuse_alt_text_bare_v1") == wanted


def test_of_scenes_every_name_and_every_fact_is_said_and_the_order_of_the_words_is_the_captioners():
    """Control: the alt-text of the next picture, whose names are not those of the scene."""
    source = Named(SceneWorld("train", 20, 32), unrelated=0.0)
    rows = [source.record(index) for index in range(20)]
    for record, other in zip(rows, [*rows[1:], rows[0]], strict=True):
        alt, synthetic = (caption.text for caption in record.captions)
        scene, said = Scene.from_dict(record.metadata["scene"]), fused(alt, synthetic)
        assert name_recall(scene, said) == 1.0 and set(parse(said).facts) == set(parse(synthetic).facts)
        assert score_caption(scene, said, []).precision == 1.0
        theirs = fused(other.captions[0].text, synthetic)
        assert named_in(theirs) == named_in(other.captions[0].text)


def test_shapes_without_a_name_are_in_no_alt_text():
    scenes = SceneWorld("train", 40, 32)
    rows = [Named(scenes, "alt_text", unrelated=0.0, unnamed=["circle", "star"]).record(index) for index in range(40)]
    for record in rows:
        scene = Scene.from_dict(record.metadata["scene"])
        pairs = {(o.shape, o.color) for o in scene.objects if o.shape not in ("circle", "star")}
        assert named_in(record.captions[0].text) == pairs
        assert name_recall(scene, record.captions[0].text, ["circle", "star"]) == 1.0
