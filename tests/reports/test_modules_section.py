"""The report's part about modules: weights by class over training, and captions by the module of each word."""

import numpy as np

from capkit.data.datamodule import CaptionDataModule
from capkit.data.transforms import ImageTransform
from capkit.reports.modules import COLOUR, _weights, modules_section
from capkit.text.word_classes import MODULES

WORDS = [
    {"word": "a", "weights": [0.9, 0.1, 0.0, 0.0]},
    {"word": "<red>", "weights": [0.0, 0.1, 0.0, 0.9], "region": 1},
    {"word": "ball", "weights": [0.0, 0.8, 0.1, 0.1], "cell": [0.25, 0.5, 0.5, 0.75]},
    {"word": "near", "weights": [0.0, 0.2, 0.7, 0.1], "region": 7},
]
PICTURE = np.zeros((4, 6, 3), np.uint8)


def boxes(key):
    assert key == "k"
    return [((0.0, 0.0, 0.5, 0.5), "square"), ((0.5, 0.0, 1.0, 0.5), "ball & chain")]


in_picture = CaptionDataModule(transform=ImageTransform(8, resize="crop")).in_picture  # of 6 columns the middle 4


def logged(step, **shares):
    """Of words of objects, half of the batch; the other classes have none."""
    row = {"step": step} | {f"train/modules/{name}/{module}": 0.0 for name in MODULES for module in MODULES}
    return row | {f"train/modules/object/{module}": 0.5 * share for module, share in shares.items()}


def test_words_have_their_modules_colour_and_what_they_looked_at():
    page = modules_section([], [({"key": "k", "modules": WORDS}, PICTURE)], boxes, in_picture)
    assert f"<span style='color:{COLOUR['function']}'>a</span>" in page
    assert f"<span style='color:{COLOUR['attribute']}'>&lt;red&gt;</span>" in page and "ball &amp; chain" in page
    red = f"left:50.0%;top:0.0%;width:50.0%;height:50.0%;border-color:{COLOUR['attribute']}"
    ball = f"left:33.3%;top:50.0%;width:16.7%;height:25.0%;border-color:{COLOUR['object']}"
    assert red in page and ball in page and "region 8" in page
    assert page.count("<img") == 3  # a function word looks at nothing
    assert "title='function 0.00, object 0.10, relation 0.00, attribute 0.90'" in page


def test_charts_show_the_mean_weight_of_a_class_and_leave_out_steps_without_its_words():
    rows = [logged(step, object=0.25 + step / 100, function=0.75 - step / 100) for step in (0, 50)]
    page = modules_section(rows, [({"key": "k", "modules": WORDS}, PICTURE)], boxes, in_picture)
    assert page.count("<svg") == 1 and "weights at words of object" in page
    weights = _weights(rows, "object")
    assert weights["object"] == [(0, 0.25), (50, 0.75)] and weights["function"] == [(0, 0.75), (50, 0.25)]
    assert _weights(rows, "relation") == {module: [] for module in MODULES}


def test_other_captioners_have_no_such_part():
    assert modules_section([], [({"key": "k", "caption": "a"}, PICTURE)], boxes, in_picture) == ""
