"""Adapters: saved alone, loaded into plain models, merged into plain weights."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModel

from capkit.errors import UsageError
from capkit.models.dual_encoders.text_towers.hf import HFTextTower
from capkit.models.encoders.image import HFImageEncoder, SmallCNN
from capkit.models.tuning.lora import adapted_part, merged, save_adapters
from capkit.models.tuning.policy import Tuning
from capkit.text.tokenizers import word_tokenizer

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
TEXTS = ["a red circle left of a blue square", "one star", ""]


def text(model_type):
    config = {"model_type": model_type, "max_position_embeddings": 20, **SIZES}
    return HFTextTower(config=config, tokenizer=word_tokenizer(TEXTS), pooling="mean")


TOWERS = {
    "clip_text": lambda: text("clip_text_model"),
    "bert": lambda: text("bert"),
    "clip_vision": lambda: HFImageEncoder(
        config={"model_type": "clip_vision_model", "image_size": 32, "patch_size": 16, **SIZES}
    ),
    "cnn": lambda: SmallCNN(image_size=32, channels=(4, 6), blocks=(0, 1), width=5),
}
TARGETS = {"bert": ["query", "dense"], "cnn": ["project", "1", "3"]}
TRANSFORMERS = [name for name in TOWERS if name != "cnn"]


def adapted(name, alpha=16):
    """A tower whose adapters have learned something: B is not zero."""
    torch.manual_seed(0)
    tower = TOWERS[name]()
    Tuning("lora", rank=3, alpha=alpha, dropout=0.3, targets=TARGETS.get(name)).apply(tower)
    for parameter_name, parameter in tower.named_parameters():
        if "lora_B" in parameter_name:
            nn.init.normal_(parameter, std=0.5)
    return tower.eval()


@torch.no_grad()
def output(tower):
    if hasattr(tower, "tokenize"):
        return tower(*tower.tokenize(TEXTS))
    return tower(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)))


def plain_copy(name, tower, folder):
    """The plain transformers model that the tower started from, through a folder as a user would have it."""
    torch.manual_seed(0)
    adapted_part(TOWERS[name]()).save_pretrained(folder)
    return AutoModel.from_pretrained(folder).eval()


@pytest.mark.parametrize("load", ["peft", "transformers"])
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_adapters_saved_alone_give_the_plain_model_the_same_output(name, load, tmp_path):
    tower = adapted(name)
    save_adapters(tower, tmp_path / "adapters")
    plain = plain_copy(name, tower, tmp_path / "plain")
    with torch.no_grad():
        tokens = {"input_ids": torch.tensor([[1, 5, 6, 2]])}
        inputs = {"pixel_values": torch.randn(1, 3, 32, 32)} if name == "clip_vision" else tokens
        before = plain(**inputs).last_hidden_state
        if load == "peft":
            plain = PeftModel.from_pretrained(plain, tmp_path / "adapters")
        else:
            plain.load_adapter(str(tmp_path / "adapters"))
        after = plain.eval()(**inputs).last_hidden_state
        torch.testing.assert_close(after, tower.model(**inputs).last_hidden_state, atol=1e-5, rtol=1e-5)
    assert (after - before).abs().max() > 0.05  # else the adapters would show nothing


def test_the_adapter_file_holds_adapters_only(tmp_path):
    save_adapters(adapted("clip_text"), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert len(tensors) == 2 * 2 * 2 and all("lora_" in name for name in tensors)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 3, 16)


@pytest.mark.parametrize("name", TOWERS)
def test_merging_keeps_the_output_and_leaves_the_tower_as_it_was(name):
    tower = adapted(name)
    names = [key for key, _ in tower.named_parameters()]
    before = output(tower)
    plain = merged(tower)
    torch.testing.assert_close(output(plain), before, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output(tower), before, atol=0, rtol=0)
    assert [key for key, _ in tower.named_parameters()] == names
    torch.manual_seed(0)
    untouched = TOWERS[name]()
    assert plain.state_dict().keys() == untouched.state_dict().keys()
    assert (output(untouched.eval()) - before).abs().max() > 0.05


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_merged_model_is_exported_as_a_plain_folder(name, tmp_path):
    tower = adapted(name)
    adapted_part(merged(tower)).save_pretrained(tmp_path)
    assert not [path for path in tmp_path.iterdir() if "adapter" in path.name]
    text = (tmp_path / "config.json").read_text() + " ".join(load_file(tmp_path / "model.safetensors"))
    assert "lora" not in text and "peft" not in text and "base_layer" not in text
    again = TOWERS[name]()
    again.model = AutoModel.from_pretrained(tmp_path)
    torch.testing.assert_close(output(again.eval()), output(tower), atol=1e-5, rtol=1e-5)


def test_a_tower_without_adapters_merges_to_an_equal_copy_and_has_nothing_to_save(tmp_path):
    tower = TOWERS["bert"]().eval()
    copy = merged(tower)
    assert copy is not tower
    torch.testing.assert_close(output(copy), output(tower), atol=0, rtol=0)
    with pytest.raises(UsageError, match="no adapters to save"):
        save_adapters(tower, tmp_path)


def test_adapters_of_a_tower_of_our_own_are_saved_under_its_own_names(tmp_path):
    save_adapters(adapted("cnn"), tmp_path)
    torch.manual_seed(0)
    plain = PeftModel.from_pretrained(TOWERS["cnn"](), tmp_path).eval()
    torch.testing.assert_close(output(plain), output(adapted("cnn")), atol=1e-5, rtol=1e-5)


def test_alpha_over_rank_scales_the_adapter():
    plain = TOWERS["clip_text"]
    torch.manual_seed(0)
    weight = plain().model.encoder.layers[0].self_attn.q_proj.weight
    small, large = (
        merged(adapted("clip_text", alpha)).model.encoder.layers[0].self_attn.q_proj.weight for alpha in (3, 9)
    )
    torch.testing.assert_close(large - weight, 3 * (small - weight), atol=1e-5, rtol=1e-4)
