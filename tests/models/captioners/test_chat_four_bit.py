"""QLoRA where bitsandbytes is installed: what is in 4 bits, its gradients, and an export in full precision."""

import pytest
import torch
from tiny_captioners import tiny_tokenizer
from tiny_chat_models import SIDE, batch_for, config_of

from capkit.checkpoint.exported import export, plain_config
from capkit.models.captioners.chat_vlm import ChatVLM

WIDER = {"hidden_size": 64, "intermediate_size": 128}  # blocks of 64 weights share a scale
SETTINGS = {"image_size": SIDE, "max_length": 40, "freeze": ("vision", "projector")}


def logprobs(model, batch):
    with torch.no_grad():
        return model.eval().logprobs(model.encode(batch), batch.tokens, batch.mask)


def test_adapters_train_on_weights_in_four_bits_and_are_exported_in_full_precision(tmp_path, monkeypatch):
    pytest.importorskip("bitsandbytes")
    monkeypatch.setattr("capkit.models.quantized.has_gpu", lambda: True)  # a CPU gives gradients until it has generated
    torch.manual_seed(0)
    config = config_of("llava")
    config |= {part: config[part] | WIDER for part in ("text_config", "vision_config")}
    original = ChatVLM(config=config, tokenizer=tiny_tokenizer(), **SETTINGS)
    for parameter in original.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(std=0.1)
    original.model.save_pretrained(tmp_path / "base")
    original.processor.save_pretrained(tmp_path / "base")
    settings = {"name": str(tmp_path / "base"), "lora": {"rank": 2}, "four_bit": True, **SETTINGS}
    model = ChatVLM(**settings)
    layers = [module for module in model._language.modules() if type(module).__name__ == "Linear4bit"]
    assert layers and all(layer.weight.dtype == torch.uint8 for layer in layers)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained and all("lora_" in name and "language_model" in name for name in trained)
    batch = batch_for(model)
    model.token_losses(model.encode(batch), batch.tokens, batch.mask, 0.0).sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (name not in trained)
        assert "lora_B" not in name or parameter.grad.abs().max() > 0.1
    before = logprobs(model, batch)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=1.0)
    after = logprobs(model, batch)
    node = {"_target_": "capkit.models.captioners.chat_vlm.ChatVLM", **settings}
    export(model, tmp_path / "export", node)
    assert plain_config(node)["four_bit"] is False
    found = logprobs(ChatVLM(str(tmp_path / "export"), **SETTINGS), batch)
    assert (found - after).abs().max() < 0.1 < 0.5 < (after - before).abs().max()  # products were in bfloat16
    assert (tmp_path / "export/adapters/model/adapter_model.safetensors").is_file()
