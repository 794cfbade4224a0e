import importlib.util

import numpy as np
import pytest

from capkit.config.extras import needs
from capkit.errors import UsageError
from capkit.experts import rapid_ocr
from capkit.experts.base import Expert
from capkit.experts.rapid_ocr import RapidOCR
from capkit.llm.base import Picture
from capkit.sceneworld.world.glyphs import draw_word

installed = importlib.util.find_spec("rapidocr") is not None
needs_ocr = pytest.mark.skipif(not installed, reason="needs capkit[ocr]")


def page(word, top, left, height=120, width=300, scale=6):
    """White, with the word in black capitals; and its box."""
    drawn = draw_word(word, scale)
    pixels = np.full((height, width, 3), 255, np.uint8)
    pixels[top : top + drawn.shape[0], left : left + drawn.shape[1]][drawn] = 0
    box = (left / width, top / height, (left + drawn.shape[1]) / width, (top + drawn.shape[0]) / height)
    return Picture(pixels), box


def test_without_the_package_the_error_has_the_line_that_installs_it(monkeypatch):
    monkeypatch.setattr(rapid_ocr, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs rapidocr and onnxruntime.*pip install 'capkit\[ocr\]'"):
        RapidOCR()


def test_the_config_says_so_before_anything_is_read(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None)
    config = {"expert": {"ocr": {"_target_": "capkit.experts.rapid_ocr.RapidOCR"}}}
    ((wanted_by, need),) = needs(config, "curate")
    assert wanted_by == "expert.ocr (RapidOCR)" and need.install == "capkit[ocr]"


@needs_ocr
@pytest.mark.nightly
def test_a_word_is_read_where_it_stands_in_small_and_large_pictures():
    ocr = RapidOCR(threads=1)
    assert isinstance(ocr, Expert)
    (picture, box), (small, _) = page("sun", 40, 150), page("42", 12, 10, 32, 32, 1)
    blank = Picture(np.full((60, 80, 3), 255, np.uint8))
    (found,), nothing, (tiny,) = ocr.look([picture, blank, small])
    assert (found.kind, found.text, found.expert, nothing) == ("text", "SUN", "rapidocr", [])
    (x0, y0, x1, y1), (left, top, right, bottom) = found.box, box
    assert (x0, x1) == pytest.approx((left, right), abs=0.08) and 0.5 < found.score <= 1
    assert y0 < top < bottom < y1 and (y0 + y1) / 2 == pytest.approx((top + bottom) / 2, abs=0.03), (
        "a line's box is high"
    )
    assert tiny.text == "42"
    assert ocr.look([picture]) == [[found]], "a picture's texts are those it has alone"


@needs_ocr
def test_another_setting_is_another_expert():
    assert len({str(RapidOCR(min_score=score).about()) for score in (0.3, 0.5)}) == 2
