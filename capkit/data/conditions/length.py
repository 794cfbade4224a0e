"""The number of words of a caption."""

from capkit.data.records import Record
from capkit.data.targets import Target


class CaptionLength:
    """Words between spaces, of the caption as the model sees it."""

    value_shape: tuple[int, ...] = ()

    def __call__(self, record: Record, target: Target) -> float:
        return float(len(target.text.split()))
