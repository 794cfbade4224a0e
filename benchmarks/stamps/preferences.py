"""DPO on the stamps, and the same with sides drawn at random: `python -m benchmarks.stamps.preferences --seeds 0`.

A seed: a captioner of the one part of the training captions; four samples of each picture of the other part, of which
MiniLM finds one nearer to the human caption; experiment=stamps_preferences on these pairs, and on the same with sides
drawn at random. The test captions before and after look for their own picture's caption by MiniLM, among those of all
test pictures. Intervals are 95 % bootstraps over test pictures, whose hits are averaged over seeds first. Run folders
that are finished are read. Writes docs/stamps_preferences.json, from which `python -m benchmarks.preferences` makes a
table. Needs `capkit prepare data=stamps`.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.scene_pairs import Row, at_random
from benchmarks.stamps.runs import cider, hits, interval, read_rows
from benchmarks.stamps.self_retrieval import BASE, OTHER, train
from benchmarks.stamps.table import write_table
from capkit.assets.cache import path
from capkit.metrics.text_retrieval import TextRetrieval
from capkit.utils.files import write_atomically

AT = ("R@1", "R@5", "R@10")


def collect(mle: Path, out: Path, words: Sequence[str]) -> list[Row]:
    if not out.exists():
        command = [sys.executable, "-c", "from capkit.cli import main; raise SystemExit(main())"]
        about = [*OTHER, "num_samples=4", "margin=0.05", f"out={out}", "reward=[sentence_similarity]"]
        about.append(f"reward.sentence_similarity.scorer.encoder={path('minilm')}")
        subprocess.run([*command, "task=collect_preferences", f"ckpt={mle}", *about, *words], check=True)
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def held_out(folder: Path) -> dict[str, float]:
    """Accuracy and margin of the held-out pairs, and what the chosen captions have lost, at the end of a run."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    last = [row for row in rows if "val/loss" in row][-1]
    return {name: last[f"val/preference/{name}"] for name in ("accuracy", "margin", "chosen_drop")}


def one_seed(runs: Path, seed: int, overrides: list[str]) -> dict[str, Any]:
    words = [f"seed={seed}", *overrides]
    mle = train(runs / f"mle-{seed}", "experiment=stamps_mle", *BASE, *words)
    judged = collect(mle, runs / f"pairs-{seed}.jsonl", [f"seed={seed}"])
    text = TextRetrieval(encoder=path("minilm"))
    found: dict[str, Any] = {"num_pairs": len(judged)}
    folders = {"before": mle}
    for name, rows in (("pairs as ranked", judged), ("sides at random", at_random(judged, seed))):
        file = runs / f"{name.replace(' ', '-')}-{seed}.jsonl"
        write_atomically(file, "".join(json.dumps(row) + "\n" for row in rows))
        inputs = ["experiment=stamps_preferences", f"init_from={mle}", f"pairs={file}"]
        folders[name] = train(file.with_suffix(""), *inputs, *words)
        found[f"held out, {name}"] = held_out(folders[name])
    for name, folder in folders.items():
        rows = sorted(read_rows(folder, "test"), key=lambda row: row["key"])
        found[name] = {"hits": hits(text, rows), "cider": cider(rows)}
    return found


def summarize(seeds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds with intervals over pictures, and paired differences to before."""
    names = ("before", "pairs as ranked", "sides at random")
    means = {name: np.mean([one[name]["hits"] for one in seeds], axis=0) for name in names}
    means |= {f"{name} - before": means[name] - means["before"] for name in names[1:]}
    retrieval = {name: dict(zip(AT, map(interval, values.T), strict=True)) for name, values in means.items()}
    held = {name: [one[f"held out, {name}"] for one in seeds] for name in names[1:]}
    ciders = {name: [one[name]["cider"] for one in seeds] for name in names}
    return {"retrieval": retrieval, "held_out": held, "cider": ciders, "num_pairs": [one["num_pairs"] for one in seeds]}


if __name__ == "__main__":
    write_table("preferences", __doc__, one_seed, summarize)
