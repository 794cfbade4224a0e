"""Exported models: plain folders that transformers reads where it knows the architecture, and capkit reads always.

    about.json            class, the config that builds it, where each part is, how images are read; written last
    config.yaml           the config of the run: data, transform, metrics, decoding
    rest.safetensors      weights that are in no part's folder (projections.safetensors in a dual encoder)
    PART/ or the folder   config.json, model.safetensors, tokenizer and preprocessor_config.json, for from_pretrained

`export` writes such a folder; `export_reader.read_export` reads it like a checkpoint, so that every `ckpt=` accepts it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import CLIPImageProcessor, GenerationConfig, VisionTextDualEncoderModel, ViTImageProcessor

from capkit.checkpoint.export_parts import FORMAT, Part, parts_of
from capkit.checkpoint.files import ABOUT, save_tensors
from capkit.checkpoint.loading import read_checkpoint, stored
from capkit.errors import UsageError
from capkit.models.captioners.chat_vlm import ChatVLM
from capkit.models.captioners.coca import START
from capkit.models.captioners.coca_network import CoCaNetwork
from capkit.models.captioners.hf_captioner import HFCaptioner
from capkit.models.dual_encoders.hf_two_tower import HFTwoTower
from capkit.models.dual_encoders.trainable import TrainableDualEncoder
from capkit.models.quantized import in_full_precision, is_quantized
from capkit.models.raters.blip_rater import BlipRater
from capkit.models.tuning.lora import merged, save_adapters
from capkit.text.tokenizers import tokenizer_from_json, tokenizer_to_json
from capkit.upstream.peft import BaseTunerLayer
from capkit.utils.files import apply_umask, write_atomically, write_json

REST, PROJECTIONS = "rest.safetensors", "projections.safetensors"
BICUBIC = 3  # Pillow's number
_HIGHEST_ID_AT_EOS_2 = ("clip_text_model", "clipseg_text_model")


def export(
    model: Any,
    out: Path,
    config: Mapping[str, Any],
    run: Mapping[str, Any] | None = None,
    step: int = 0,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a model into a new folder.

    Args:
        config: the config that the model was built from.
        run: the config of its run, if known.
        step: the checkpoint's step.
        dtype: of the weights on disk; None: as they are.

    Adapters are merged into the weights, and also saved separately in adapters/, as they are. Files get the mode of the
    umask. Raises UsageError, and writes nothing, for weights beyond the largest number of `dtype`.
    """
    if dtype is not None:
        _check_range(model, dtype)
    for name, adapted in _adapted(model).items():
        save_adapters(adapted, out / "adapters" / name)
    plain: Any = merged(in_full_precision(model) if is_quantized(model) else model)
    if isinstance(plain, HFTwoTower):
        plain.__dict__["_network"] = merged(model.plain_network()).to(dtype)
    plain = plain.to(dtype)
    if isinstance(plain, HFCaptioner):
        _start_as_trained(plain.model, model.tokenizer)
    elif isinstance(plain, ChatVLM):
        plain.model.generation_config = _plain_generation(model)
    transform = _transform_of(config, run or {})
    out.mkdir(parents=True, exist_ok=True)
    parts = parts_of(plain)
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is not None and isinstance(model, TrainableDualEncoder):
        for part in parts:
            text = None if part.folder else _text_model(part.network)
            if text is not None and _reads_highest_id(text, tokenizer):
                tokenizer = _with_eos_last(tokenizer, part.network, text)
        tokenizer = _with_bos_and_eos(tokenizer)
    for part in parts:
        _save(part.network, tokenizer, model, out / part.folder, transform)
    inner = {name: child for name, child in model.named_children() if isinstance(child, TrainableDualEncoder)}
    for name, encoder in inner.items():
        export(encoder, out / name, config.get(name) or {}, run, step, dtype)
    names = [name for part in parts for name in part.names] + list(inner)
    rest = {
        name: value
        for name, value in plain.state_dict().items()
        if not name.startswith(tuple(f"{prefix}." for prefix in names))
    }
    file = PROJECTIONS if isinstance(model, TrainableDualEncoder) else REST
    save_tensors(rest, out / file)
    tokenizer_key = getattr(model, "tokenizer_key", "tokenizer")
    if tokenizer is None:
        tokenizer_key = None
    else:
        tokenizer.save_pretrained(out)
    _save_processor(model, out, transform)
    if run is not None:
        text = yaml.safe_dump(json.loads(json.dumps(run)), sort_keys=False, allow_unicode=True)
        write_atomically(out / "config.yaml", text)
    node = plain_config(config)
    if isinstance(plain, BlipRater):
        node |= plain.exported_arguments()
    sources = {key: part.folder for part in parts for key in _from_folder(node, part)}
    for name in inner:
        node[name] = {"_target_": "capkit.checkpoint.loading.load_dual_encoder", "ckpt": None}
        sources[f"{name}.ckpt"] = name
    reads_pictures = getattr(model, "transform", None) or getattr(model, "image_processor", None)
    if isinstance(model, TrainableDualEncoder) and transform is not None and reads_pictures is None:
        node["transform"] = {"_target_": "capkit.data.transforms.ImageTransform", **transform}
    about = {
        "format": FORMAT,
        "class": type(model).__name__,
        "step": step,
        "config": node,
        "sources": sources,
        "folders": {name: part.folder for part in parts for name in part.names} | {name: name for name in inner},
        "rest": file,
        "tokenizer_key": tokenizer_key,
        "pictures": transform,
        "prompt": getattr(model, "prompt", ""),
    }
    if isinstance(model, TrainableDualEncoder):
        about |= {"embed_dim": model.embed_dim, "logit_scale": float(model.logit_scale)}
    apply_umask(out)
    write_json(out / ABOUT, about)


def _check_range(model: nn.Module, dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    for name, value in model.state_dict().items():
        if value.is_floating_point() and value.numel() and (found := float(value.abs().max())) > largest:
            raise UsageError(
                f"dtype={str(dtype).removeprefix('torch.')}: expected weights of at most {largest:g}, got {found:g} in "
                f"{name}; take dtype=bfloat16"
            )


def plain_config(node: Mapping[str, Any]) -> dict[str, Any]:
    """The config that builds the model without adapters and without the sources of its original weights."""
    target = str(node.get("_target_", ""))
    if target.startswith("capkit.checkpoint.loading.load_"):
        inner = plain_config(stored(read_checkpoint(Path(node["ckpt"])), "config.model", dict))
        return {**inner, "grammar_head": True} if node.get("grammar_head") else inner
    plain: dict[str, Any] = {}
    for name, value in node.items():
        is_lora = name.startswith("tune_") and isinstance(value, Mapping) and value.get("mode") == "lora"
        if is_lora or name in ("lora", "weights"):
            plain[name] = None
        elif name == "four_bit":
            plain[name] = False
        else:
            plain[name] = plain_config(value) if isinstance(value, Mapping) else value
    return plain


def _from_folder(node: dict[str, Any], part: Part) -> list[str]:
    """Set the weight sources in a model's config to this part's folder; returns their keys.

    A network that was built from a config is built from it again. The towers of a VisionTextDualEncoderModel have no
    folder of their own: they are built from their configs. A captioner joined of two named networks is one network now.
    """
    if isinstance(part.network, VisionTextDualEncoderModel):
        for tower, network in (("image_tower", part.network.vision_model), ("text_tower", part.network.text_model)):
            node[tower] |= {"name": None, "config": json.loads(network.config.to_json_string(use_diff=True))}
        return []
    keys = []
    for name in part.names:
        owner, _, last = name.rpartition(".")
        if last == "lm":
            is_config = isinstance(node.get("lm"), Mapping) and "_target_" not in node["lm"]
            keys += [] if is_config else ["lm"]
        elif not part.folder:
            if isinstance(node.get("encoder"), str) or isinstance(node.get("decoder"), str):
                node |= {"name": "", "encoder": None, "decoder": None}
            keys = ["name"] if node.get("name") is not None else []
        elif owner and (node.get(owner) or {}).get("name") is not None:
            keys.append(f"{owner}.name")
    return keys


def _transform_of(config: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any] | None:
    """How images are read, as plain data: by the model's own transform, else by that of the run's data."""
    data = run.get("data")
    node = config.get("transform") or (data.get("transform") if isinstance(data, Mapping) else None)
    if not isinstance(node, Mapping) or "size" not in node:
        return None
    defaults = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "resize": "squash"}
    stated = {name: value for name, value in node.items() if name in ("size", "mean", "std", "resize")}
    crop_from = node.get("crop_from")
    return {**defaults, **stated, **({} if crop_from is None else {"crop_from": crop_from})}


def image_processor(transform: Mapping[str, Any]) -> Any:
    """The transformers image processor equivalent to a transform; None if none is (padding with white)."""
    size, stated = transform["size"], {"image_mean": transform["mean"], "image_std": transform["std"]}
    stated |= {"resample": BICUBIC, "do_rescale": True, "do_normalize": True}
    square = {"height": size, "width": size}
    crop_from: int | None = transform.get("crop_from")
    if transform["resize"] == "squash":
        if crop_from is None:
            return ViTImageProcessor(size=square, **stated)
        whole = {"height": crop_from, "width": crop_from}
        return CLIPImageProcessor(size=whole, crop_size=square, do_center_crop=True, **stated)
    if transform["resize"] == "crop":
        shortest = {"shortest_edge": crop_from or size}
        return CLIPImageProcessor(size=shortest, crop_size=square, do_center_crop=True, **stated)
    return None


def _adapted(model: nn.Module) -> dict[str, nn.Module]:
    """The parts that have adapters, by folder name; the sides of a dual encoder."""
    if isinstance(model, TrainableDualEncoder):
        named = {side: model.side(side)[0] for side in ("image", "text")}
        return {name: part for name, part in named.items() if _has_adapters(part)}
    inner = {name: part for name, part in model.named_children() if not isinstance(part, TrainableDualEncoder)}
    return {name: part for name, part in inner.items() if _has_adapters(part)}


def _has_adapters(part: nn.Module) -> bool:
    return any(isinstance(module, BaseTunerLayer) for module in part.modules())


def _start_as_trained(network: Any, tokenizer: Any) -> None:
    """Set the special tokens of `network.generate` that its config leaves open."""
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    ids |= {"pad_token_id": tokenizer.pad_token_id, "decoder_start_token_id": tokenizer.bos_token_id}
    for name, value in ids.items():
        for config in (network.config, network.generation_config):
            if getattr(config, name, None) is None:
                setattr(config, name, value)


def _plain_generation(model: Any) -> GenerationConfig:
    """Greedy, up to an end: published models bring sampling and penalties of repeated words, which capkit has not."""
    tokenizer, ends = model.tokenizer, [model.tokenizer.eos_token_id, *model.other_ends]
    return GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=ends if model.other_ends else ends[0],
        pad_token_id=tokenizer.pad_token_id,
    )


def _text_model(network: Any) -> Any:
    """The text model of a transformers dual encoder, or `network` if it is one; None for other networks."""
    found = getattr(network, "text_model", network)
    return found if found.config.model_type in _HIGHEST_ID_AT_EOS_2 else None


def _reads_highest_id(text: Any, tokenizer: Any) -> bool:
    """Whether transformers would pool a text elsewhere than at EOS, where this model was trained to pool.

    It takes an EOS id of 2 for a sign of OpenAI's original files, in which EOS has the highest id, and pools there.
    """
    return text.config.eos_token_id == 2 == tokenizer.eos_token_id != len(tokenizer) - 1


def _with_eos_last(tokenizer: Any, network: Any, text: Any) -> Any:
    """Swap the ids of EOS and the last token, in the tokenizer and (in place) in the embeddings.

    Raises UsageError for a tokenizer without an explicit vocabulary.
    """
    old, last = tokenizer.eos_token_id, len(tokenizer) - 1
    data = tokenizer_to_json(tokenizer)
    backend = json.loads(data["backend"])
    vocabulary = backend["model"].get("vocab")
    if not isinstance(vocabulary, dict) or (backend["post_processor"] or {}).get("special_tokens"):
        raise UsageError(
            f"expected an EOS id other than 2 to export {text.config.model_type}, got 2: transformers would pool texts "
            "at their highest id, not at EOS as in training; train with a tokenizer whose EOS has another id"
        )
    moved = {old: last, last: old}
    backend["model"]["vocab"] = {token: moved.get(number, number) for token, number in vocabulary.items()}
    for token in backend["added_tokens"]:
        token["id"] = moved.get(token["id"], token["id"])
    backend["added_tokens"].sort(key=lambda token: token["id"])
    embeddings = text.get_input_embeddings().weight.data
    embeddings[[old, last]] = embeddings[[last, old]]
    for config in (text.config, network.config.get_text_config()):  # the second may be a copy
        config.eos_token_id = last
    return tokenizer_from_json({**data, "backend": json.dumps(backend)})


def _with_bos_and_eos(tokenizer: Any) -> Any:
    """A tokenizer that adds BOS and EOS itself, since dual encoders were trained on such texts (`Subwords`)."""
    if tokenizer.num_special_tokens_to_add() > 0:
        return tokenizer
    plain = tokenizer_from_json(tokenizer_to_json(tokenizer))
    ends = [(token, plain.convert_tokens_to_ids(token)) for token in (plain.bos_token, plain.eos_token)]
    around = f"{plain.bos_token} $A {plain.eos_token}"
    plain.backend_tokenizer.post_processor = TemplateProcessing(around, f"{around} $B:1", list(dict(ends).items()))
    return plain


def _save(network: Any, tokenizer: Any, model: Any, folder: Path, transform: Mapping[str, Any] | None) -> None:
    if isinstance(network, CoCaNetwork):
        network.save_pretrained(folder, transform, has_clips_words=tokenizer.bos_token == START)
    else:
        network.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    _save_processor(model, folder, transform)


def _save_processor(model: Any, folder: Path, transform: Mapping[str, Any] | None) -> None:
    processor: Any = getattr(model, "processor", None) or getattr(model, "image_processor", None)
    if processor is None and transform is not None:
        processor = image_processor(transform)
    if processor is not None:
        processor.save_pretrained(folder)
