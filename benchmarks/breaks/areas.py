"""All planted breaks, by area."""

from benchmarks.breaks import (
    align,
    bags,
    clip_reward,
    data_path,
    discritune,
    dual_encoders,
    everyday,
    guidance,
    memes,
    mocha,
    objectives,
    speed,
    text_towers,
    training,
)
from benchmarks.breaks.planted import Break

AREAS: dict[str, list[Break]] = {
    "align": align.BREAKS,
    "bags": bags.BREAKS,
    "clip_reward": clip_reward.BREAKS,
    "data_path": data_path.BREAKS,
    "discritune": discritune.BREAKS,
    "dual_encoders": dual_encoders.BREAKS,
    "everyday": everyday.BREAKS,
    "guidance": guidance.BREAKS,
    "memes": memes.BREAKS,
    "mocha": mocha.BREAKS,
    "objectives": objectives.BREAKS,
    "speed": speed.BREAKS,
    "text_towers": text_towers.BREAKS,
    "training": training.BREAKS,
}
