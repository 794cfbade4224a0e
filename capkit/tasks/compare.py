"""task=compare: the numbers, configs and captions of several runs side by side, from what they wrote."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from capkit.config.instantiate import build, build_all
from capkit.config.quoting import quote
from capkit.data.datamodule import CaptionDataModule
from capkit.data.sources.base import prepare_source
from capkit.errors import UsageError
from capkit.metrics.base import Resampled
from capkit.metrics.bootstrap import ImageSums, paired_intervals
from capkit.metrics.coco.collected import Cider
from capkit.metrics.judged import JudgedMetric
from capkit.metrics.scoring import columns_of, scored_rows
from capkit.reports.compare import Compared, Difference, compare_table, write_compared
from capkit.run.folder import RunFolder, default_run_dir, run_at
from capkit.run.predictions import captions_by_key, references_by_key
from capkit.train.build import applicable
from capkit.types import Row
from capkit.utils.console import Screen, command_name, phase, say

Image = Callable[[str], np.ndarray]


def run(cfg: DictConfig) -> dict[str, float]:
    """Compare `cfg.runs` on the captions of `cfg.split` that they wrote; nothing is decoded.

    Writes compare.json (numbers, and differences from the first run with paired bootstrap intervals) and compare.html,
    and prints the numbers. Raises UsageError for runs without captions of the split, and for runs that captioned other
    pictures or were scored against other references.
    """
    folders = _folders(list(cfg.runs))
    captions = {name: _captions(folder, cfg.split) for name, folder in folders.items()}
    keys = _keys(captions, cfg.split, cfg.pictures)
    references = _references(folders, cfg.split, keys)
    data: CaptionDataModule = build(cfg.data)
    prepare_source(data.source(cfg.split))
    metadata = _metadata(data, cfg.split, keys)
    rows = {
        name: [
            {"key": key, "caption": own[key], "references": references[key], "metadata": metadata[key]} for key in keys
        ]
        for name, own in captions.items()
    }
    metrics = applicable(build_all(cfg.metric), metadata[keys[0]])
    image = data.image_reader(cfg.split)
    numbers, differences = _scored(rows, metrics, image, cfg)
    if cfg.pictures == "same":  # else what the runs wrote is of other pictures
        numbers = {name: _written(folders[name], cfg.split) | own for name, own in numbers.items()}
    found = Compared(
        cfg.split, cfg.confidence, folders, numbers, differences, rows, _scores(rows, list(metrics.values()))
    )
    folder = Path(cfg.run_dir or default_run_dir(f"{cfg.name}-compare"))
    with phase("writing the page"):
        write_compared(folder, found, image)
    Screen().print(compare_table(found))
    say(f"wrote {folder / 'compare.json'} and {folder / 'compare.html'}")
    return {}


def _folders(paths: Sequence[str]) -> dict[str, RunFolder]:
    """The runs by name: their folders' names, with as many folders above as tell them apart.

    That they are there and differ was checked with the config (`capkit/config/compared_runs.py`).
    """
    found = {folder.path.resolve().parts: folder for path in paths if (folder := run_at(Path(path)))}
    length = next(n for n in range(1, max(map(len, found)) + 1) if len({parts[-n:] for parts in found}) == len(found))
    return {"/".join(parts[-length:]): folder for parts, folder in found.items()}


def _captions(folder: RunFolder, split: str) -> dict[str, str]:
    found = captions_by_key(folder, split)
    if not found:
        raise UsageError(
            f"{folder.path}: expected captions of {split} in {folder.predictions.name}/{split}.json, got none; caption "
            f"it by `{command_name()} evaluate ckpt={quote(str(folder.path))} split={split}` and give that run's folder"
        )
    return found


def _keys(captions: Mapping[str, Mapping[str, str]], split: str, pictures: str) -> list[str]:
    """The pictures to compare on, in order."""
    first, *others = captions
    common = set.intersection(*(set(own) for own in captions.values()))
    if not common:
        raise UsageError(
            f"runs: expected captions of the same pictures, got none that all have in {split}; evaluate each run on "
            "the same data by `capkit evaluate ckpt=RUN data=NAME`, and give these evaluations' folders"
        )
    if pictures == "common":
        return sorted(common)
    for name in others:
        if odd := sorted(captions[first].keys() ^ captions[name].keys()):
            raise UsageError(
                f"runs: expected captions of the same {split} pictures, got {len(captions[first]):,} of {first} and "
                f"{len(captions[name]):,} of {name}, which differ in {len(odd):,}, such as {odd[0]}; evaluate both on "
                f"the same data and eval_limit, or give pictures=common to compare on the {len(common):,} that all have"
            )
    return sorted(common)


def _references(folders: Mapping[str, RunFolder], split: str, keys: Sequence[str]) -> dict[str, list[str]]:
    """Those of the first run; raises UsageError where another run was scored against others."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, folder in folders.items():
        path = folder.predictions / f"{split}_references.json"
        if not path.exists():
            raise UsageError(f"{path}: expected the references of {name}, got no such file; evaluate the run again")
        found[name] = references_by_key(folder, split)
    first, *others = found
    for name in others:
        for key in keys:
            ours, theirs = found[first].get(key, []), found[name].get(key, [])
            if sorted(ours) != sorted(theirs):
                raise UsageError(
                    f"runs: expected the same references, got others of picture {key} in {first} ({ours[:1]}) and "
                    f"{name} ({theirs[:1]}); evaluate both on the same data"
                )
    return {key: found[first].get(key, []) for key in keys}


def _metadata(data: CaptionDataModule, split: str, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    source = data.source(split)
    places = {key: place for place, key in enumerate(data.keys(split))}
    if odd := [key for key in keys if key not in places]:
        raise UsageError(
            f"data: expected the pictures that the runs captioned, got none named {odd[0]} in its {split} split of "
            f"{len(places):,}; give the data of the runs"
        )
    return {key: source.record(places[key]).metadata for key in keys}


def _scored(
    rows: Mapping[str, list[Row]], metrics: Mapping[str, Any], image: Image, cfg: DictConfig
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, Difference]]]:
    """Numbers of each run by metrics that can be resampled, and differences of each later run from the first."""
    numbers: dict[str, dict[str, float]] = {name: {} for name in rows}
    differences: dict[str, dict[str, Difference]] = {name: {} for name in list(rows)[1:]}
    for called, metric in metrics.items():
        is_cheap = getattr(metric, "resamples_cheaply", False)
        if not isinstance(metric, Resampled) or isinstance(metric, JudgedMetric):
            continue
        if not (is_cheap or cfg.every_metric):
            continue
        with phase(f"comparing by {called}"):
            sums = {name: metric.image_sums(*columns_of(scored_rows(own, metric), image)) for name, own in rows.items()}
            for name, own in sums.items():
                numbers[name] |= _numbers(own)
            first, *others = rows
            for name in others:
                for key, (low, high) in paired_intervals(
                    sums[first], sums[name], cfg.confidence, seed=cfg.seed
                ).items():
                    differences[name][key] = Difference(numbers[name][key] - numbers[first][key], low, high)
    return numbers, differences


def _numbers(images: ImageSums) -> dict[str, float]:
    return {name: float(value[0]) for name, value in images.numbers(images.values.sum(0, keepdims=True)).items()}


def _written(folder: RunFolder, split: str) -> dict[str, float]:
    """What the run says of itself: numbers of the split, without controls."""
    numbers = folder.metrics()
    return {key.removeprefix(f"{split}/"): value for key, value in numbers.items() if key.rpartition("/")[0] == split}


def _scores(rows: Mapping[str, list[Row]], metrics: Sequence[Any]) -> dict[str, np.ndarray]:
    """CIDEr of each caption, to choose pictures by; none where it is not measured or a picture has no references."""
    metric = next((metric for metric in metrics if isinstance(metric, Cider)), None)
    first = next(iter(rows.values()))
    if metric is None or not all(row["references"] for row in first):
        return {}
    return {name: metric.image_sums(*columns_of(own)).values[:, 0] for name, own in rows.items()}
