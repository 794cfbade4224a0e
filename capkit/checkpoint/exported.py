"""Exported models: plain folders that transformers reads where it knows the architecture, and capkit reads always.

    about.json            class, the config that builds it, where each part is, how images are read; written last
    config.yaml           the config of the run: data, transform, metrics, decoding
    rest.safetensors      weights that are in no part's folder (projections.safetensors in a dual encoder)
    PART/ or the folder   config.json, model.safetensors, tokenizer and preprocessor_config.json, for from_pretrained

`export` writes such a folder; `read_export` reads it like a checkpoint, so that every `ckpt=` accepts it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from peft.tuners.tuners_utils import BaseTunerLayer
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import (
    AutoTokenizer,
    CLIPImageProcessor,
    PreTrainedModel,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
    ViTImageProcessor,
)

from capkit.checkpoint.files import ABOUT, read_tensors, save_tensors
from capkit.errors import UsageError
from capkit.models.captioners.hf_captioner import HFCaptioner
from capkit.models.dual_encoders.hf_two_tower import HFTwoTower
from capkit.models.dual_encoders.text_towers.hf import HFTextTower
from capkit.models.dual_encoders.trainable import TrainableDualEncoder
from capkit.models.dual_encoders.two_tower import TwoTower
from capkit.models.encoders.image import HFImageEncoder
from capkit.models.tuning.lora import adapted_part, merged, save_adapters
from capkit.run.folder import RunFolder, read_object
from capkit.text.tokenizers import tokenizer_from_json, tokenizer_to_json
from capkit.utils.files import apply_umask, write_atomically
from capkit.utils.renamed import renamed_targets
from capkit.utils.text_files import expect, member

FORMAT = 1
REST, PROJECTIONS = "rest.safetensors", "projections.safetensors"
BICUBIC = 3  # Pillow's number
_HIGHEST_ID_AT_EOS_2 = ("clip_text_model", "clipseg_text_model")


@dataclass(frozen=True)
class Part:
    """A transformers network within a model: its folder ("" is the export itself) and the prefixes of its weights."""

    folder: str
    network: Any
    names: tuple[str, ...]


def parts_of(model: Any) -> list[Part]:
    """The transformers networks that a model consists of; the model as a whole if transformers has its architecture."""
    if isinstance(model, HFTwoTower):
        return [Part("", model.plain_network(), ("image_tower", "text_tower", "image_projection", "text_projection"))]
    if isinstance(model, HFCaptioner):
        return [Part("", model.model, ("model",))]
    if (network := as_vision_text_model(model)) is not None:
        return [Part("", network, ("image_tower.model", "text_tower.model", "image_projection", "text_projection"))]
    parts: list[Part] = []
    for name, child in model.named_children():
        found = None if isinstance(child, TrainableDualEncoder) else adapted_part(child)
        if isinstance(found, PreTrainedModel):
            inner = next(inside for inside, module in child.named_modules() if module is found)
            parts.append(Part(name, found, (f"{name}.{inner}".rstrip("."),)))
    return parts


def as_vision_text_model(model: Any) -> VisionTextDualEncoderModel | None:
    """A two-tower as transformers' VisionTextDualEncoderModel sharing its weights; None if it embeds differently.

    That class takes both networks' pooled outputs and projects them linearly without bias: so does a TwoTower of an
    HFImageEncoder with output=pooled and CLIP's text model pooled at EOS.
    """
    fits = (
        isinstance(model, TwoTower)
        and isinstance(model.image_tower, HFImageEncoder)
        and model.image_tower.output == "pooled"
        and model.pool is None
        and isinstance(model.text_tower, HFTextTower)
        and model.text_tower.pooling == "eos"
        and model.text_tower.model.config.model_type == "clip_text_model"
        and all(isinstance(p, nn.Linear) and p.bias is None for p in (model.image_projection, model.text_projection))
        and model.scale.bias is None
    )
    if not fits:
        return None
    vision, text = model.image_tower.model, model.text_tower.model
    config = VisionTextDualEncoderConfig.from_vision_text_configs(
        vision.config, text.config, projection_dim=model.embed_dim
    )
    network: Any = VisionTextDualEncoderModel(config)
    network.vision_model, network.text_model = vision, text
    network.visual_projection, network.text_projection = model.image_projection, model.text_projection
    with torch.no_grad():
        network.logit_scale.fill_(model.logit_scale.log())
    return network


# -- writing


def export(
    model: Any, out: Path, config: Mapping[str, Any], run: Mapping[str, Any] | None = None, step: int = 0
) -> None:
    """Write a model into a new folder.

    Args:
        config: the config that the model was built from.
        run: the config of its run, if known.
        step: the checkpoint's step.

    Adapters are merged into the weights, and also saved separately in adapters/. Files get the mode of the umask.
    """
    for name, adapted in _adapted(model).items():
        save_adapters(adapted, out / "adapters" / name)
    plain: Any = merged(model)
    if isinstance(plain, HFTwoTower):
        plain.__dict__["_network"] = merged(model.plain_network())
    if isinstance(plain, HFCaptioner):
        _start_as_trained(plain.model, model.tokenizer)
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
        export(encoder, out / name, config.get(name) or {}, run, step)
    names = [name for part in parts for name in part.names] + list(inner)
    rest = {
        name: value
        for name, value in plain.state_dict().items()
        if not name.startswith(tuple(f"{prefix}." for prefix in names))
    }
    file = PROJECTIONS if isinstance(model, TrainableDualEncoder) else REST
    save_tensors(rest, out / file)
    tokenizer_key = getattr(type(model), "tokenizer_key", "tokenizer")
    if tokenizer is None:
        tokenizer_key = None
    else:
        tokenizer.save_pretrained(out)
    _save_processor(model, out, transform)
    if run is not None:
        text = yaml.safe_dump(json.loads(json.dumps(run)), sort_keys=False, allow_unicode=True)
        write_atomically(out / "config.yaml", text)
    node = plain_config(config)
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
    write_atomically(out / ABOUT, json.dumps(about, indent=1) + "\n")


def plain_config(node: Mapping[str, Any]) -> dict[str, Any]:
    """The config that builds the model without adapters and without the sources of its original weights."""
    target = str(node.get("_target_", ""))
    if target.startswith("capkit.checkpoint.loading.load_"):
        from capkit.checkpoint.loading import read_checkpoint, stored  # not at the top: it imports this module

        inner = plain_config(stored(read_checkpoint(Path(node["ckpt"])), "config.model", dict))
        return {**inner, "grammar_head": True} if node.get("grammar_head") else inner
    plain: dict[str, Any] = {}
    for name, value in node.items():
        is_lora = name.startswith("tune_") and isinstance(value, Mapping) and value.get("mode") == "lora"
        if is_lora or name in ("lora", "weights"):
            plain[name] = None
        else:
            plain[name] = plain_config(value) if isinstance(value, Mapping) else value
    return plain


def _from_folder(node: dict[str, Any], part: Part) -> list[str]:
    """Set the weight sources in a model's config to this part's folder; returns their keys.

    A network that was built from a config is built from it again. The towers of a VisionTextDualEncoderModel have no
    folder of their own: they are built from their configs.
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
    return {**defaults, **{name: value for name, value in node.items() if name in ("size", "mean", "std", "resize")}}


def image_processor(transform: Mapping[str, Any]) -> Any:
    """The transformers image processor equivalent to a transform; None if none is (padding with white)."""
    size, stated = transform["size"], {"image_mean": transform["mean"], "image_std": transform["std"]}
    stated |= {"resample": BICUBIC, "do_rescale": True, "do_normalize": True}
    square = {"height": size, "width": size}
    if transform["resize"] == "squash":
        return ViTImageProcessor(size=square, **stated)
    if transform["resize"] == "crop":
        return CLIPImageProcessor(size={"shortest_edge": size}, crop_size=square, do_center_crop=True, **stated)
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
    network.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    _save_processor(model, folder, transform)


def _save_processor(model: Any, folder: Path, transform: Mapping[str, Any] | None) -> None:
    processor: Any = getattr(model, "image_processor", None)
    if processor is None and transform is not None:
        processor = image_processor(transform)
    if processor is not None:
        processor.save_pretrained(folder)


# -- reading


def read_export(path: Path) -> dict[str, Any]:
    """Read an exported folder like a checkpoint (capkit/checkpoint/loading.py); its entry `folders` names the folders
    that hold weights.

    Raises UsageError if the folder is incomplete.
    """
    where = str(path / ABOUT)
    about = read_object(path / ABOUT, "export the checkpoint again")
    if member(about, "format", "a whole number", where) > FORMAT:
        raise UsageError(f"{where}: format {about['format']} is of a newer capkit; this one reads {FORMAT}; update it")
    folders = member(about, "folders", "an object", where)
    node = renamed_targets(member(about, "config", "an object", where))
    for key, folder in member(about, "sources", "an object", where).items():
        _set(node, key, str(path / expect(folder, "text", where, key)))
    if (rest := path / member(about, "rest", "text", where)).parent != path or not rest.is_file():
        raise UsageError(f"{path} is incomplete: it has no {rest.name}; export the checkpoint again")
    try:
        state = {f"model.{name}": value for name, value in read_tensors(rest).items()}
        tokenizer = None if about["tokenizer_key"] is None else tokenizer_to_json(AutoTokenizer.from_pretrained(path))
    except Exception as error:  # safetensors and tokenizers raise almost anything for a damaged file
        raise UsageError(f"{path} cannot be read as an export ({type(error).__name__}: {error})") from error
    run = RunFolder(path).config() or {}
    return {
        "state_dict": state,
        "global_step": member(about, "step", "a whole number", where),
        "folders": {name: str(path / folder) for name, folder in folders.items()},
        "capkit": {
            "config": {"seed": 0, **run, "model": node},
            "tokenizer_key": about["tokenizer_key"],
            "tokenizer": tokenizer,
        },
    }


def _set(node: dict[str, Any], key: str, value: str) -> None:
    """Set a value by its dotted key. Raises UsageError if the config has no such place."""
    *before, last = key.split(".")
    for name in before:
        node = member(node, name, "an object", f"{ABOUT}'s config")
    node[last] = value


def load_exported(model: Any, checkpoint: Mapping[str, Any]) -> None:
    """Load the weights of an exported folder. Raises UsageError if they do not fit the model."""
    folders = checkpoint["folders"]
    for part in parts_of(model):
        folder = folders.get(part.names[0])
        if folder is None:
            raise UsageError(f"the export is broken: it has no folder for {part.names[0]}; export the checkpoint again")
        part.network.load_state_dict(type(part.network).from_pretrained(folder).state_dict())
    rest = {name.removeprefix("model."): value for name, value in checkpoint["state_dict"].items()}
    apart = tuple(f"{name}." for name in folders)
    expected = {name: value.shape for name, value in model.state_dict().items() if not name.startswith(apart)}
    if expected != {name: value.shape for name, value in rest.items()}:
        raise UsageError("the export is broken: its weights do not fit its config; export the checkpoint again")
    model.load_state_dict(rest, strict=False)
