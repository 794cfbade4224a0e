"""task=prepare: fetches the assets of a data config, builds its caches, and writes frozen features, all once."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from omegaconf import DictConfig
from rich.progress import track
from torch import Tensor, nn

from capkit.assets.cache import location
from capkit.assets.catalogue import ASSETS, fetch, with_companions
from capkit.config.instantiate import build, build_sources, plain
from capkit.curation.folder import own_shard
from capkit.data.box_features import of_boxes
from capkit.data.features import DamagedFeatures, FeatureStore, FeatureWriter
from capkit.data.fingerprint import fingerprint_of
from capkit.data.images import BadImage
from capkit.data.placement import Box
from capkit.data.region_files import RegionWriting
from capkit.data.sources.base import DataSource, prepare_source
from capkit.data.transforms import ImageTransform
from capkit.errors import UsageError
from capkit.models.dual_encoders.base import CacheableEncoder
from capkit.models.weights import weights_fingerprint
from capkit.utils.console import Screen, print_on
from capkit.utils.tensors import default_device

_ASSET = "capkit.assets.cache.path"
_BATCH = 32

# For each image key of any split: its source, and its index in that source.
Places = dict[str, tuple[DataSource, int]]


def run(cfg: DictConfig) -> dict[str, float]:
    """Fetch the assets that `cfg.data` names and their companions, let sources build caches, and write features."""
    torch.set_num_threads(cfg.get("torch_threads") or torch.get_num_threads())
    if cfg.get("data") is None:
        raise UsageError("prepare: expected a data config, got none; give e.g. data=stamps")
    names = [name for name in asset_names(plain(cfg.data)) if name in ASSETS]
    fetched = sum(fetch(name, print_on) for name in with_companions(names))
    sources = list(build_sources(cfg.data).values())
    for source in sources:
        prepare_source(source)
    written = 0
    if cfg.get("features") is not None:
        written = write_regions(cfg, sources)
    elif cfg.data.get("features") is not None:
        written = write_features(cfg, sources, features_folder(plain(cfg.data)["features"]))
    print_on("ready" if fetched or written else "ready: nothing was left to do")
    return {"fetched": float(fetched), "features": float(written)}


def asset_names(node: Any) -> Iterator[str]:
    """Names of the assets in a config, each once, in order."""
    seen: dict[str, None] = {}
    pending = [node]
    while pending:
        current = pending.pop(0)
        if isinstance(current, dict) and current.get("_target_") == _ASSET:
            seen[current["name"]] = None
        elif isinstance(current, dict | list):
            pending[:0] = current.values() if isinstance(current, dict) else current
    yield from seen


def features_folder(node: Any) -> Path:
    """The folder of `data.features`, which need not exist yet."""
    return location(node["name"]) if isinstance(node, dict) else Path(node)


def write_features(cfg: DictConfig, sources: list[DataSource], folder: Path) -> int:
    """Write the encoder's output for every usable image and return their number; 0 if the folder has them already.

    Features are recomputed if they are of another encoder, weights or transform, lack an image, or are damaged.
    """
    places = {source.record(i).key: (source, i) for source in sources for i in range(len(source))}
    looks = None if cfg.data.get("transform") is None else plain(cfg.data.transform)
    transform = None if looks is None else build(cfg.data.transform)
    features_of = ImageFeatures(build(cfg.image_encoder), plain(cfg.image_encoder), transform, looks)
    boxes = _boxes(places, transform) if cfg.get("boxes") else None
    if boxes is not None:
        features_of.about["boxes"] = fingerprint_of(boxes=boxes)
    if _is_complete(folder, features_of.about, places):
        print_on(f"features: there already, {folder}")
        return 0
    usable = _usable(places)
    batches = [usable[start : start + _BATCH] for start in range(0, len(usable), _BATCH)]
    num_tokens, width = features_of(_pictures(places, usable[:1])).shape[1:]
    folder.parent.mkdir(parents=True, exist_ok=True)
    counts = None if boxes is None else [len(boxes[key]) for key in usable]
    with FeatureWriter(folder, usable, (num_tokens, width), features_of.dtype, features_of.about, counts) as writer:
        for keys in track(batches, f"features of {len(usable)} images", console=Screen()):
            cells = features_of(_pictures(places, keys)).cpu()
            if boxes is not None:
                cells = torch.cat([of_boxes(own, boxes[key]) for own, key in zip(cells, keys, strict=True)])
            writer.write(keys, cells.numpy())
    what = f"{num_tokens} tokens" if counts is None else f"{min(counts)} to {max(counts)} boxes"
    print_on(f"features: {len(usable):,} images, {what} of width {width}, {folder}")
    return len(usable)


def _boxes(places: Places, transform: ImageTransform | None) -> dict[str, list[Box]]:
    """Of each image the distinct boxes of its record's regions, in order, as the encoder's square has them."""
    if transform is None or not transform.keeps_shares:
        raise UsageError(
            "prepare boxes=true: expected a data.transform that keeps the whole picture (resize=squash), so that boxes "
            "stay where they are; got another one"
        )
    found = {}
    for key, (source, index) in places.items():
        found[key] = list(dict.fromkeys(region.box for region in source.record(index).regions))
        if not found[key]:
            raise UsageError(f"prepare boxes=true: expected a region in every record, got none in {key!r}")
    return found


def write_regions(cfg: DictConfig, sources: list[DataSource]) -> int:
    """Write this shard of the region features in the folder `cfg.features` to `data.features`; how many images' it was.

    The last shard completes the folder.
    """
    if cfg.data.get("features") is None:
        raise UsageError("prepare features=DIR: expected data.features, the folder to write; give data.features=OUT")
    keys = list(dict.fromkeys(source.record(i).key for source in sources for i in range(len(source))))
    out, shard = Path(cfg.data.features), own_shard(cfg.shard, cfg.num_shards)
    writing = RegionWriting(Path(cfg.features), out, keys, cfg.max_regions)
    if writing.is_complete():
        print_on(f"features: there already, {out}")
        return 0
    own = writing.rows_of(*shard)
    written = sum(1 for _ in track(writing.write(own), f"regions of {len(own)} images", total=len(own)))
    missing = writing.complete()
    rest = f"{missing:,} images are still to be written: run the other shards"
    print_on(f"features: {rest}" if missing else f"features: {len(keys):,} images, {out}")
    return written


class ImageFeatures:
    """Pictures to features (n, N, W), by any encoder that `image_encoder` may name.

    An image encoder (pixels to tokens) reads the data's transform, without augmentation. A dual encoder reads pictures
    in its own way and gives one row an image, its embedding (N = 1).

    `about` says what the features depend on. A model that is to be trained on them compares its own weights with
    `about["weights"]` (`FeatureStore.check`), so that features of other weights are refused.
    """

    def __init__(self, encoder: Any, config: dict[str, Any], transform: ImageTransform | None, looks: Any) -> None:
        """`config` is the encoder's, `looks` the transform's: what their constructors were given."""
        self._is_dual = isinstance(encoder, CacheableEncoder)
        if not self._is_dual and transform is None:
            raise UsageError(
                "data.features are made from pixels: add data.transform (size, mean and std of the encoder)"
            )
        self._device = default_device()
        encoder.to(self._device)
        if isinstance(encoder, nn.Module):
            encoder.eval()
        self._encoder, self._transform = encoder, transform
        self.dtype = "float32" if self._is_dual else "float16"  # one row an image: precision costs little
        if self._is_dual:
            self.about = encoder.fingerprint_fields("image")
        else:
            self.about = {"encoder": config, "transform": looks, "weights": weights_fingerprint(encoder)}

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[np.ndarray]) -> Float[Tensor, "n N W"]:
        if self._is_dual:
            return self._encoder.encode_image(self._encoder.preprocess(pictures).to(self._device))[:, None].float()
        assert self._transform is not None
        pixels = self._transform.normalize(torch.stack([self._transform(picture) for picture in pictures]))
        return self._encoder(pixels.to(self._device)).float()


def _is_complete(folder: Path, about: dict[str, Any], places: Places) -> bool:
    if not (folder / "keys.json").is_file():
        return False
    try:
        store = FeatureStore(folder)
    except DamagedFeatures as damage:
        print_on(str(damage).partition(";")[0])
        return False
    return store.about == about and all(key in store for key in places)


def _usable(places: Places) -> list[str]:
    """Keys of the images that can be read. The others get no features; runs list them in skipped.jsonl."""
    usable = []
    for key, (source, index) in places.items():
        try:
            source.image(index)
        except BadImage as problem:
            print_on(f"features: skipped {key}: {problem}")
        else:
            usable.append(key)
    if not usable:
        raise UsageError("data.features: expected readable images, got none; check the data's paths")
    return usable


def _pictures(places: Places, keys: list[str]) -> list[np.ndarray]:
    return [source.image(index) for source, index in (places[key] for key in keys)]
