"""Section guided: greedy captions with guidance beside plain ones, image encoder included. Wanted: 2.1 times at most.

Both readings of an image are rows of one forward pass, so that guidance costs less than twice where a pass waits for
the host or for weights, and about twice where it computes. Plain decoding is `capkit`, which the ratio refers to.
"""

from benchmarks.speed import rollout
from benchmarks.speed.measure import Side, in_turn
from benchmarks.speed.rollout import FULL, TINY, Row, capkit_side
from capkit.decoding.config import Decoding
from capkit.decoding.guide import Guide

BATCHES = (1, 32, 128)
MODELS = ("encoder_decoder", "clip_prefix")


def rows(tiny: bool) -> list[Row]:
    if tiny:
        return [Row(model, 2, 1, length=4) for model in MODELS]
    return [Row(model, images, 1) for model in MODELS for images in BATCHES]


def measure(row: rollout.Row, tiny: bool, device: str, rounds: int, with_static: bool) -> list[Side]:
    size = TINY if tiny else FULL
    length = {"max_length": row.length, "min_length": row.length - 1}  # all captions have all their tokens
    sides = {
        name: capkit_side(row, size, device, Decoding(guide=guide, **length))[0]  # type: ignore[arg-type]
        for name, guide in (("capkit", None), ("capkit, guided", Guide(1.5)))
    }
    return in_turn(sides, rounds, device)
