"""task=export: writes a checkpoint as plain folders that transformers and peft load, with a model card."""

from itertools import islice
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from capkit.checkpoint.export_parts import parts_of
from capkit.checkpoint.exported import export, image_processor
from capkit.checkpoint.files import ABOUT, identity, is_export
from capkit.checkpoint.hub_push import check_push, push_folder
from capkit.checkpoint.loading import model_from_checkpoint, read_checkpoint, stored
from capkit.checkpoint.run_checkpoints import resolve_checkpoint
from capkit.errors import UsageError
from capkit.models.captioners.coca import CoCa
from capkit.models.captioners.coca_network import CoCaNetwork
from capkit.models.captioners.seq2seq_writer import Seq2SeqWriter
from capkit.models.captioners.text_writer import TextWriter
from capkit.models.dual_encoders.trainable import TrainableDualEncoder
from capkit.reports.model_card import Exported, model_card
from capkit.run.folder import RunFolder, read_object, run_at
from capkit.run.predictions import captions_by_key, references_by_key
from capkit.train.made_by import noted_checkpoint
from capkit.utils.console import print_on
from capkit.utils.files import write_atomically
from capkit.utils.quiet import quiet_libraries

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def run(cfg: DictConfig) -> dict[str, float]:
    """Export `cfg.ckpt` to `cfg.out`; returns the number of files.

    If transformers has the model's whole architecture, the export is one folder, with tokenizer and image processor.
    Otherwise each part that transformers has becomes a folder; remaining weights become a safetensors file, next to the
    config that describes them. Adapters are merged into the weights, and also saved separately in adapters/. With
    `cfg.dtype` weights are rounded to it; capkit reads them back as float32. Raises UsageError if the folder is not
    empty, for another dtype, and for weights that float16 has no numbers for.

    README.md is a model card. It has the numbers of the run only where they were measured on this checkpoint; of
    another one give `cfg.evaluated`, a run of `evaluate`. With `cfg.push_to` the folder is uploaded, else nothing
    leaves this machine.
    """
    quiet_libraries()
    if cfg.push_to is not None:
        check_push(cfg.push_to, private=not cfg.public)
    dtype = _dtype(cfg.dtype)
    out = Path(cfg.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"out={out}: expected a new or empty folder, got one that is not empty; give a new folder")
    checkpoint = read_checkpoint(Path(cfg.ckpt))
    model: Any = model_from_checkpoint(checkpoint)
    if not 0 <= cfg.samples <= 1000:
        raise UsageError(f"samples={cfg.samples}: expected 0 to 1000 captions for the card; give fewer")
    config, step = stored(checkpoint, "config", dict), int(checkpoint.get("global_step", 0))
    measured, why = _measured(cfg, step)
    export(model, out, stored(checkpoint, "config.model", dict), config, step, dtype)
    name = cfg.push_to or out.resolve().name
    captions = [] if measured is None else _samples(measured, cfg.samples)
    exported = Exported(
        name=name.rpartition("/")[2],
        purpose=_purpose(model),
        loading=_how_to_load(model, out, name, is_on_hub=cfg.push_to is not None),
        is_plain=any(part.folder == "" for part in parts_of(model)),
        step=step,
        config=config,
        run=run_at(Path(cfg.ckpt)),
        measured=measured,
        why_unmeasured=why,
    )
    write_atomically(out / "README.md", model_card(exported, captions, cfg.license, cfg.limits))
    files = sorted(path for path in out.rglob("*") if path.is_file())
    told = [*map(str, files), *_how_to_load(model, out, str(out))]
    if cfg.push_to is not None:
        told.append(f"uploaded: {push_folder(out, cfg.push_to, private=not cfg.public)}")
    print_on("\n".join(told))
    return {"files": float(len(files))}


def _dtype(name: str | None) -> torch.dtype | None:
    if name is not None and name not in DTYPES:
        raise UsageError(f"dtype={name}: expected {', '.join(DTYPES)} or null, got {name}; give one of them")
    return None if name is None else DTYPES[name]


def _how_to_load(model: Any, out: Path, name: str, is_on_hub: bool = False) -> list[str]:
    """Lines that say how to load each folder of the export `out`, which stands at `name`: a path, or a repository."""
    parts, described = parts_of(model), Path(name, ABOUT)
    told = []
    for part in parts:
        where = repr(name if is_on_hub else str(Path(name, part.folder)))
        where += f", subfolder={part.folder!r}" if is_on_hub and part.folder else ""
        if isinstance(part.network, CoCaNetwork):
            where = repr(f"hf-hub:{name}" if is_on_hub else f"local-dir:{name}")
            told.append(f"open_clip: create_model_and_transforms({where})")
            continue
        told.append(f"transformers: {type(part.network).__name__}.from_pretrained({where})")
    if not any(part.folder == "" for part in parts):
        told.append(f"{type(model).__name__} is capkit's own: {described} describes its parts and how to build it")
    pictures = read_object(out / ABOUT, "export again")["pictures"]
    if isinstance(model, CoCa):
        if pictures is not None and pictures.get("crop_from") is not None:
            told.append(
                f"open_clip does not resize to more than it crops as this model does: see {described}, `pictures`"
            )
    elif pictures is not None and getattr(model, "image_processor", None) is None and image_processor(pictures) is None:
        told.append(
            f"no image processor of transformers pads with white as this model does: see {described}, `pictures`"
        )
    fetched = name.rpartition("/")[2]
    capkit = f"hf download {name} --local-dir {fetched}, then ckpt={fetched}" if is_on_hub else f"ckpt={name}"
    return [*told, f"capkit: {capkit}"]


def _purpose(model: Any) -> str:
    if isinstance(model, TextWriter | Seq2SeqWriter):
        return "Writes text in answer to a prompt"
    if hasattr(model, "generate"):
        return "Writes captions of pictures"
    return "Compares pictures and texts" if isinstance(model, TrainableDualEncoder) else "Scores pictures and texts"


def _measured(cfg: DictConfig, step: int) -> tuple[RunFolder | None, str]:
    """The run whose numbers are those of this checkpoint, or why there is none.

    A run measures its last weights, or those that it selected. Raises UsageError if `cfg.evaluated` is of another
    checkpoint.
    """
    path = resolve_checkpoint(Path(cfg.ckpt))
    if cfg.evaluated is not None:
        folder = RunFolder(cfg.evaluated)
        given = (folder.config() or {}).get("ckpt")
        if not isinstance(given, str) or not any(key.startswith("test/") for key in folder.metrics()):
            raise UsageError(
                f"evaluated={cfg.evaluated}: expected a run of `evaluate` with its numbers of the test split, got "
                f"none; give run_dir of `capkit evaluate ckpt={path} run_dir=DIR`"
            )
        if noted_checkpoint(folder.path) != identity(path):  # not by name: a run that trained on has other weights
            raise UsageError(
                f"evaluated={cfg.evaluated}: expected numbers of {path}, got those of other weights, of {given}; "
                "evaluate this checkpoint"
            )
        return folder, ""
    run = run_at(Path(cfg.ckpt))
    if run is None or is_export(path):
        return None, "Not recorded."
    numbers = run.metrics()
    measured = numbers.get("train/selected_step", numbers.get("train/steps"))
    if measured is None or not any(key.startswith("test/") for key in numbers):
        return None, "The run has not been measured."
    if int(measured) != step:
        return None, f"Not measured: the run measured step {int(measured):,}, these are the weights of step {step:,}."
    return run, ""


def _samples(run: RunFolder, count: int) -> list[tuple[str, str, list[str]]]:
    """Key, caption and references of the first captions of the test split that the run wrote."""
    references = references_by_key(run, "test")
    captions = islice(captions_by_key(run, "test").items(), count)
    return [(key, caption, references.get(key, [])) for key, caption in captions]
