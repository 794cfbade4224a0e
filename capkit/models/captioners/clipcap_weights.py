"""Read weights that ClipCap's released code saved (rmokady/CLIP_prefix_caption; DiscriTune's code saves the same).

A state dict in a .pt file: `gpt.*` is GPT-2 with its head, `clip_project.*` the mapping network, either
`model.0` and `model.2` (the MLP's two layers) or `linear`, `prefix_const` and `transformer.layers.N` (the transformer).
"""

import re
from collections.abc import Mapping
from pickle import UnpicklingError

import torch
from torch import Tensor, nn

from capkit.errors import UsageError
from capkit.utils.text_files import existing_file

# GPT-2 of older transformers kept its causal mask as buffers.
_MASKS = re.compile(r"gpt\.transformer\.h\.\d+\.attn\.(bias|masked_bias)")
_MLP = {"model.0.": "mapper.layers.0.", "model.2.": "mapper.layers.2."}
_TRANSFORMER = {"linear.": "mapper.project.", "prefix_const": "mapper.queries"}
_LAYER = {
    "norm1.": "norm1.",
    "norm2.": "norm2.",
    "attn.project.": "self_attn.out_proj.",
    "mlp.fc1.": "linear1.",
    "mlp.fc2.": "linear2.",
}


def load_clipcap_weights(model: nn.Module, path: str) -> None:
    """Load a released checkpoint into the `mapper` and `lm` of a `ClipPrefix`.

    Deliberate difference: (1) the released attention of the transformer mapper has no biases for queries, keys and
    values; here they start at 0 and are trained with the rest.

    Raises UsageError for a file of another kind, and naming weights that are missing, unknown or of another shape.
    """
    state = _renamed(_read(path), path)
    wanted = {name: value for name, value in model.state_dict().items() if name.startswith(("mapper.", "lm."))}
    reshaped = [
        f"{name} {tuple(state[name].shape)} for {tuple(wanted[name].shape)}"
        for name in sorted(wanted.keys() & state.keys())
        if state[name].shape != wanted[name].shape
    ]
    kinds = {
        "missing": sorted(wanted.keys() - state.keys()),
        "unknown": sorted(state.keys() - wanted.keys()),
        "of another shape": reshaped,
    }
    if problems := [f"{kind}: {', '.join(names[:3])}" for kind, names in kinds.items() if names]:
        raise UsageError(
            f"expected in {path} the weights of this mapper and language model, got others ({'; '.join(problems)}); "
            "set mapper, prefix_length, mapper_layers, mapper_tokens and image_encoder to those it was trained with"
        )
    model.load_state_dict(state, strict=False)


def _read(path: str) -> Mapping[str, Tensor]:
    file = existing_file(path, "model.clipcap_weights")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, UnpicklingError, EOFError, ValueError) as error:
        raise UsageError(
            f"model.clipcap_weights: expected a file of torch.save, got {path}, which cannot be read "
            f"({str(error).splitlines()[0]}); give a .pt file of ClipCap"
        ) from error
    if not isinstance(state, Mapping) or not any(str(name).startswith("clip_project.") for name in state):
        raise UsageError(
            f"model.clipcap_weights: expected a state dict with clip_project.* and gpt.*, got {path} without them; "
            "give a .pt file of ClipCap, such as coco_weights.pt"
        )
    return state


def _renamed(state: Mapping[str, Tensor], path: str) -> dict[str, Tensor]:
    """The tensors under this model's names. Queries, keys and values of a layer become one matrix, in that order."""
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.startswith("gpt."):
            if not _MASKS.fullmatch(name):
                found[f"lm.{name.removeprefix('gpt.')}"] = value
        elif layer := re.fullmatch(r"clip_project\.transformer\.layers\.(\d+)\.(.+)", name):
            found |= _of_layer(state, f"mapper.layers.layers.{layer[1]}.", name, layer[2])
        else:
            rest = name.removeprefix("clip_project.")
            new = _with_start(rest, _MLP | _TRANSFORMER)
            if new is None:
                raise UsageError(f"model.clipcap_weights: {path} has {name!r}, which ClipCap's models have not")
            found[new] = value
    return found


def _of_layer(state: Mapping[str, Tensor], prefix: str, name: str, rest: str) -> dict[str, Tensor]:
    if rest == "attn.to_queries.weight":
        joined = torch.cat([state[name], state[name.replace("to_queries", "to_keys_values")]])
        bias = torch.zeros(len(joined), dtype=joined.dtype)
        return {f"{prefix}self_attn.in_proj_weight": joined, f"{prefix}self_attn.in_proj_bias": bias}
    new = _with_start(rest, _LAYER)
    return {f"{prefix}{rest if new is None else new}": state[name]} if rest != "attn.to_keys_values.weight" else {}


def _with_start(name: str, starts: Mapping[str, str]) -> str | None:
    return next((new + name.removeprefix(old) for old, new in starts.items() if name.startswith(old)), None)
