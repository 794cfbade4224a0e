"""task=export: writes a checkpoint as plain folders that transformers and peft load, and safetensors for the rest."""

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from rich.console import Console

from capkit.checkpoint.export_parts import parts_of
from capkit.checkpoint.exported import export, image_processor
from capkit.checkpoint.files import ABOUT
from capkit.checkpoint.loading import model_from_checkpoint, read_checkpoint, stored
from capkit.errors import UsageError
from capkit.run.folder import read_object
from capkit.utils.quiet import quiet_libraries

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def run(cfg: DictConfig) -> dict[str, float]:
    """Export `cfg.ckpt` to `cfg.out`; returns the number of files.

    If transformers has the model's whole architecture, the export is one folder, with tokenizer and image processor.
    Otherwise each part that transformers has becomes a folder; remaining weights become a safetensors file, next to the
    config that describes them. Adapters are merged into the weights, and also saved separately in adapters/. With
    `cfg.dtype` weights are rounded to it; capkit reads them back as float32. Raises UsageError if the folder is not
    empty, for another dtype, and for weights that float16 has no numbers for.
    """
    quiet_libraries()
    dtype = _dtype(cfg.get("dtype"))
    out = Path(cfg.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"out={out}: expected a new or empty folder, got one that is not empty; give a new folder")
    checkpoint = read_checkpoint(Path(cfg.ckpt))
    model: Any = model_from_checkpoint(checkpoint)
    config, step = stored(checkpoint, "config", dict), int(checkpoint.get("global_step", 0))
    export(model, out, stored(checkpoint, "config.model", dict), config, step, dtype)
    files = sorted(path for path in out.rglob("*") if path.is_file())
    told = [*map(str, files), *_how_to_load(model, out)]
    Console().print("\n".join(told), highlight=False, soft_wrap=True, markup=False)
    return {"files": float(len(files))}


def _dtype(name: str | None) -> torch.dtype | None:
    if name is not None and name not in DTYPES:
        raise UsageError(f"dtype={name}: expected {', '.join(DTYPES)} or null, got {name}; give one of them")
    return None if name is None else DTYPES[name]


def _how_to_load(model: Any, out: Path) -> list[str]:
    """Lines that say how to load each folder."""
    parts = parts_of(model)
    told = [
        f"transformers: {type(part.network).__name__}.from_pretrained({str(out / part.folder)!r})" for part in parts
    ]
    if not any(part.folder == "" for part in parts):
        told.append(f"{type(model).__name__} is capkit's own: {out / ABOUT} describes its parts and how to build it")
    pictures = read_object(out / ABOUT, "export again")["pictures"]
    if pictures is not None and getattr(model, "image_processor", None) is None and image_processor(pictures) is None:
        told.append(
            f"no image processor of transformers pads with white as this model does: see {out / ABOUT}, `pictures`"
        )
    return [*told, f"capkit: ckpt={out}"]
