"""Pairs of what a captioner of SceneWorld says itself, by the share and by the number of true claims.

The effects of DPO and of FeedQuill start from them, and `benchmarks.random_sides`. The captioner names an object that
is not there in most captions and leaves half of the colours out (experiment=hallucinating_mle_sceneworld).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from capkit.utils.rng import generator

NUM_PICTURES = "data.train.source.count=100"
WORLD = ["data=sceneworld_hallucinated", NUM_PICTURES]
CRITERIA = ("true_claims", "num_true_claims")

Row = dict[str, Any]


def collecting(start: Path | str, seed: int, out: Path | str) -> list[str]:
    """The command line that writes some 200 pairs of the captions of `start`."""
    return [
        "task=collect_preferences", f"ckpt={start}", *WORLD, f"seed={seed}", f"reward=[{','.join(CRITERIA)}]",
        "decomposer=scene", "verifier=scene", "verifier.by=picture", "num_samples=8", "margins={num_true_claims: 1}",
        f"out={out}",
    ]  # fmt: skip


def exchanged(row: Row) -> Row:
    """The pair with its sides the other way round."""
    sides = {"chosen": row["rejected"], "rejected": row["chosen"]}
    return {**row, **sides, **{name: row[name][::-1] for name in ("scores", "tokens")}}


def at_random(rows: Sequence[Row], seed: int) -> list[Row]:
    """The pairs with sides that are drawn: they prefer nothing."""
    draws = generator(seed, "sides").random(len(rows))
    return [exchanged(row) if draw < 0.5 else row for row, draw in zip(rows, draws, strict=True)]
