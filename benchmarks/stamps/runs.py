"""Retrieval and CIDEr on the stamps over several seeds: `python -m benchmarks.stamps.runs --seeds 0 1 2`.

Trains experiment=stamps_mle once a seed (run folders that are finished are read, not trained again), then scores the
test captions of the trained captioner, of the untrained mapper, and of the trained one shuffled over the images.
Each number is the mean over seeds; its 95 % interval is a bootstrap over test images, whose hits are averaged over
seeds first. `difference` is trained minus control on the same images. Needs `capkit prepare data=stamps`.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from capkit.assets.cache import path
from capkit.metrics.bootstrap import bootstrap_interval
from capkit.metrics.coco.collected import Cider
from capkit.metrics.scoring import shuffled_rows
from capkit.metrics.text_retrieval import TextRetrieval
from capkit.types import Row

AT = (1, 5, 10)
NUM_SHUFFLES = 20

# Per image: the probability of a hit at each k. (images, len(AT))
Hits = np.ndarray


def train(seed: int, folder: Path, overrides: list[str]) -> None:
    """One run in its own process; a folder whose run is finished (its report is written last) is left alone."""
    if (folder / "report.html").exists():
        return
    command = [sys.executable, "-c", "from capkit.cli import main; raise SystemExit(main())"]
    arguments = ["experiment=stamps_mle", f"seed={seed}", f"run_dir={folder}", *overrides]
    subprocess.run([*command, *arguments], check=True)


def read_rows(folder: Path, name: str) -> list[Row]:
    """The captions and references that a run wrote."""
    captions = json.loads((folder / "predictions" / f"{name}.json").read_text(encoding="utf-8"))
    annotations = json.loads((folder / "predictions" / f"{name}_references.json").read_text(encoding="utf-8"))
    references: dict[str, list[str]] = {}
    for row in annotations["annotations"]:
        references.setdefault(row["image_id"], []).append(row["caption"])
    return [
        {"key": row["image_id"], "caption": row["caption"], "references": references[row["image_id"]], "metadata": {}}
        for row in sorted(captions, key=lambda row: row["image_id"])
    ]


def hits(metric: TextRetrieval, rows: list[Row]) -> Hits:
    captions, references = ([row[name] for row in rows] for name in ("caption", "references"))
    ranks = metric.ranks(captions, list(range(len(rows))), references)
    return np.stack([ranks.hits(k).numpy() for k in AT], axis=1)


def cider(rows: list[Row]) -> float:
    columns: Any = ([row[name] for row in rows] for name in ("caption", "references", "metadata"))
    return Cider().score(*columns)["cider"]


def score_run(metric: TextRetrieval, folder: Path) -> dict[str, tuple[Hits, float]]:
    """Hits and CIDEr of each captioner. The shuffled control is the mean over permutations."""
    trained, untrained = read_rows(folder, "test"), read_rows(folder, "test_untrained")
    if [row["key"] for row in trained] != [row["key"] for row in untrained]:
        raise SystemExit(f"{folder}: the controls were captioned on other images; set controls to the test pool's size")
    shuffles = [shuffled_rows(trained, seed) for seed in range(NUM_SHUFFLES)]
    shuffled = np.mean([hits(metric, rows) for rows in shuffles], axis=0)
    return {
        "trained": (hits(metric, trained), cider(trained)),
        "untrained mapper": (hits(metric, untrained), cider(untrained)),
        "shuffled captions": (shuffled, float(np.mean([cider(rows) for rows in shuffles]))),
    }


def summarize(runs: list[dict[str, tuple[Hits, float]]]) -> dict[str, dict[str, Any]]:
    """Means over seeds with intervals over images, and paired differences."""
    table: dict[str, dict[str, Any]] = {}
    means = {name: np.mean([run[name][0] for run in runs], axis=0) for name in runs[0]}
    for name, per_image in means.items():
        table[name] = {f"r{k}": interval(per_image[:, i]) for i, k in enumerate(AT)}
        table[name]["cider"] = [run[name][1] for run in runs]
        table[name]["r_of_seeds"] = [run[name][0].mean(0).tolist() for run in runs]
    for name in list(means)[1:]:
        difference = means["trained"] - means[name]
        table[f"difference to {name}"] = {f"r{k}": interval(difference[:, i]) for i, k in enumerate(AT)}
    return table


def interval(per_image: np.ndarray) -> tuple[float, float, float]:
    """Mean, and the 95 % bootstrap interval over images."""
    return (float(per_image.mean()), *bootstrap_interval(per_image))


def show(table: dict[str, dict[str, Any]], pool: int, num_seeds: int) -> None:
    chance = ", ".join(f"{100 * k / pool:.1f}" for k in AT)
    title = f"{pool} test images, {num_seeds} seeds, 95 % intervals over images; chance R@1/5/10 {chance} %"
    view = Table("", *(f"R@{k} %" for k in AT), "CIDEr of each seed", title=title)
    for name, numbers in table.items():
        cells = ["{:.1f} [{:.1f}, {:.1f}]".format(*(100 * x for x in numbers[f"r{k}"])) for k in AT]
        view.add_row(name, *cells, " ".join(f"{x:.2f}" for x in numbers.get("cider", [])))
    Console(width=120).print(view)


def main() -> None:
    parser = argparse.ArgumentParser(description="Retrieval and CIDEr on the stamps over several seeds.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/stamps"), help="where the run folders lie")
    parser.add_argument("--out", type=Path, help="a JSON file for the numbers")
    parser.add_argument("overrides", nargs="*", help="settings of the runs, such as trainer=gpu")
    options = parser.parse_args()
    folders = [options.runs / f"seed{seed}" for seed in options.seeds]
    for seed, folder in zip(options.seeds, folders, strict=True):
        train(seed, folder, options.overrides)
    metric = TextRetrieval(encoder=path("minilm"))
    runs = [score_run(metric, folder) for folder in folders]
    table = summarize(runs)
    show(table, len(runs[0]["trained"][0]), len(runs))
    if options.out:
        options.out.write_text(json.dumps(table, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
