"""All planted breaks, by area."""

from benchmarks.breaks import (
    bags,
    clip_reward,
    discritune,
    dual_encoders,
    everyday,
    memes,
    mocha,
    objectives,
    text_towers,
    training,
)
from benchmarks.breaks.planted import Break

AREAS: dict[str, list[Break]] = {
    "bags": bags.BREAKS,
    "clip_reward": clip_reward.BREAKS,
    "discritune": discritune.BREAKS,
    "dual_encoders": dual_encoders.BREAKS,
    "everyday": everyday.BREAKS,
    "memes": memes.BREAKS,
    "mocha": mocha.BREAKS,
    "objectives": objectives.BREAKS,
    "text_towers": text_towers.BREAKS,
    "training": training.BREAKS,
}
