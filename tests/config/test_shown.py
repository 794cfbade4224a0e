"""`capkit show`: the composed config and where each value comes from; `capkit list` takes plurals."""

import pytest
import yaml
from omegaconf import OmegaConf

from capkit.cli import main
from capkit.config.arguments import parse
from capkit.config.compose import compose_config


def lines(capsys, *words):
    assert main(["show", *words]) == 0
    return capsys.readouterr().out


WORDS = [
    ["caption", "images=photos"], ["experiment=clip_reward_sceneworld", "seed=3"],
    ["name='two\nlines'", "+model.conditions={a.b: {kind: 'three\n\nlines'}}"],
]  # fmt: skip


@pytest.mark.parametrize("words", WORDS, ids=["caption", "experiment", "odd keys and texts"])
def test_what_is_shown_reads_back_as_the_config(capsys, words):
    config = compose_config(parse(words)).config
    for key in [key for key in config if OmegaConf.is_missing(config, key)]:
        config[key] = "left open"
    page = lines(capsys, *words)
    assert all("  # " in line or line.endswith(":") for line in page.splitlines())  # one line for each value
    read = yaml.safe_load(page)
    shown = {key: "left open" if value == "???" else value for key, value in read.items()}
    assert shown == OmegaConf.to_container(config, resolve=True)


def test_each_value_says_where_it_was_set_last(capsys):
    page = lines(capsys, "experiment=clip_reward_sceneworld", "max_steps=7", "reward.clip_score.weight=3").splitlines()
    told = {line.split(":")[0].strip(): line.partition("  # ")[2] for line in reversed(page)}  # the first of a name
    assert told["max_steps"] == told["weight"] == "on the command line"
    assert told["name"] == "experiment/clip_reward_sceneworld.yaml" and told["controls"] == "train.yaml"
    assert told["num_distractors"] == "metric/rd20_trained.yaml"  # a nested one
    (rollout,) = [line for line in page if "oc.select:decoding.max_length" in line]
    assert rollout.split("  # ")[0].split() == ["max_length:", "16"]  # the value, and what it refers to


def test_a_value_of_an_earlier_run_says_so(capsys, tmp_path):
    (tmp_path / "checkpoints/step-00000001.ckpt").mkdir(parents=True)
    node = {"_target_": "capkit.decoding.config.Decoding", "max_length": 9}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"decoding": node}))
    page = lines(capsys, "caption", f"ckpt={tmp_path}", "images=photos")
    (line,) = [line for line in page.splitlines() if "max_length: 9" in line]
    assert line.endswith(f"# {tmp_path / 'config.yaml'}")


def test_what_cannot_be_composed_is_told(capsys):
    assert main(["show", "experiment=clip_reward_scenewrld"]) == 2
    assert "did you mean" in capsys.readouterr().err


def test_the_plural_of_a_group_lists_it(capsys):
    assert main(["list", "rewards"]) == 0
    plural = capsys.readouterr().out
    assert main(["list", "reward"]) == 0
    assert capsys.readouterr().out == plural and "  custom " in plural
    assert main(["list", "rewardz"]) == 2
