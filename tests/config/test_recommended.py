"""What comes with a model: size and normalisation of pictures, learning rate and warm-up."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from capkit.config.arguments import parse
from capkit.config.check import compose_checked
from capkit.config.described import described
from capkit.config.locations import config_dir, groups
from capkit.errors import UsageError
from capkit.optim.schedules import Constant, Cosine
from capkit.train.session import warn_of_long_warmup

OWN = ["data=folder", "data.train.images=photos", "data.train.captions=captions.json"]
CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]


@pytest.fixture(autouse=True)
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Path("captions.json").write_text("{}")


def compose(*words):
    return OmegaConf.to_container(compose_checked(parse(list(words))).config, resolve=True)


def transform(*words):
    return compose(*words)["data"]["transform"]


@pytest.mark.parametrize(
    ("words", "size"),
    [
        ([], 64),
        (["model=sceneworld_small"], 32),
        (["model.image_encoder.image_size=128"], 128),
        (["model=coco_clipcap"], 224),
        (["model=blip"], 384),
        (["model=blip", "model.name=null", "model.config={model_type: blip, vision_config: {image_size: 32}}"], 32),
        (["model=vision_encoder_decoder", "model.name=null", "model.encoder={image_size: 96}", "model.decoder={}"], 96),
        (["model=swin_distilbertimbau"], 224),
        (["fit_encoder"], 64),
        (["data.transform.size=96", "model.image_encoder.image_size=96"], 96),
    ],
)
def test_a_folder_of_pictures_is_brought_to_the_models_size(words, size):
    assert transform(*words, *OWN)["size"] == size


def test_scenes_are_drawn_at_their_own_size_and_brought_to_the_models():
    drawn = compose("data.train.size=32", "model.image_encoder.image_size=32")["data"]
    assert drawn["train"]["size"] == drawn["transform"]["size"] == 32
    assert transform("model=clip_prefix")["size"] == 224


def test_normalisation_and_learning_rate_come_with_the_model_unless_given():
    tuned = compose("model=coco_clipcap", *OWN)
    assert tuned["data"]["transform"]["mean"] == CLIP_MEAN
    assert (tuned["optimizer"]["lr"], tuned["scheduler"]["warmup"]) == (2e-5, 0.05)
    given = compose("model=coco_clipcap", *OWN, "optimizer.lr=1e-3", "data.transform.mean=[0.1,0.2,0.3]")
    assert (given["optimizer"]["lr"], given["data"]["transform"]["mean"]) == (1e-3, [0.1, 0.2, 0.3])
    assert compose()["optimizer"]["lr"] == 2.5e-3
    assert compose("model=coco_clipcap", *OWN, "optimizer=lamb")["optimizer"]["lr"] == 1e-3


def test_no_pretrained_network_is_tuned_at_the_rate_of_a_small_new_one():
    small = ("sceneworld", "encoder_decoder", "modular", "camu")  # and CAMU, whose rate is that of its experiment
    names = [name for name in groups([config_dir()])["model"] if not name.startswith(small)]
    files = {name: OmegaConf.load(config_dir() / "model" / f"{name}.yaml") for name in names}
    own = {name: file for name, file in files.items() if "defaults" not in file}  # others have those of another model
    assert [name for name, file in own.items() if not 0 < file.recommended.lr < 2.5e-3] == []


def test_what_an_experiment_says_stands_above_the_model():
    config = compose("experiment=clip_pretrain_sceneworld")
    assert (config["optimizer"]["lr"], config["scheduler"]["warmup"]) == (4e-3, 0.15)


def test_the_screen_says_what_is_the_models():
    (line,) = described(compose_checked(parse(["model=coco_clipcap", *OWN, "scheduler.warmup=3"])))
    assert line.startswith(
        "defaults:  of model=coco_clipcap: data.transform.size=224 data.transform.mean=[0.48145466, "
    )
    assert line.endswith(" optimizer.lr=2e-05")


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["data.transform.size=224"], "model.image_encoder.image_size=64"),
        (["data.transform.size=64", "model=sceneworld_small"], "model.image_encoder.image_size=32"),
        (["fit_encoder", "data.transform.size=224"], "model.image_tower.image_size=64"),
        (
            [
                "model=clip_prefix", "data.transform.size=64", "model.image_encoder.name=null",
                "model.image_encoder.config={model_type: clip_vision_model, image_size: 32}",
            ],
            "model.image_encoder.config.image_size=32",
        ),
        (
            ["model=coco_transformer_clip", "data.transform.size=256", "model.image_encoder.weights=null",
             "model.image_encoder.output=pooled"],
            "model.image_encoder.image_size=224",
        ),
    ],
)  # fmt: skip
def test_pictures_of_another_size_than_the_models_are_refused_with_both_keys(words, key):
    with pytest.raises(UsageError) as caught:
        compose(*words, *OWN)
    assert key in str(caught.value) and "omit data.transform.size" in str(caught.value)


def test_a_warm_up_that_outlasts_the_run_is_told(capsys):
    warn_of_long_warmup(Cosine(warmup=5000), 20)
    printed = capsys.readouterr().out
    assert (
        "scheduler.warmup=5000 steps, but the run has 20" in printed and "further than 0.004 of optimizer.lr" in printed
    )
    for schedule in (Cosine(warmup=0.05), Cosine(warmup=19), Constant()):
        warn_of_long_warmup(schedule, 20)
    assert capsys.readouterr().out == ""
