"""Where the patch lies that is most like a region's text, with an encoder that sees the colour of each patch."""

import numpy as np
import pytest
import torch

from capkit.data.images import BadImage
from capkit.data.records import Record, Region
from capkit.data.transforms import ImageTransform
from capkit.errors import UsageError
from capkit.evaluators.pointing import Pointing

COLORS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


class ColorEncoder:
    """Pictures of 8 x 8 in patches of 2 x 2; a patch's embedding is its mean colour, a text's the colour it names."""

    name, prompt, max_length = "colors", "", 9

    def __init__(self, resize="squash", side=4):
        self.transform, self.side = ImageTransform(8, (0, 0, 0), (1, 1, 1), resize=resize), side

    def preprocess(self, images):
        return torch.stack([self.transform(np.ascontiguousarray(image)) for image in images]).float()

    def encode_image(self, pixels):
        return torch.nn.functional.normalize(pixels.mean((2, 3)), dim=-1)

    def encode_patches(self, pixels):
        cells = torch.nn.functional.adaptive_avg_pool2d(pixels, self.side).flatten(2).mT
        return torch.nn.functional.normalize(cells, dim=-1)

    def encode_text(self, texts):
        return torch.tensor([COLORS[text.split()[0]] for text in texts]).float() / 255

    def to(self, device):
        return self

    def fingerprint_fields(self, side):
        return {"side": side, "weights": "colors"}


def picture(*squares, size=(8, 8)):
    """Grey, with squares of (colour, top, left, height, width)."""
    pixels = np.full((*size, 3), 60, np.uint8)
    for color, top, left, height, width in squares:
        pixels[top : top + height, left : left + width] = COLORS[color]
    return pixels


class Pictures:
    def __init__(self, *rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def record(self, index):
        return Record(str(index), regions=[Region(box, text) for text, box in self.rows[index][1]])

    def image(self, index):
        if self.rows[index][0] is None:
            raise BadImage("it is cut off")
        return self.rows[index][0]


LEFT_TOP, RIGHT_HALF = (0.0, 0.0, 0.25, 0.25), (0.5, 0.0, 1.0, 1.0)
TWO = picture(("red", 0, 0, 2, 2), ("blue", 0, 4, 8, 4))


@pytest.fixture
def pointed(data_of, tmp_path):
    def of(*rows, encoder=None, max_skipped=0, **options):
        data = data_of(test=Pictures(*rows), max_skipped=max_skipped)
        return Pointing(**options)(encoder or ColorEncoder(), data, tmp_path)

    return of


def test_a_region_is_found_or_missed_and_the_chance_is_its_share_of_patches(pointed, rows_in, tmp_path):
    numbers = pointed((TWO, [("red", LEFT_TOP), ("blue", RIGHT_HALF), ("blue square", LEFT_TOP)]))
    # 1 of 16 patches, 8 of 16, 1 of 16; the last text's patch lies in another region
    assert numbers["pointing_accuracy"] == pytest.approx(2 / 3) and numbers["pointing_regions"] == 3
    assert numbers["pointing_chance"] == pytest.approx((1 + 8 + 1) / 16 / 3)
    assert (numbers["pointing_accuracy_large"], numbers["pointing_chance_large"]) == (1, 0.5)
    red, blue, wrong = rows_in(tmp_path / "pointing.jsonl")
    assert (red["cell"], red["hit"], blue["cell"][1] >= 2, wrong["hit"]) == ([0, 0], True, True, False)


def test_weights_in_the_box_are_counted(pointed):
    # Blue: cosines 1 on its 8 patches, 0 on red, 1/sqrt(3) on the 7 grey ones; scaled they stay.
    numbers = pointed((TWO, [("blue", RIGHT_HALF)]))
    assert numbers["pointing_mass"] == pytest.approx(8 / (8 + 7 / 3**0.5), abs=1e-5)
    assert pointed((TWO, [("blue", RIGHT_HALF)]), sigma=0.9)["pointing_mass"] == pytest.approx(1)


def test_either_of_two_regions_with_one_text_will_do(pointed):
    two = picture(("red", 0, 0, 2, 2), ("red", 6, 6, 2, 2))
    boxes = [LEFT_TOP, (0.75, 0.75, 1.0, 1.0)]
    numbers = pointed((two, [("red", box) for box in boxes]))
    assert numbers["pointing_accuracy"] == 1 and numbers["pointing_chance"] == pytest.approx(2 / 16)


def test_boxes_are_where_the_encoder_sees_them(pointed):
    """Of a picture twice as wide as high the middle square is seen, in which the left quarter of it is nothing."""
    wide = picture(("red", 0, 4, 2, 2), ("blue", 0, 0, 8, 4), size=(8, 16))
    regions = [("red", (0.25, 0.0, 0.375, 0.25)), ("blue", (0.0, 0.0, 0.25, 1.0))]
    numbers = pointed((wide, regions), encoder=ColorEncoder(resize="crop"))
    assert numbers["pointing_regions"] == 1 and numbers["pointing_accuracy"] == 1
    assert numbers["pointing_chance"] == pytest.approx(1 / 16)


def test_an_unreadable_picture_is_left_out_within_the_budget(pointed):
    rows = [(TWO, [("red", LEFT_TOP)]), (None, [("red", LEFT_TOP)])]
    assert pointed(*rows, max_skipped=1)["pointing_regions"] == 1
    with pytest.raises(UsageError, match="skipped"):
        pointed(*rows)


def test_what_it_needs(pointed):
    with pytest.raises(UsageError, match=r"expected regions with texts, got none in 1 pictures; give a manifest"):
        pointed((TWO, []))
    with pytest.raises(UsageError, match="expected patches in a square grid, got 6"):
        pointed((TWO, [("red", LEFT_TOP)]), encoder=ColorEncoder(side=(2, 3)))
    blind = ColorEncoder()
    blind.transform = None
    with pytest.raises(UsageError, match=r"expected an encoder with patches and with model\.transform"):
        pointed((TWO, [("red", LEFT_TOP)]), encoder=blind)
