"""Parts from transformers: configs, pretrained weights, language models and their heads, LoRA."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor, nn
from torch.func import functional_call
from transformers import AutoConfig, AutoModelForCausalLM

from capkit.errors import UsageError, did_you_mean
from capkit.text import hub_reachable

# What some models do to their logits after the head: captioners apply the head alone and would differ.
_AFTER_HEAD = ("final_logit_softcapping", "logit_scale", "logits_scaling")


def load_pretrained(factory: Any, name: str, role: str, config: Any = None) -> Any:
    """`factory.from_pretrained(name)` in float32 (precision is the trainer's), errors in the user's words."""
    settings: dict[str, Any] = {"local_files_only": not hub_reachable()}
    if factory is not AutoConfig:
        settings["dtype"] = torch.float32
    if config is not None:
        settings["config"] = config
    try:
        return factory.from_pretrained(name, **settings)
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: weights of other sizes
        raise UsageError(
            f"the {role} {name!r} could not be loaded: {str(error).splitlines()[0]}; "
            "give a folder, a hub name (with network), or a config for random weights"
        ) from error


def build_config(config: Mapping[str, Any], role: str) -> Any:
    """A transformers config from plain data with its `model_type`."""
    settings = copy.deepcopy(dict(config))  # transformers 5.17 takes nested dicts apart
    model_type = settings.pop("model_type", None)
    if model_type is None:
        raise UsageError(f"the {role}'s config needs a model_type, such as vit or gpt2; got keys {sorted(settings)}")
    try:
        return AutoConfig.for_model(model_type, **settings)
    except ValueError as error:
        raise UsageError(f"the {role}'s model_type {model_type!r} is unknown to transformers") from error


def language_model(lm: str | Mapping[str, Any], pretrained: bool, tokenizer: Any) -> Any:
    """A causal language model by hub name or folder, or from a config dict with the tokenizer's vocabulary size."""
    if not isinstance(lm, str):
        special = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
        config = build_config({"vocab_size": len(tokenizer), **special, **lm}, "language model")
        model = AutoModelForCausalLM.from_config(config)
    elif pretrained:
        model = load_pretrained(AutoModelForCausalLM, lm, "language model")
    else:
        model = AutoModelForCausalLM.from_config(load_pretrained(AutoConfig, lm, "language model"))
    embeddings = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > embeddings:
        raise UsageError(
            f"the tokenizer has {len(tokenizer)} tokens and the language model embeds {embeddings}; "
            "use the language model's own tokenizer (tokenizer=null)"
        )
    return model


def split_head(model: Any) -> tuple[nn.Module, nn.Module]:
    """A language model's body, which gives hidden states, and its head, which turns them into logits."""
    heads = [child for child in model.children() if child is not model.base_model]
    changed = [name for name in _AFTER_HEAD if getattr(model.config, name, None) not in (None, 1.0)]
    if model.base_model is model or len(heads) != 1 or changed:
        reason = f"its config sets {changed[0]}" if changed else "it is not a body with one head"
        raise UsageError(
            f"{type(model).__name__} cannot write captions here: {reason}; use a plain causal language model such as "
            "GPT-2, Llama, OPT, BERT or RoBERTa"
        )
    return model.base_model, heads[0]


def freeze_unused(model: nn.Module, config: Any, output: Callable[[Any], Tensor]) -> None:
    """Freezes what `output` of a vision model does not depend on (poolers, last norms), found without computing.

    DDP waits for the gradient of every trainable parameter, so an unused one would stop a run on several GPUs.
    """
    size = getattr(config, "image_size", None) or 224
    height, width = (size, size) if isinstance(size, int) else tuple(size)
    parameters = {name: p.detach().to("meta").requires_grad_() for name, p in model.named_parameters()}
    buffers = {name: b.to("meta") for name, b in model.named_buffers()}
    pixels = torch.empty((1, 3, height, width), device="meta")
    out = output(functional_call(model, parameters | buffers, kwargs={"pixel_values": pixels}))
    gradients = torch.autograd.grad(out.sum(), list(parameters.values()), allow_unused=True)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        parameter.requires_grad_(gradient is not None)


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters: `targets` are names of linear layers (None: peft's choice for the model type)."""

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0
    targets: list[str] | None = None

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> "LoRA":
        names = [spec.name for spec in fields(cls)]
        for name in settings:
            if name not in names:
                raise UsageError(f"lora takes {', '.join(names)}; got {name!r}; {did_you_mean(name, names)}")
        return cls(**settings)

    def add_to(self, model: Any) -> None:
        """Freezes the model and adds trainable adapters, which `model.disable_adapters()` switches off."""
        model.requires_grad_(False)
        targets = list(self.targets) if self.targets else None
        config = LoraConfig(r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules=targets)
        try:
            model.add_adapter(config)
        except ValueError as error:
            linear = sorted({name.rpartition(".")[2] for name, m in model.named_modules() if isinstance(m, nn.Linear)})
            raise UsageError(
                f"lora.targets={targets} match nothing in {type(model).__name__}; its linear layers are "
                f"{', '.join(linear)}"
            ) from error
