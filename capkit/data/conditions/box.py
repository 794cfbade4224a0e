"""The box of the region that a caption describes."""

from capkit.data.placement import Box
from capkit.data.records import Record
from capkit.data.targets import Target


class RegionBox:
    """(x0, y0, x1, y1) in [0, 1] of the picture as the model sees it; none of a caption of the whole picture."""

    value_shape: tuple[int, ...] = (4,)

    def __call__(self, record: Record, target: Target) -> Box | None:
        return target.box
