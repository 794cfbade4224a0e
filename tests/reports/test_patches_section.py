"""The report's part about grouped patches: both losses, how many texts a picture has, and where texts look."""

import base64
import io
import re

import numpy as np
from PIL import Image

from capkit.reports.patches import Looked, TextsDrawn, patches_section

PICTURE = np.full((8, 8, 3), 255, np.uint8)
ROWS = [
    {"step": step, "train/captions/loss": 3.0 / step, "train/grouping/loss": 2.0 / step, "train/grouping/accuracy": 0.5}
    for step in (1, 2)
]


def pictures(page):
    urls = re.findall(r"src='data:image/png;base64,([^']+)'", page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(url))).convert("RGB")).astype(int) for url in urls]


def test_a_text_is_red_where_its_weights_are():
    weights = np.array([[0.0, 0.0], [0.25, 0.75]], np.float32)
    page = patches_section(ROWS, [Looked("a<b", PICTURE, [("a <red> ball", weights)])], None)
    assert "a &lt;red&gt; ball" in page and "a&lt;b" in page
    whole, looked = pictures(page)
    assert (whole == 255).all()
    redness = looked[..., 0] - looked[..., 1]
    cells = [redness[24 + 48 * row, 24 + 48 * column] for row in (0, 1) for column in (0, 1)]
    assert cells[0] == cells[1] == 0 < cells[2] < cells[3]


def test_both_terms_are_drawn_over_training_and_texts_are_counted():
    page = patches_section(ROWS, [], TextsDrawn(count=4, available=[1, 9, 3, 4]))
    assert "loss of each term" in page and ">captions<" in page and ">grouping<" in page
    assert "draws 4 texts of a picture. Of 4 training pictures 2 have fewer different ones" in page
    all_different = patches_section(ROWS, [], TextsDrawn(count=4, available=[4, 9]))
    assert "draws 4 texts of a picture. All of 2 have as many different ones." in all_different
    assert "the mean is 3.00" in page and "<figure>" not in page


def test_runs_without_grouped_patches_have_no_such_part():
    rows = [{"step": 1, "train/captions/loss": 1.0}]
    assert patches_section(rows, [Looked("a", PICTURE, [])], None) == ""
