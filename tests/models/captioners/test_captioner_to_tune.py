"""A trained captioner taken from its checkpoint to be trained further: as it is, with adapters, or partly frozen."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from capkit.checkpoint.loading import checkpoint_extras, load_captioner_to_tune, model_from_checkpoint, read_checkpoint
from capkit.config.instantiate import build
from capkit.errors import UsageError
from capkit.models.tuning.lora import adapters_off, only_adapters_train
from capkit.models.weights import trainable_state
from capkit.testing.models import TEXT
from capkit.text.tokenizers import encode_captions, word_tokenizer
from capkit.types import CaptionBatch

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
PREFIX = {
    "_target_": "capkit.models.captioners.clip_prefix.ClipPrefix",
    "lm": {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40},
    "image_encoder": {
        "_target_": "capkit.models.encoders.image.HFImageEncoder",
        "config": {"model_type": "vit", "image_size": 32, "patch_size": 16, **SIZES},
    },
    "prefix_length": 3,
    "max_length": 20,
}
CAPTIONS = [["a red ball"], ["two green stars and a ball"]]
TUNED = "capkit.checkpoint.loading.load_captioner_to_tune"


def save(model, node, folder, seed=0):
    """A run folder with one checkpoint, as a run of this model config leaves it."""
    config = OmegaConf.create({"seed": seed, "model": node})
    state = {f"model.{name}": value.clone() for name, value in trainable_state(model).items()}
    path = folder / "checkpoints" / "step-00000001.ckpt"
    path.parent.mkdir(parents=True)
    torch.save({"state_dict": state, "global_step": 1, "capkit": checkpoint_extras(config, model)}, path)
    return str(folder)


def train_a_little(model):
    """Other weights wherever they train."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


@torch.no_grad()
def output(model):
    tokens, mask, prompt_length = encode_captions(model.tokenizer, CAPTIONS, model.prompt, 12)
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    batch = CaptionBatch(["a", "b"], pixels, None, tokens, mask, prompt_length)
    training, _ = model.training, model.eval()
    logprobs = model.logprobs(model.encode(batch), tokens, mask)
    model.train(training)
    return logprobs


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(run folder, captioner)."""
    torch.manual_seed(0)
    tokenizer = word_tokenizer([caption for captions in CAPTIONS for caption in captions])
    model = train_a_little(build(OmegaConf.create(PREFIX), tokenizer=tokenizer))
    return save(model, PREFIX, tmp_path_factory.mktemp("runs") / "first"), model


def again(run):
    """The model as evaluation would build it from the run's checkpoint."""
    return model_from_checkpoint(read_checkpoint(Path(run)))


def test_a_captioner_comes_back_with_its_weights_ready_to_train(trained):
    run, model = trained
    tuned = load_captioner_to_tune(run)
    assert torch.equal(output(tuned), output(model))
    assert all(module.training for module in tuned.modules())
    assert [n for n, p in tuned.named_parameters() if p.requires_grad] == [
        n for n, p in model.named_parameters() if p.requires_grad
    ]


def test_checkpoints_of_a_tuned_captioner_stand_alone_also_under_another_seed(trained, tmp_path):
    run, model = trained
    assert any(not p.requires_grad for p in model.parameters())  # random, and in no checkpoint
    moved = tmp_path / "moved"
    node = {"_target_": TUNED, "ckpt": str(moved)}
    save(train_a_little(load_captioner_to_tune(run)), node, tmp_path / "second", seed=3)
    expected = output(train_a_little(load_captioner_to_tune(run)))
    assert not moved.exists()  # nothing is read from where the first run was
    assert torch.equal(output(again(tmp_path / "second")), expected)
    assert not torch.allclose(expected, output(load_captioner_to_tune(run)), atol=1e-2)


def test_adapters_change_nothing_at_first_and_alone_train(trained):
    run, model = trained
    tuned = load_captioner_to_tune(run, lora={"lm": {"rank": 2, "alpha": 4}}, freeze=["mapper", "image_encoder"])
    torch.testing.assert_close(output(tuned), output(model))
    assert only_adapters_train(tuned)
    assert all(".lora_" in name for name in trainable_state(tuned))
    train_a_little(tuned)
    assert (output(tuned) - output(model)).abs().max() > 1e-2
    with adapters_off(tuned):
        torch.testing.assert_close(output(tuned), output(model))


def test_adapters_start_with_a_normal_of_the_deviation_that_is_asked_for(trained):
    tuned = load_captioner_to_tune(trained[0], lora={"lm": {"rank": 16, "init_std": 1.0}})
    starts = torch.cat([p.detach().flatten() for name, p in tuned.lm.named_parameters() if ".lora_A." in name])
    assert len(starts) == 2 * 16 * 16 and starts.std() == pytest.approx(1.0, abs=0.15)
    torch.testing.assert_close(output(tuned), output(trained[1]))
    with pytest.raises(UsageError, match="init_std: expected a finite number greater than 0"):
        load_captioner_to_tune(trained[0], lora={"lm": {"init_std": 0.0}})


def test_without_freezing_the_rest_goes_on_training_beside_adapters(trained):
    tuned = load_captioner_to_tune(trained[0], lora={"lm": {"rank": 2}})
    assert not only_adapters_train(tuned)
    trains = {name.split(".")[0] for name, p in tuned.named_parameters() if p.requires_grad}
    assert {"mapper", "image_encoder", "lm"} <= trains
    assert all(".lora_" in name for name, p in tuned.lm.named_parameters() if p.requires_grad)


@pytest.mark.parametrize(
    "settings",
    [{"lora": {"lm": {"rank": 2}}}, {"freeze": ["image_encoder"]}, {"lora": {"lm": {}}, "freeze": ["mapper"]}],
)
def test_a_partly_frozen_captioner_comes_back_from_its_own_checkpoint_and_the_first(trained, tmp_path, settings):
    run, _ = trained
    tuned = train_a_little(load_captioner_to_tune(run, **settings))
    save(tuned, {"_target_": TUNED, "ckpt": run, **settings}, tmp_path / "second")
    assert torch.equal(output(again(tmp_path / "second")), output(tuned))
    stored = read_checkpoint(tmp_path / "second")["state_dict"]
    frozen = {f"model.{name}" for name, p in tuned.named_parameters() if not p.requires_grad}
    assert frozen and not frozen & set(stored)


def test_a_captioner_tuned_with_adapters_can_be_tuned_further(trained, tmp_path):
    run, _ = trained
    settings = {"lora": {"lm": {"rank": 2}}}
    second = train_a_little(load_captioner_to_tune(run, **settings))
    save(second, {"_target_": TUNED, "ckpt": run, **settings}, tmp_path / "second")
    third = load_captioner_to_tune(str(tmp_path / "second"))
    assert torch.equal(output(third), output(second))
    save(train_a_little(third), {"_target_": TUNED, "ckpt": str(tmp_path / "second")}, tmp_path / "third")
    assert torch.equal(output(again(tmp_path / "third")), output(third))


def test_one_parameter_can_be_frozen_by_its_name(trained):
    name = "lm.transformer.wte.weight"
    tuned = load_captioner_to_tune(trained[0], freeze=[name])
    frozen = {n for n, p in tuned.named_parameters() if not p.requires_grad}
    assert frozen - {n for n, p in trained[1].named_parameters() if not p.requires_grad} == {name}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora": {"decoder": {}}}, r"expected parts of the captioner \(.*lm"),
        ({"lora": {"lm": {"rang": 2}}}, "rank"),
        ({"lora": {"lm": {"targets": ["q"]}}}, "match nothing"),
        ({"freeze": ["l"]}, "model.freeze: expected a part"),
    ],
)
def test_names_that_the_captioner_does_not_have_are_refused(trained, settings, message):
    with pytest.raises(UsageError, match=message):
        load_captioner_to_tune(trained[0], **settings)


def test_a_dual_encoder_is_refused(tmp_path):
    node = {
        "_target_": "capkit.models.dual_encoders.two_tower.TwoTower",
        "text_tower": {
            "_target_": "capkit.models.dual_encoders.text_towers.hf.HFTextTower",
            "config": {"model_type": "clip_text_model", **TEXT},
        },
        "image_tower": {"_target_": "capkit.models.encoders.image.SmallCNN", "image_size": 32},
        "embed_dim": 12,
    }
    model = build(OmegaConf.create(node), text_tower={"tokenizer": word_tokenizer(["a red ball"])})
    run = save(model, node, tmp_path / "dual")
    with pytest.raises(UsageError, match="holds a dual encoder"):
        load_captioner_to_tune(run)
