"""Load configs, pretrained weights and language models from transformers, and split off their heads."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import CONFIG_MAPPING, AutoConfig, AutoImageProcessor, AutoModelForCausalLM

from capkit.errors import UsageError
from capkit.models.given_config import check_heads, check_keys, network_of, telling_refusals
from capkit.text.tokenizers import cache_without_hub
from capkit.utils.renamed import moved_names

__getattr__ = moved_names(__name__)  # freeze_without_gradient was freeze_unread

# Config fields of models that transform their logits after the head. Captioners apply only the head and would differ.
AFTER_HEAD = ("final_logit_softcapping", "logit_scale", "logits_scaling")


def load_pretrained(factory: Any, name: str, role: str, config: Any = None, quantization: Any = None) -> Any:
    """`factory.from_pretrained(name)` in float32 (the trainer sets the precision); failures become UsageError."""
    settings: dict[str, Any] = {}
    if factory not in (AutoConfig, AutoImageProcessor):
        settings["dtype"] = torch.float32
    if config is not None:
        settings["config"] = config
    if quantization is not None:
        settings["quantization_config"] = quantization
    try:
        with cache_without_hub():
            return factory.from_pretrained(name, **settings)
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: weights of other shapes
        raise UsageError(
            f"the {role} {name!r} could not be loaded: {str(error).splitlines()[0]}; "
            "give a folder, a hub name (with network), or a config for random weights"
        ) from error


def build_config(config: Mapping[str, Any], role: str) -> Any:
    """Build a transformers config from plain data with a `model_type`."""
    settings = copy.deepcopy(dict(config))  # transformers 5.17 modifies nested dicts
    model_type = settings.pop("model_type", None)
    if model_type is None:
        raise UsageError(f"the {role}'s config needs a model_type, such as vit or gpt2; got keys {sorted(settings)}")
    if model_type not in CONFIG_MAPPING:
        raise UsageError(f"the {role}'s model_type {model_type!r} is unknown to transformers")
    with telling_refusals(role, config):
        built = AutoConfig.for_model(model_type, **settings)
    check_keys(built, config, role)
    check_heads(built, role)
    return built


def language_model(
    lm: str | Mapping[str, Any], pretrained: bool, tokenizer: Any, factory: Any = AutoModelForCausalLM
) -> Any:
    """A language model by hub name or folder, or from a config dict with the tokenizer's vocabulary size.

    `factory`: transformers' class of its kind, causal or sequence to sequence.
    """
    if not isinstance(lm, str):
        special = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
        config = build_config({"vocab_size": len(tokenizer), **special, **lm}, "language model")
        model = network_of(factory.from_config, config, "language model")
    elif pretrained:
        model = load_pretrained(factory, lm, "language model")
    else:
        model = factory.from_config(load_pretrained(AutoConfig, lm, "language model"))
    embeddings = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > embeddings:
        raise UsageError(
            f"the tokenizer has {len(tokenizer)} tokens but the language model embeds only {embeddings}; "
            "use the language model's own tokenizer (tokenizer=null)"
        )
    return model


def split_head(model: Any) -> tuple[nn.Module, nn.Module]:
    """Split a language model into its body (to hidden states) and its head (to logits)."""
    heads = [child for child in model.children() if child is not model.base_model]
    changed = [name for name in AFTER_HEAD if getattr(model.config, name, None) not in (None, 1.0)]
    if model.base_model is model or len(heads) != 1 or changed:
        reason = f"its config sets {changed[0]}" if changed else "it is not a body with one head"
        raise UsageError(
            f"{type(model).__name__} cannot be used as a captioner: {reason}; use a plain causal language "
            "model such as GPT-2, Llama, OPT, BERT or RoBERTa"
        )
    return model.base_model, heads[0]


def freeze_unused(model: nn.Module, config: Any, output: Callable[[Any], Tensor]) -> None:
    """Freeze a vision model's weights that `output` does not depend on (poolers); found on the meta device."""
    size = getattr(config, "image_size", None) or 224
    height, width = (size, size) if isinstance(size, int) else tuple(size)
    fix = f"give an image transformer whose patches and windows fit pictures of {height} x {width} pixels"
    parameters = {name: p.detach().to("meta").requires_grad_() for name, p in model.named_parameters()}
    buffers = {name: b.to("meta") for name, b in model.named_buffers()}
    pixels = torch.empty((1, 3, height, width), device="meta")
    with telling_refusals("image encoder", config, fix):
        states = output(functional_call(model, parameters | buffers, kwargs={"pixel_values": pixels}))
    read = parameters_read(states)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(id(parameters[name]) in read)


def freeze_without_gradient(model: nn.Module, output: Tensor) -> None:
    """Freeze the model's weights that `output`, computed by it with gradient, does not depend on."""
    read = parameters_read(output)
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in read)


def parameters_read(output: Tensor) -> set[int]:
    """Ids of the parameters in the output's autograd graph; others would waste optimizer state and only decay."""
    nodes, seen, found = [output.grad_fn], set(), set()
    while nodes:
        node: Any = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):  # AccumulateGrad: a leaf
            found.add(id(node.variable))
        nodes += [following for following, _ in node.next_functions]
    return found
