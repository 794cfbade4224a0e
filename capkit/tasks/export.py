"""task=export: any checkpoint as plain folders that transformers and peft load; what is capkit's own as safetensors."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from rich.console import Console
from torch import nn
from transformers import PreTrainedModel

from capkit.checkpoint import model_from_checkpoint, read_checkpoint, stored
from capkit.checkpoint_files import save_tensors
from capkit.errors import UsageError
from capkit.models.adapters import adapted_part, merged, save_adapters
from capkit.models.hf_captioner import HFCaptioner
from capkit.models.hf_two_tower import HFTwoTower
from capkit.models.pair_model import PairModel
from capkit.tasks.quiet import quiet_libraries

ABOUT, REST, PROJECTIONS = "about.json", "rest.safetensors", "projections.safetensors"


def run(cfg: DictConfig) -> dict[str, float]:
    """Writes `cfg.out` from `cfg.ckpt`; returns how many files there are.

    A model that is transformers' own as a whole becomes one folder, with its tokenizer. Of any other, each part that is
    transformers' becomes a folder and the rest of the weights a safetensors file, beside the config that says what they
    are. Adapters are merged into the weights, and also saved alone in adapters/. Raises UsageError where the folder is
    not empty.
    """
    quiet_libraries()
    out = Path(cfg.out)
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"out={out} is not empty; give a new folder")
    checkpoint = read_checkpoint(Path(cfg.ckpt))
    model: Any = model_from_checkpoint(checkpoint)
    export(model, out, stored(checkpoint, "config.model", dict))
    files = sorted(path for path in out.rglob("*") if path.is_file())
    told = [str(path) for path in files]
    if (out / ABOUT).exists():
        told.append(f"{type(model).__name__} is capkit's own: {out / ABOUT} says what is where and how to build it")
    Console().print("\n".join(told), highlight=False, soft_wrap=True, markup=False)
    return {"files": float(len(files))}


def export(model: Any, out: Path, config: Mapping[str, Any]) -> None:
    """Writes a model into a new folder; `config` is what it was built from."""
    for name, part in _adapted(model).items():
        save_adapters(part, out / "adapters" / name)
    if isinstance(model, HFTwoTower):
        _save(merged(model.plain_network()), model, out)
    elif isinstance(model, HFCaptioner):
        plain: Any = merged(model.model)
        _start_as_trained(plain, model.tokenizer)
        _save(plain, model, out)
    else:
        _save_parts(model, out, config)


def _adapted(model: nn.Module) -> dict[str, nn.Module]:
    """The parts that have adapters, by the name of their folder: of dual encoders the sides."""
    if isinstance(model, PairModel):
        named = {side: model.side(side)[0] for side in ("image", "text")}
        return {name: part for name, part in named.items() if _has_adapters(part)}
    return {name: part for name, part in model.named_children() if _has_adapters(part)}


def _has_adapters(part: nn.Module) -> bool:
    return any(isinstance(module, BaseTunerLayer) for module in part.modules())


def _start_as_trained(network: Any, tokenizer: Any) -> None:
    """What `network.generate` begins and ends with, where its config does not say."""
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    ids |= {"pad_token_id": tokenizer.pad_token_id, "decoder_start_token_id": tokenizer.bos_token_id}
    for name, value in ids.items():
        for config in (network.config, network.generation_config):
            if getattr(config, name, None) is None:
                setattr(config, name, value)


def _save(network: Any, model: Any, folder: Path) -> None:
    network.save_pretrained(folder)
    tokenizer: Any = model.tokenizer
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    processor: Any = getattr(model, "image_processor", None)
    if processor is not None:
        processor.save_pretrained(folder)


def _save_parts(model: Any, out: Path, config: Mapping[str, Any]) -> None:
    """Parts in folders of their names, a dual encoder within the model in its own way; the rest in one file."""
    folders = {}
    for name, child in model.named_children():
        if isinstance(child, PairModel):
            export(child, out / name, config.get(name, {}))
            folders[name] = name
            continue
        part = adapted_part(child)
        if isinstance(part, PreTrainedModel):
            _save(merged(part), model, out / name)
            inner = next(inside for inside, module in child.named_modules() if module is part)
            folders[f"{name}.{inner}".rstrip(".")] = name
    prefixes = tuple(f"{prefix}." for prefix in folders)
    rest = {name: value for name, value in merged(model).state_dict().items() if not name.startswith(prefixes)}
    out.mkdir(parents=True, exist_ok=True)
    file = PROJECTIONS if isinstance(model, PairModel) else REST
    save_tensors(rest, out / file)
    if not isinstance(model, PairModel) and getattr(model, "tokenizer", None) is not None:
        model.tokenizer.save_pretrained(out)
    about: dict[str, Any] = {"class": type(model).__name__, "rest": file, "folders": folders, "config": dict(config)}
    if isinstance(model, PairModel):
        about |= {"embed_dim": model.embed_dim, "logit_scale": float(model.logit_scale)}
    about["prompt"] = getattr(model, "prompt", "")
    (out / ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
