"""A step's own model, chosen on the command line beside those that steps share; adapters of a model's parts."""

import pytest
from omegaconf import OmegaConf

from capkit.config.arguments import parse
from capkit.config.check import check
from capkit.config.compose import compose_config
from capkit.config.instantiate import build
from capkit.errors import UsageError

SERVER = "capkit.llm.chat_server.ChatServer"


def steps(*words):
    config = compose_config(parse(["curate", "out=x", *words])).config
    return OmegaConf.to_container(config.step, resolve=True)


def test_a_step_has_the_shared_model_unless_it_names_one_of_its_own():
    both = "step=[blend_captions,holistic_caption]"
    found = steps(both, "step.holistic_caption.text_lm=server", "step.holistic_caption.text_lm.url=http://x/v1",
                  "step.holistic_caption.text_lm.model=judge")  # fmt: skip
    assert found["blend_captions"]["text_lm"] == {"_target_": "capkit.sceneworld.llm.SceneLM"}
    assert found["holistic_caption"]["text_lm"] == {"_target_": SERVER, "url": "http://x/v1", "model": "judge"}
    assert found["holistic_caption"]["vision_chat"] == {"_target_": "capkit.sceneworld.llm.SceneVision"}


@pytest.mark.parametrize("shared", ["hf", "server"])
def test_a_steps_own_model_has_no_settings_of_the_shared_one(shared):
    words = ["text_lm.name=x"] if shared == "hf" else ["text_lm.url=http://y/v1", "text_lm.model=other"]
    found = steps("step=[blend_captions,holistic_caption]", f"text_lm={shared}", *words,
                  "step.holistic_caption.text_lm=server", "step.holistic_caption.text_lm.url=http://x/v1",
                  "step.holistic_caption.text_lm.model=judge")  # fmt: skip
    assert found["holistic_caption"]["text_lm"] == {"_target_": SERVER, "url": "http://x/v1", "model": "judge"}


def test_a_group_that_the_yaml_does_not_say_is_said_with_the_name():
    found = steps("step.blend_captions.text_lm=vision_chat/scene", "step.blend_captions.text_lm.wrong=0.5")
    model = build(OmegaConf.create(found["blend_captions"]["text_lm"]))
    assert model.about()["wrong"] == 0.5


def test_a_step_of_ones_own_takes_several_models_also_two_of_a_kind(tmp_path):
    (tmp_path / "step").mkdir()
    (tmp_path / "step/write.yaml").write_text(
        "# @package step.write\n_target_: builtins.dict\ngenerators: {}\njudge: ${oc.select:vision_chat,null}\n"
    )
    config = compose_config(parse([
        "curate", "out=x", "--config-dir", str(tmp_path), "step=[write]",
        "step.write.generators.first=vision_chat/scene",
        "step.write.generators.second=vision_chat/scene", "step.write.generators.second.seed=3",
        "step.write.generators.third=text_lm/scene", "step.write.judge=scene", "step.write.judge.wrong=0.25",
    ])).config  # fmt: skip
    made = build(config.step.write)
    assert [model.about()["model"] for model in made["generators"].values()] == ["scene_vision"] * 2 + ["scene_lm"]
    assert [made["generators"][name].seed for name in ("first", "second")] == [0, 3]
    assert made["judge"].wrong == 0.25


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["step.blend_captions.text_lm=text_lm/sever"], "there is no text_lm 'sever'; did you mean 'server'"),
        (["step.holistic_caption.text_lm=server"],
         r"no step 'holistic_caption' in this run \(it has blend_captions\); add it: step=\[blend_captions,holistic"),
        (["step.blend_captions.text_lm=server"], "step.blend_captions.text_lm.url"),
        (["step.blend_captions.judge=text_lm/scene"], "judge"),
        (["step.blend_captions.text_lm=hf", "step.blend_captions.text_lm.name=x", "step.blend_captions.text_lm.topp=1"],
         "topp.*did you mean 'step.blend_captions.text_lm.top_p'"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_before_anything_is_built(words, reason):
    with pytest.raises(UsageError, match=reason):
        check(compose_config(parse(["curate", "out=x", *words])))


def test_adapters_of_several_parts_are_given_one_by_one():
    base = ["fit_rl", "init_from=RUN", "reward=[length]"]
    config = compose_config(parse([*base, "model.lora.lm={rank: 2}", "model.lora.image_encoder={rank: 4}"])).config
    assert OmegaConf.to_container(config.model.lora) == {"lm": {"rank": 2}, "image_encoder": {"rank": 4}}
    with pytest.raises(UsageError, match=r"unknown key 'model\.lora\.rnak'"):
        compose_config(parse([*base, "model.lora={rank: 2}", "model.lora.rnak=4"]))
