"""task=caption: a folder of a user's own images to a JSONL of captions."""

import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from torch import nn

from capkit.checkpoint import load_captioner, refuse_foreign_targets
from capkit.data.datamodule import CaptionDataModule
from capkit.data.folder import Folder
from capkit.decoding.decoding import Decoding
from capkit.errors import UsageError
from capkit.halving import in_parts
from capkit.instantiate import build
from capkit.types import CaptionBatch


def run(cfg: DictConfig) -> dict[str, float]:
    """Captions every image of `cfg.images`; returns how many, how many were skipped, and the time.

    One line is written as soon as its image is captioned. An `out` file that holds lines already is continued: images
    it names are not captioned again. Images that cannot be read are listed in skipped.jsonl beside it.
    """
    torch.set_num_threads(cfg.torch_threads or torch.get_num_threads())
    decoding: Decoding = build(cfg.decoding)
    images = Folder(cfg.images)
    out = Path(cfg.out or f"{Path(cfg.images).name}.captions.jsonl")
    done = captioned_before(out)
    model, checkpoint = load_captioner(cfg.ckpt)
    model.to(best_device())
    data = data_for(checkpoint, images, out.parent)
    start, written = time.monotonic(), 0
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a", encoding="utf-8") as file:
        for keys, captions in caption_batches(model, data.predict_dataloader(), decoding, done):
            for key, caption in zip(keys, captions, strict=True):
                file.write(json.dumps({"image": key, "caption": caption}, ensure_ascii=False) + "\n")
            file.flush()
            written += len(keys)
    seconds = time.monotonic() - start
    skipped = len(images) - written - len(done & {images.record(i).key for i in range(len(images))})
    note = f", {skipped} skipped: see {out.parent / 'skipped.jsonl'}" if skipped else ""
    before = f" ({len(done)} were there before)" if done else ""
    Console().print(f"{written} captions in {seconds:.1f} s{before}{note}: {out}", highlight=False, soft_wrap=True)
    return {"captions": float(written), "skipped": float(skipped), "seconds": seconds}


def best_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def captioned_before(out: Path) -> set[str]:
    """The images that a captions file names. A last line cut off by a kill is taken out of the file.

    Raises UsageError where the file is something else.
    """
    if not out.exists():
        return set()
    lines = out.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    try:
        keys = {json.loads(line)["image"] for line in whole}
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UsageError(f"out={out} exists and is not a file of captions; give another out=FILE") from error
    if whole != lines:
        out.write_text("".join(whole), encoding="utf-8")
    return keys


def data_for(checkpoint: dict[str, Any], images: Folder, folder: Path) -> CaptionDataModule:
    """The folder's images through the transform that the captioner was trained with."""
    config = checkpoint["capkit"]["config"]["data"]
    if config.get("transform") is None:
        raise UsageError("this captioner was trained on cached features alone; its config says nothing about pixels")
    refuse_foreign_targets(config["transform"])
    transform = build(OmegaConf.create({**config["transform"], "augment": None}))
    data = CaptionDataModule(predict=images, transform=transform, max_skipped=1.0)
    data.attach(run_dir=folder)
    return data


@torch.inference_mode()
def caption_batches(
    model: nn.Module, batches: Iterable[CaptionBatch], decoding: Decoding, done: set[str]
) -> Iterator[tuple[list[str], list[str]]]:
    """(keys, captions) of each batch, or part of one that fits into memory, without the images captioned before."""
    device = best_device()
    at_once: int | None = None

    def keep(size: int) -> None:
        nonlocal at_once
        at_once = size

    def write(batch: CaptionBatch) -> tuple[list[str], list[str]]:
        context = model.encode(batch.to(device))  # type: ignore[operator]
        samples = model.generate(context, decoding, num_samples=1)  # type: ignore[operator]
        return batch.keys, [texts[0] for texts in samples.texts]

    for whole in batches:
        wanted = [row for row, key in enumerate(whole.keys) if key not in done]
        yield from in_parts(whole.select(wanted), write, at_once, keep)
