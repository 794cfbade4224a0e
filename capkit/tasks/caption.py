"""task=caption: captions a folder of the user's images, and writes them to a JSONL file."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import nn

from capkit.checkpoint.files import identity, saved_step
from capkit.checkpoint.loading import load_captioner, stored_transform
from capkit.checkpoint.run_checkpoints import resolve_checkpoint
from capkit.config.instantiate import build, plain
from capkit.data.datamodule import CaptionDataModule
from capkit.data.sources.folder import Folder
from capkit.decoding.config import Decoding
from capkit.errors import UsageError, naming
from capkit.fault_tolerance.oom import map_in_chunks
from capkit.models.captioners.word_attention import Attending, require_attention, word_attention
from capkit.reports.word_attention import AttentionFile
from capkit.run.changes import flatten
from capkit.scorers.as_reranker import Reranker
from capkit.train.build import build_reranker, picture_reader
from capkit.train.captioner_module import best_captions
from capkit.train.conditions import UNCONDITIONED, Requested, model_config, requested_conditions
from capkit.train.evaluation import NUM_SAMPLES
from capkit.train.guidance import prepare_guide
from capkit.train.sweep import cells, swept
from capkit.types import CaptionBatch, Samples
from capkit.utils.console import print_on
from capkit.utils.files import output_file, write_json
from capkit.utils.process import set_up_process
from capkit.utils.store import check_about
from capkit.utils.tensors import default_device
from capkit.utils.text_files import decode, parse_json

_OTHER_FORMATS = (".json", ".csv", ".tsv", ".txt", ".xlsx")


def run(cfg: DictConfig) -> dict[str, float]:
    """Caption every image of `cfg.images`; returns the numbers of captions and skipped images, and the time.

    With `conditions.NAME=sweep` once for each bin, into a file of its own, OUT.NAME-BIN.jsonl; the numbers are sums.
    """
    if (name := swept(cfg)) is None:
        return caption(cfg)
    out, totals = _out(cfg), Counter[str]()
    for number, cell in cells(cfg, name):
        cell.out = str(out.with_name(f"{out.stem}.{name}-{number}{out.suffix}"))
        totals.update(caption(cell))
    return dict(totals)


def caption(cfg: DictConfig) -> dict[str, float]:
    """Caption every image of `cfg.images` into one file.

    One line is written as soon as its image is captioned. An `out` file that holds lines already is continued: images
    it names are not captioned again. What wrote them stands in OUT.about.json; UsageError is raised where that is
    another checkpoint, decoding or folder of images. Images that cannot be read are listed in skipped.jsonl beside it.
    The caption of a single image is printed. With `cfg.attention`, where the captioner looked at each word is written
    beside the captions, with a page of pictures (`AttentionFile`).
    """
    set_up_process(cfg.torch_threads)
    requested = requested_conditions(cfg, model_config(cfg.ckpt))
    decoding: Decoding = build(cfg.decoding)
    reranker = build_reranker(decoding, cfg.reward)
    if reranker is not None and (reranker.scorer.needs_references or reranker.scorer.needs_fit):
        raise UsageError(
            f"task=caption: expected a reward that needs no references, which a folder of images has not; got "
            f"{', '.join(cfg.reward)}; take for example reward=[clip_score]"
        )
    images = Folder(cfg.images)
    out = _out(cfg)
    about = what_writes(resolve_checkpoint(Path(cfg.ckpt)), decoding, cfg.images)
    if requested.values:
        about["conditions"] = dict(requested.values)
    if reranker is not None:
        about["rerank"] = {"reward": plain(cfg.reward), "provenance": reranker.provenance()}
    if cfg.attention:
        about["attention"] = True
    texts = captioned_before(out)
    if texts:
        check_written_by(about, out)
    before = len(texts)
    model, checkpoint = load_captioner(cfg.ckpt)
    model.to(default_device())
    prepare_guide(model, checkpoint, decoding, default_device())
    data = data_for(checkpoint, images, out.parent)
    if reranker is not None:
        reranker.attach_captioner(model.tokenizer, model.prompt)
        reranker.prepare(picture_reader(data, ("predict",)), list, default_device())
    attention = AttentionFile(out)
    look = partial(write_attention, attention, require_attention(model)) if cfg.attention else None
    if look is not None:
        attention.start(texts)
    start = time.monotonic()
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(about_file(out), about, ensure_ascii=False)
    with naming(out), out.open("a", encoding="utf-8") as file:
        batches = data.predict_dataloader()
        for keys, captions in caption_batches(model, batches, decoding, set(texts), reranker, requested, look):
            for key, caption in zip(keys, captions, strict=True):
                file.write(json.dumps({"image": key, "caption": caption}, ensure_ascii=False) + "\n")
            file.flush()
            texts |= dict(zip(keys, captions, strict=True))
    seconds = time.monotonic() - start
    if look is not None:
        attention.write_page(f"{out.name}: attention", partial(seen_picture, data), NUM_SAMPLES)
    keys = [images.record(index).key for index in range(len(images))]
    written, skipped = len(texts) - before, sum(key not in texts for key in keys)
    if len(keys) == 1 and not skipped:
        print_on(texts[keys[0]])
    note = f", {skipped} skipped: see {out.parent / 'skipped.jsonl'}" if skipped else ""
    earlier = f" ({before} were there before)" if before else ""
    print_on(f"{written} captions in {seconds:.1f} s{earlier}{note}: {out}")
    if look is not None:
        print_on(f"attention: {attention.page}")
    return {"captions": float(written), "skipped": float(skipped), "seconds": seconds}


def _out(cfg: DictConfig) -> Path:
    if cfg.out is not None and Path(cfg.out).suffix.lower() in _OTHER_FORMATS:
        raise UsageError(
            f"out={cfg.out}: expected the name of a file of JSON lines, got that of another format; give "
            f"out={Path(cfg.out).with_suffix('.jsonl')}"
        )
    return output_file(cfg.out or f"{Path(cfg.images).resolve().name}.{checkpoint_name(cfg.ckpt)}.captions.jsonl")


def checkpoint_name(ckpt: str) -> str:
    """Name of a run's folder, followed by the checkpoint's name if one was given: "mine", "mine.step-00000040"."""
    path = Path(ckpt).resolve()
    return f"{path.parents[1].name}.{path.stem}" if path.parent.name == "checkpoints" else path.stem


def what_writes(checkpoint: Path, decoding: Decoding, images: str) -> dict[str, Any]:
    """Everything that captions depend on, as plain data. The checkpoint's hash identifies a run that was moved."""
    settings = asdict(decoding)
    for younger in ("num_candidates", "guide", "prompt"):  # captions of an earlier version are continued
        if not settings[younger]:
            del settings[younger]
    return {
        "checkpoint": str(checkpoint),
        "step": saved_step(checkpoint) if checkpoint.is_dir() else None,
        "hash": identity(checkpoint),
        "decoding": settings,
        "images": str(Path(images).resolve()),
    }


def about_file(out: Path) -> Path:
    return out.with_name(f"{out.name}.about.json")


def check_written_by(about: dict[str, Any], out: Path) -> None:
    """Raises UsageError if the captions in `out` were written by another checkpoint or settings, or by unknown ones."""
    path = about_file(out)
    remedy = "give another out=FILE, or delete this one to start it anew"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"out={out} holds captions, and {path} does not say which checkpoint and decoding wrote them; {remedy}"
        ) from error
    found = flatten(found)
    if found.get("hash") == about["hash"]:
        found["checkpoint"] = about["checkpoint"]
    check_about(found, flatten(about), f"out={out}", remedy)


def captioned_before(out: Path) -> dict[str, str]:
    """The captions in a file, by image. A last line cut off by a kill is removed from the file.

    Raises UsageError, which names the line, where the file is something else.
    """
    if not out.exists():
        return {}
    whole, newline, cut_off = out.read_bytes().rpartition(b"\n")
    captions = {}
    for number, line in enumerate(whole.split(b"\n") if newline else [], 1):
        try:
            row = parse_json(decode(line, str(out), number), str(out))
            captions[row["image"]] = row["caption"]
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f'out={out} exists; expected {{"image": ..., "caption": ...}} in each line, got {line[:60]!r} in line '
                f"{number}; give another out=FILE, or mend the line"
            ) from error
    if cut_off:
        out.write_bytes(whole + newline)
    return captions


def data_for(checkpoint: dict[str, Any], images: Folder, folder: Path) -> CaptionDataModule:
    """Data module of the folder's images, with the transform that the captioner was trained with."""
    transform = stored_transform(checkpoint)
    data = CaptionDataModule(predict=images, transform=transform, max_skipped=1.0)
    data.attach(run_dir=folder)
    return data


@torch.inference_mode()
def caption_batches(
    model: nn.Module,
    batches: Iterable[CaptionBatch],
    decoding: Decoding,
    done: set[str],
    reranker: Reranker | None = None,
    requested: Requested = UNCONDITIONED,
    look: Callable[[CaptionBatch, Samples], None] | None = None,
) -> Iterator[tuple[list[str], list[str]]]:
    """Yield (keys, captions) of each batch, or of parts that fit into memory, skipping images captioned before.

    `look` is called with what was written of each part, before it is yielded.
    """
    device = default_device()
    at_once: int | None = None

    def keep(size: int) -> None:
        nonlocal at_once
        at_once = size

    def write(batch: CaptionBatch) -> tuple[list[str], list[str]]:
        batch = batch.to(device)
        samples = best_captions(model, batch, decoding, reranker, requested)
        if look is not None:
            look(requested(batch), samples)
        return batch.keys, [texts[0] for texts in samples.texts]

    for whole in batches:
        wanted = [row for row, key in enumerate(whole.keys) if key not in done]
        yield from map_in_chunks(whole.select(wanted), write, at_once, keep)


@torch.no_grad()
def write_attention(file: AttentionFile, model: Attending, batch: CaptionBatch, samples: Samples) -> None:
    """Read where the captioner looks in a pass over the captions that it has written; decoding is as without it."""
    found = word_attention(model, model.encode(batch), samples)
    for key, texts, row in zip(batch.keys, samples.texts, found, strict=True):
        file.append(key, texts[0], row.words, row.shares)


def seen_picture(data: CaptionDataModule, key: str) -> np.ndarray:
    """The picture as the model sees it, before its pixels are normalised."""
    assert data.transform is not None
    return data.transform(data.image_reader("predict")(key)).permute(1, 2, 0).numpy()
