"""task=mine: nearest neighbours of a split's images, by images, captions or both."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from omegaconf import DictConfig
from rich.progress import track
from torch import Tensor

from capkit.config.instantiate import build, plain
from capkit.curation.mining.neighbors import VECTORS, read_about_neighbors, write_neighbors
from capkit.curation.mining.search import Search
from capkit.data.curricula.bag_files import hash_of_keys
from capkit.data.datamodule import CaptionDataModule
from capkit.data.sources.base import clean_captions
from capkit.errors import UsageError
from capkit.evaluators.embedding import embed_images, resumable
from capkit.models.dual_encoders.base import provenance
from capkit.models.dual_encoders.cached import CachedDualEncoder
from capkit.run.folder import RunFolder, default_run_dir
from capkit.utils.console import Screen, print_on
from capkit.utils.files import TEMPORARY
from capkit.utils.process import set_up_process
from capkit.utils.removal import remove_own
from capkit.utils.store import check_about, fingerprint
from capkit.utils.tensors import default_device, unit

By = Literal["image", "text", "combined"]
_IMAGES = 64  # images whose captions are embedded at once


def run(cfg: DictConfig) -> dict[str, float]:
    """Write `neighbors/` into the run folder. An interrupted command continues where it stopped when run again."""
    set_up_process(cfg.torch_threads)
    if cfg.by not in ("image", "text", "combined"):
        raise UsageError(f"expected by to be image, text or combined; got {cfg.by!r}")
    folder = RunFolder(cfg.run_dir or default_run_dir(f"{cfg.name}-mine"))
    encoder = build(cfg.encoder)
    data: CaptionDataModule = build(cfg.data)
    folder.open(plain(cfg))
    cached = resumable(encoder, folder.path)
    cached.to(default_device())
    keys, vectors = embed(cached, data, cfg.split, cfg.by, folder.path)
    out = folder.path / "neighbors"
    sides = ("image", "text") if cfg.by == "combined" else (cfg.by,)
    about = {
        "split": cfg.split,
        "num_keys": data.num_images(cfg.split),
        "keys_hash": hash_of_keys(data.keys(cfg.split)),
        "by": cfg.by,
        "encoder": provenance(encoder),
        "fingerprints": {side: fingerprint(encoder.fingerprint_fields(side)) for side in sides},
        "num_neighbors": cfg.num_neighbors,
        "duplicate_threshold": float(cfg.duplicate_threshold),
        "backend": cfg.backend,
    }
    found = read_about_neighbors(out)
    if found is None:
        out.mkdir(exist_ok=True)
        np.save(out / VECTORS, vectors)
        search = Search(vectors, cfg.num_neighbors, folder.path / "search", cfg.duplicate_threshold, cfg.backend)
        chunks = track(search, f"neighbours of {len(keys):,} images", search.num_chunks, console=Screen())
        write_neighbors(out, keys, chunks, about)
        remove_own(search.folder, ("chunk-*.npz*", "about.json*", TEMPORARY))
    else:
        check_about({**found, "numbers": None}, {**about, "numbers": None}, str(out), "give another run_dir")
    return _finish(folder, out)


def embed(
    encoder: CachedDualEncoder, data: CaptionDataModule, split: str, by: By, folder: Path
) -> tuple[list[str], Float[np.ndarray, "N D"]]:
    """Keys of the split's usable images, and their unit vectors.

    image: the image's embedding. text: the normalised mean of its captions' embeddings. combined: the normalised mean
    of these two.
    """
    if by == "text":
        source = data.source(split)
        records = [record for record in map(source.record, range(len(source))) if clean_captions(record.captions)]
        if not records:
            raise UsageError(f"by=text: expected images with captions, {split} has none; use by=image")
        images = None
    else:
        usable = embed_images(encoder, data, split, folder, needs_captions=by == "combined")
        records, images = usable.records, usable.embeddings
    vectors = images
    if by != "image":
        vectors = mean_captions(encoder, [clean_captions(record.captions) for record in records])
        if images is not None:
            vectors = unit(images + vectors)
    assert vectors is not None
    return [record.key for record in records], vectors.float().numpy()


def mean_captions(encoder: CachedDualEncoder, captions: list[list[str]]) -> Float[Tensor, "N D"]:
    """The normalised mean embedding of each image's captions."""
    parts = []
    for start in range(0, len(captions), _IMAGES):
        group = captions[start : start + _IMAGES]
        embedded = encoder.encode_text([text for texts in group for text in texts]).cpu()
        parts += [part.mean(0) for part in embedded.split([len(texts) for texts in group])]
    return unit(torch.stack(parts))


def _finish(folder: RunFolder, out: Path) -> dict[str, float]:
    about = read_about_neighbors(out)
    assert about is not None
    numbers: dict[str, float] = about["numbers"]
    folder.write_metrics(numbers)
    for name, value in numbers.items():
        print_on(f"  {name:<28} {value:.4f}")
    print_on(f"neighbors: {out}")
    return numbers
