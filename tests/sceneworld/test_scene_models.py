import json

import numpy as np
import pytest

from capkit.errors import UsageError
from capkit.llm.base import ChatModel, Picture, Question
from capkit.llm.prompts import Prompt, numbered
from capkit.sceneworld.chat.sections import sections
from capkit.sceneworld.language.oracles import score_caption
from capkit.sceneworld.llm import SceneLM, SceneVision
from capkit.sceneworld.world.render import render
from capkit.sceneworld.world.scene import WorldOptions, make_scene

SCENES = [make_scene(WorldOptions(), 0, "train", index) for index in range(60)]


def pictures():
    return [Picture(render(scene, 64), {"scene": scene.to_dict()}) for scene in SCENES]


def described(model, sample=0):
    return model.ask([Question("Describe.", (picture,), sample=sample) for picture in pictures()])


def test_they_are_models_like_any_other():
    assert isinstance(SceneLM(), ChatModel) and not SceneLM().takes_pictures
    assert isinstance(SceneVision(), ChatModel) and SceneVision().takes_pictures
    assert SceneVision(omitted=0.5).draws and not SceneVision().draws


def test_a_prompt_is_read_back_to_what_was_put_into_it():
    assert sections("Rules [here].\n\n[captions]\n1. a\n2. b") == {"captions": "1. a\n2. b"}
    holistic = Prompt("holistic_v1", ["anchor", "description"]).fill(anchor="one", description="two. three.")
    assert sections(holistic) == {"anchor": "one", "description": "two. three."}


def test_the_blend_prompt_is_answered_with_the_union_of_its_captions():
    prompt = Prompt("blend_v1", ["captions"]).fill(captions=numbered(["a red circle", "3 large circles"]))
    (answer,) = SceneLM().ask([Question(prompt)])
    assert json.loads(answer.text) == {
        "caption": "there is a large red circle. there is a large circle. there is a large circle."
    }


@pytest.mark.parametrize("prompt", ["What is this?", "[captions]\n1. img_204.jpg", "[anchor]\na circle"])
def test_what_it_cannot_answer_has_a_reason(prompt):
    (answer,) = SceneLM().ask([Question(prompt)])
    assert answer.text is None and answer.failure


def test_captions_that_leave_open_which_object_is_which_have_no_answer():
    lines = numbered(["a red circle and a blue circle", "a large circle and a small circle"])
    (answer,) = SceneLM().ask([Question(f"[captions]\n{lines}")])
    assert answer.text is None and "look-alikes" in answer.failure


def test_the_vision_model_says_what_is_in_the_picture():
    for scene, answer in zip(SCENES, described(SceneVision()), strict=True):
        assert score_caption(scene, answer.text, []).precision == 1.0


def test_its_share_of_wrong_colours_is_the_one_that_was_set_and_the_same_every_time():
    model = SceneVision(wrong=0.3)
    first, again = (described(model) for _ in range(2))
    assert first == again
    assert first != described(SceneVision(wrong=0.3, seed=1)) != described(model, sample=1)
    counted = [model._seen(picture, 0).objects for picture in pictures()]
    wrong = [
        a.color != b.color
        for scene, seen in zip(SCENES, counted, strict=True)
        for a, b in zip(scene.objects, seen, strict=True)
    ]
    assert abs(np.mean(wrong) - 0.3) < 3 * np.sqrt(0.3 * 0.7 / len(wrong))
    same = [
        a.shape == b.shape and a.x == b.x
        for scene, seen in zip(SCENES, counted, strict=True)
        for a, b in zip(scene.objects, seen, strict=True)
    ]
    assert all(same)


def test_wrong_settings_and_other_data_are_told():
    with pytest.raises(UsageError, match="wrong: expected a finite number from 0 to 1"):
        SceneVision(wrong=2.0)
    with pytest.raises(UsageError, match="metadata"):
        SceneVision().ask([Question("Describe.", (Picture(np.zeros((8, 8, 3), np.uint8)),))])
