"""Text in pictures, by RapidOCR: PP-OCR's detector and reader on ONNX Runtime. Its models lie in its wheel."""

import importlib.metadata
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from typing import Any

import numpy as np

from capkit.errors import UsageError
from capkit.experts.base import Finding
from capkit.llm.base import Picture
from capkit.utils.ranges import PositiveInt, Probability, ThreadCount, check_ranges

_NAME = "rapidocr"


@check_ranges
class RapidOCR:
    """Lines of text with their boxes (the upright ones around RapidOCR's quadrilaterals) and the reader's scores.

    Pictures are read one by one on the CPU, by `threads` threads. Lines with a score below `min_score` are left out, as
    are the reader's empty ones. A picture whose shorter side has fewer than `min_side` pixels is enlarged to it first,
    since the detector overlooks small letters. Lines are read as they stand: RapidOCR's classifier of upside-down lines
    is off, since it turns words such as SUN, which is then read as NNS.

    Raises UsageError without the package; the extra `capkit[ocr]` installs it, models included.
    """

    def __init__(
        self, min_score: Probability = 0.3, min_side: PositiveInt = 64, threads: ThreadCount | None = None
    ) -> None:
        missing = [name for name in (_NAME, "onnxruntime") if find_spec(name) is None]
        if missing:
            raise UsageError(f"expert=ocr needs {' and '.join(missing)}, got none; pip install 'capkit[ocr]'")
        self._min_score, self._min_side, self._threads = float(min_score), min_side, threads

    def about(self) -> dict[str, Any]:
        settings = {"min_score": self._min_score, "min_side": self._min_side, "use_cls": False}
        return {"model": _NAME, "revision": importlib.metadata.version(_NAME), **settings}

    def look(self, pictures: Sequence[Picture]) -> list[list[Finding]]:
        return [self._lines(picture.pixels) for picture in pictures]

    @cached_property
    def _engine(self) -> Any:
        from rapidocr import RapidOCR as Engine

        threads = {} if self._threads is None else {"EngineConfig.onnxruntime.intra_op_num_threads": self._threads}
        settings = {"Global.log_level": "error", "Global.use_cls": False, "Global.text_score": self._min_score}
        return Engine(params={**settings, **threads})

    def _lines(self, pixels: np.ndarray) -> list[Finding]:
        import cv2

        scale = max(1.0, self._min_side / min(pixels.shape[:2]))
        image = np.ascontiguousarray(pixels[:, :, ::-1])  # BGR, as OpenCV reads files
        if scale > 1:
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        result = self._engine(image)
        if result.txts is None:
            return []
        height, width = image.shape[:2]
        corners = np.asarray(result.boxes, dtype=np.float64) / (width, height)  # (n 4 2)
        low, high = corners.min(1).clip(0, 1).tolist(), corners.max(1).clip(0, 1).tolist()
        return [
            Finding("text", text.strip(), (x0, y0, x1, y1), float(score), _NAME)
            for text, score, (x0, y0), (x1, y1) in zip(result.txts, result.scores, low, high, strict=True)
            if text.strip()
        ]
