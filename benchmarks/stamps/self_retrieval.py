"""Self-retrieval on the stamps over several seeds, with its control.

    python -m benchmarks.stamps.self_retrieval --seeds 0 1 2

A seed: a captioner and a listener of the one part of the training captions, a second judge of the other part, then
experiment=stamps_sr and experiment=stamps_sr_shuffled on the pictures of that other part. Run folders that are finished
are read, not trained again. All test captions are scored by listener and second judge of the first seed (R@1 among 99
random test pictures, five draws), and by MiniLM against the captions of the test pictures. Means over seeds; 95 %
intervals are bootstraps over test images, whose hits are averaged over seeds first. Needs `capkit prepare data=stamps`.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.stamps.runs import interval, read_rows
from capkit.assets.cache import path
from capkit.checkpoint.loading import load_dual_encoder
from capkit.data.features import FeatureStore
from capkit.metrics.ranking import pool_ranks
from capkit.metrics.retrieval import distractor_pools
from capkit.metrics.text_retrieval import TextRetrieval
from capkit.utils.rng import stable_hash

BASE = ["data.train.val=0.4"]  # captions that captioner and listener learn from
OTHER = ["data.train.split=val", "data.train.test=0.3", "data.train.val=0.3"]  # those of the pictures that are rewarded
NUM_DISTRACTORS, NUM_DRAWS = 99, 5
TEXT_AT = (1, 5, 10)

# Per image: the probability of a hit, of each measure.
Hits = dict[str, np.ndarray]


def train(folder: Path, *arguments: str) -> Path:
    """One run in its own process; a folder whose run is finished (its report is written last) is left alone."""
    if not (folder / "report.html").exists():
        command = [sys.executable, "-c", "from capkit.cli import main; raise SystemExit(main())"]
        subprocess.run([*command, *arguments, f"run_dir={folder}"], check=True)
    return folder


def train_seed(runs: Path, seed: int, overrides: list[str]) -> dict[str, Path]:
    """The run folders of a seed, by what their captions are."""
    shared = [f"seed={seed}", *overrides]
    mle = train(runs / f"mle-{seed}", "experiment=stamps_mle", *BASE, *shared)
    listener = train(runs / f"listener-{seed}", "experiment=stamps_lora_text", *BASE, *shared)
    second = train(runs / f"second-{seed}", "experiment=stamps_lora_text", *OTHER, f"seed={10 + seed}", *overrides)
    inputs = [f"init_from={mle}", f"reward_encoder={listener}", f"eval_encoder={second}", *shared]
    after = train(runs / f"after-{seed}", "experiment=stamps_sr", *inputs)
    control = train(runs / f"control-{seed}", "experiment=stamps_sr_shuffled", *inputs)
    return {"before": mle, "after": after, "control": control}


def hits(folder: Path, judges: dict[str, Any], text: TextRetrieval, features: FeatureStore) -> Hits:
    """Of the test captions that a run wrote."""
    rows = sorted(read_rows(folder, "test"), key=lambda row: stable_hash(row["key"]))
    keys, captions, references = ([row[name] for row in rows] for name in ("key", "caption", "references"))
    ids, own = torch.tensor([stable_hash(key) for key in keys]), torch.arange(len(keys))
    pools = [distractor_pools(ids, NUM_DISTRACTORS, draw)[own] for draw in range(NUM_DRAWS)]
    found: Hits = {}
    for name, judge in judges.items():
        images, texts = judge.encode_features(torch.from_numpy(features[keys])), judge.encode_text(captions)
        found[name] = np.mean([pool_ranks(texts, images, pool).hits(1).numpy() for pool in pools], axis=0)
    ranks = text.ranks(captions, list(range(len(captions))), references)
    return found | {f"text R@{k}": ranks.hits(k).numpy() for k in TEXT_AT}


def summarize(runs: dict[str, list[Hits]]) -> dict[str, dict[str, Any]]:
    """Means over seeds with intervals over images, each seed's number, and paired differences to before."""
    means = {name: {m: np.mean([one[m] for one in seeds], axis=0) for m in seeds[0]} for name, seeds in runs.items()}
    table: dict[str, dict[str, Any]] = {}
    for name, measures in means.items():
        table[name] = {m: interval(values) for m, values in measures.items()}
        table[name]["seeds"] = {m: [float(one[m].mean()) for one in runs[name]] for m in measures}
    for name in ("after", "control"):
        table[f"{name} - before"] = {m: interval(means[name][m] - means["before"][m]) for m in means[name]}
    return table


def show(table: dict[str, dict[str, Any]]) -> None:
    measures = [name for name in table["before"] if name != "seeds"]
    view = Table("", *measures, title="R@1 in 100 by each judge, text retrieval; %, 95 % intervals over images")
    for name, numbers in table.items():
        view.add_row(name, *("{:.1f} [{:.1f}, {:.1f}]".format(*(100 * x for x in numbers[m])) for m in measures))
    Console(width=140).print(view)


def main() -> None:
    parser = argparse.ArgumentParser(description="Self-retrieval on the stamps over several seeds, with its control.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/stamps_sr"), help="where the run folders lie")
    parser.add_argument("--out", type=Path, help="a JSON file for the numbers")
    parser.add_argument("overrides", nargs="*", help="settings of all runs, such as trainer=gpu")
    options = parser.parse_args()
    folders = [train_seed(options.runs, seed, options.overrides) for seed in options.seeds]
    first = options.seeds[0]
    judges = {name: load_dual_encoder(str(options.runs / f"{name}-{first}")).eval() for name in ("listener", "second")}
    text, features = TextRetrieval(encoder=path("minilm")), FeatureStore(path("stamps-efficientnet-lite0"))
    runs = {name: [hits(seed[name], judges, text, features) for seed in folders] for name in folders[0]}
    table = summarize(runs)
    show(table)
    if options.out:
        options.out.write_text(json.dumps(table, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
