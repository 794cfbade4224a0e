"""Weights in 4 bits for QLoRA (Dettmers et al. 2023, arXiv 2305.14314), through bitsandbytes where it is installed."""

import copy
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig

from capkit.errors import UsageError
from capkit.upstream.peft import BaseTunerLayer


def four_bit_settings() -> Any:
    """NormalFloat of 4 bits, with its scales quantized too; products in bfloat16, as the paper has them.

    Raises UsageError where bitsandbytes is not installed, and on a CPU: there it packs the weights once it has
    generated, and gives no gradient afterwards, without a word (seen with 0.50.2).
    """
    if find_spec("bitsandbytes") is None:
        raise UsageError(
            "model.four_bit=true needs bitsandbytes, which is not installed; pip install 'bitsandbytes>=0.46', or set "
            "model.four_bit=false for LoRA on the weights as they are"
        )
    if not has_gpu():
        raise UsageError(
            "model.four_bit=true trains on a GPU; got a machine without one; set model.four_bit=false for LoRA on the "
            "weights as they are"
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def has_gpu() -> bool:
    return torch.cuda.is_available()


def is_quantized(model: nn.Module) -> bool:
    """Whether layers of the model hold their weights in 4 bits."""
    return any(_is_four_bit(module) for module in model.modules())


def in_full_precision(model: nn.Module) -> nn.Module:
    """Copy the model with plain float32 layers: the weights that the 4 bits stand for, and adapters, not rounded."""
    plain = copy.deepcopy(model)
    replaced: tuple[str, ...] = ()
    for name, module in list(plain.named_modules()):
        is_adapted = isinstance(module, BaseTunerLayer)
        base = module.get_base_layer() if is_adapted else module  # type: ignore[operator]
        if not _is_four_bit(base) or name.startswith(replaced):
            continue
        layer = _plain_layer(base)
        if is_adapted:
            layer.weight.data += module.get_delta_weight("default").float()  # type: ignore[operator]
        plain.set_submodule(name, layer)
        replaced += (f"{name}.",)
    for module in plain.modules():
        if getattr(module, "is_quantized", False):
            _forget_quantization(module)
    return plain


def _is_four_bit(module: Any) -> bool:
    return type(module).__name__ == "Linear4bit"


def _plain_layer(layer: Any) -> nn.Linear:
    from bitsandbytes.functional import dequantize_4bit  # optional

    plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    plain.weight.data = dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
    if layer.bias is not None:
        plain.bias.data = layer.bias.data.float()
    return plain


def _forget_quantization(model: Any) -> None:
    """Let transformers save the model as one that never was quantized."""
    for name in ("hf_quantizer", "quantization_method", "is_loaded_in_4bit"):
        if hasattr(model, name):
            delattr(model, name)
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
