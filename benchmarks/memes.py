"""CAMU on SceneWorld's memes over seeds, beside what it is without one of its sources, as a table.

    python -m benchmarks.memes [--out runs/memes] [--seeds 0 1 2] [--only ARM ...] [--table FILE] [--no-runs]

Every arm is experiment=camu_sceneworld with words that change it; the arms of a seed start from one encoder
(experiment=camu_encoder_sceneworld). Runs are kept in --out: what is complete is not made again. docs/camu.md holds the
table.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.rl.effects import Study

ARMS: dict[str, tuple[str, ...]] = {
    "last two layers": (),
    "`objective.relevance=0`": ("objective.relevance=0.0",),
    "`objective.relevance=1`": ("objective.relevance=1.0",),
    "`data.train.without=picture`": ("data.train.without=picture",),
    "`data.train.without=text`": ("data.train.without=text",),
    "`data.train.without=captions`": ("data.train.without=captions",),
    "projection alone": ("model.encoder.tune_text.mode=projection", "model.encoder.tune_text.n=null"),
}
COLUMNS = {"AUROC": "test/auroc", "share of right candidates read": "test/selection_accuracy"}


def folder_name(arm: str, seed: int) -> str:
    return f"camu-{list(ARMS).index(arm)}-{seed}"


def run(study: Study, arm: str, seed: int) -> None:
    encoder = study.run(f"encoder-{seed}", ["experiment=camu_encoder_sceneworld", f"seed={seed}"])
    words = ["experiment=camu_sceneworld", f"model.encoder.ckpt={encoder}", f"seed={seed}", *ARMS[arm]]
    study.run(folder_name(arm, seed), words)


def table(out: Path, arms: Sequence[str], seeds: Sequence[int]) -> str:
    """A line for each arm, "seed seed seed" in each cell; a dash where there is nothing to choose from."""
    lines = [f"| seeds {' '.join(map(str, seeds))} | {' | '.join(COLUMNS)} |", f"| --- |{' --- |' * len(COLUMNS)}"]
    for arm in arms:
        found = [json.loads((out / folder_name(arm, seed) / "metrics.json").read_text()) for seed in seeds]
        cells = [" ".join(f"{row[key]:.3f}" if key in row else "-" for row in found) for key in COLUMNS.values()]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/memes"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=list(ARMS), default=list(ARMS), metavar="ARM")
    parser.add_argument("--table", type=Path, help="write the table to this file too")
    parser.add_argument("--no-runs", action="store_true", help="only the table of what is there")
    given = parser.parse_args()
    study = Study(given.out)
    for seed in [] if given.no_runs else given.seeds:
        for arm in given.only:
            run(study, arm, seed)
    text = f"Made {time.strftime('%Y-%m-%d')}.\n\n{table(study.out, given.only, given.seeds)}\n"
    print(text)
    if given.table is not None:
        given.table.write_text(text)


if __name__ == "__main__":
    main()
