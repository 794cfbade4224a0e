"""LoRA tuning of a text encoder against its projection alone: `python -m benchmarks.stamps.retrieval --seeds 0 1 2`.

Trains experiment=stamps_lora_text with both ways of tuning, once a seed on the same split of the stamps (run folders
that are finished are read, not trained again). Recalls are means over seeds with 95 % bootstrap intervals over test
items, whose hits are averaged over seeds first; `difference` is LoRA minus projections on the same items. Needs
`capkit prepare data=stamps`.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from capkit.metrics.bootstrap import bootstrap_interval
from capkit.run.folder import RunFolder

AT = (1, 5, 10)
WAYS = {"t2i": "caption to picture", "i2t": "picture to caption"}
TUNINGS = {
    "LoRA": "model.tune_text={mode: lora, rank: 8, alpha: 16}",
    "projections": "model.tune_text={mode: projection}",
}

# Per test item: the probability of a hit at each k. (items, len(AT))
Hits = np.ndarray


def train(seed: int, tuning: str, folder: Path, overrides: list[str]) -> None:
    """One run in its own process; a folder whose run is finished (its report is written last) is left alone."""
    if (folder / "report.html").exists():
        return
    command = [sys.executable, "-c", "from capkit.cli import main; raise SystemExit(main())"]
    arguments = ["experiment=stamps_lora_text", f"seed={seed}", f"run_dir={folder}", TUNINGS[tuning], *overrides]
    subprocess.run([*command, *arguments], check=True)


def hits(folder: Path, way: str) -> Hits:
    """From the rows that the evaluator wrote: a rank within k is a hit, ties by their mean rank."""
    lines = (folder / "predictions" / "test" / "retrieval.jsonl").read_text(encoding="utf-8").splitlines()
    ranks = np.array([row["rank"] for row in map(json.loads, lines) if row["way"] == way])
    return np.stack([ranks <= k for k in AT], axis=1).astype(float)


def summarize(found: dict[str, list[Hits]]) -> dict[str, list[tuple[float, float, float]]]:
    """Mean and interval at each k for both ways of tuning, and of their difference."""
    means = {tuning: np.mean(values, axis=0) for tuning, values in found.items()}
    means["difference"] = means["LoRA"] - means["projections"]
    return {
        name: [(float(items[:, i].mean()), *bootstrap_interval(items[:, i])) for i in range(len(AT))]
        for name, items in means.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="LoRA tuning of the text encoder against the projections alone.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/stamps_retrieval"), help="where the run folders lie")
    parser.add_argument("--out", type=Path, help="a JSON file for the numbers")
    parser.add_argument("overrides", nargs="*", help="settings of the runs, such as trainer=gpu")
    options = parser.parse_args()
    folders = {name: [options.runs / f"{name.lower()}-seed{seed}" for seed in options.seeds] for name in TUNINGS}
    for name, places in folders.items():
        for seed, folder in zip(options.seeds, places, strict=True):
            train(seed, name, folder, options.overrides)
    tables = {way: summarize({n: [hits(f, way) for f in places] for n, places in folders.items()}) for way in WAYS}
    for way, table in tables.items():
        view = Table("", *(f"R@{k} %" for k in AT), title=f"{WAYS[way]}, {len(options.seeds)} seeds")
        for name, cells in table.items():
            view.add_row(name, *("{:.1f} [{:.1f}, {:.1f}]".format(*(100 * x for x in cell)) for cell in cells))
        Console(width=100).print(view)
    for name, places in folders.items():
        of_seeds = [f"{100 * RunFolder(f).metrics()['test/retrieval_t2i_r1']:.1f}" for f in places]
        print(f"caption to picture, R@1 of each seed, {name}: {' '.join(of_seeds)}")
    if options.out:
        options.out.write_text(json.dumps(tables, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
