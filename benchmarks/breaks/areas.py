"""All planted breaks, by area."""

from benchmarks.breaks import objectives, training
from benchmarks.breaks.planted import Break

AREAS: dict[str, list[Break]] = {
    "objectives": objectives.BREAKS,
    "training": training.BREAKS,
}
