"""Boxes against rasterised ones: a box is drawn as a picture, transformed as pictures are, and found again in pixels.

The transform of the pixels was there before and knows nothing of boxes.
"""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from capkit.data.placement import Placement
from capkit.data.transforms import ImageTransform

SIZE = 48
PICTURES = [(96, 96), (96, 144), (160, 96), (40, 64)]  # height, width; the last is enlarged
AUGMENTS = [None, "flip", "crop", ["crop", "flip"]]
OPTIONS = list(itertools.product(["squash", "crop", "pad"], AUGMENTS, [None, 60]))


def drawn(height, width, box):
    """A black picture in which the box is white, and the box that whole pixels give it."""
    x0, x1 = (round(edge * width) for edge in (box[0], box[2]))
    y0, y1 = (round(edge * height) for edge in (box[1], box[3]))
    picture = np.zeros((height, width, 3), np.uint8)
    picture[y0:y1, x0:x1] = 255
    return picture, (x0 / width, y0 / height, x1 / width, y1 / height)


def found_box(pixels):
    """The edges of what is white, in pixels of the square; None if nothing is."""
    rows, columns = np.nonzero(pixels[0].numpy() > 127)
    return None if not len(rows) else np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def boxes(count):
    random = np.random.default_rng(0)
    for _ in range(count):
        x, y = np.sort(random.uniform(0, 1, 2)), np.sort(random.uniform(0, 1, 2))
        if x[1] - x[0] > 0.1 and y[1] - y[0] > 0.1:
            yield (x[0], y[0], x[1], y[1])


def agreement(transform, scale=1, place=lambda placed: placed):
    """Of boxes in pictures of many sizes: how many were compared, and the largest error of an edge, in pixels.

    `scale`: pictures reach the transform at 1 / scale of their height and width, as a decoder gives them.
    """
    compared, errors = 0, [0.0]
    for number, ((height, width), box) in enumerate(itertools.product(PICTURES, boxes(16))):
        key = (0, 0, number)
        picture, exact = drawn(height, width, box)
        if scale > 1:
            means = picture.reshape(height // scale, scale, width // scale, scale, 3).mean((1, 3))
            picture = means.round().astype(np.uint8)
        placed = place(transform.placement(height, width, key))
        pixels = transform(picture, key, (height, width), 1 / scale)
        if "pad" in transform.resize:  # borders are white as the box is: paint them black
            pixels = pixels.clone()
            seen = placed.box((0.0, 0.0, 1.0, 1.0))
            inside = np.zeros((SIZE, SIZE), bool)
            if seen is not None:
                x0, y0, x1, y1 = (round(edge * SIZE) for edge in seen)
                inside[y0:y1, x0:x1] = True
            pixels[:, ~inside] = 0
        wanted, got = found_box(pixels), placed.box(exact)
        if wanted is None or got is None or (wanted[2:] - wanted[:2]).min() < 2:
            # What is less than two pixels wide may be lost between two of them, and nothing else is.
            sides = np.zeros(2) if got is None else (np.array(got[2:]) - np.array(got[:2])) * SIZE
            assert sides.min() < 3 and (wanted is None or (wanted[2:] - wanted[:2]).min() < 3)
            continue
        compared += 1
        errors.append(float(np.abs(np.array(got) * SIZE - wanted).max()))
    return compared, max(errors)


@pytest.mark.parametrize(("resize", "augment", "crop_from"), OPTIONS)
def test_boxes_lie_where_the_transform_puts_what_they_hold(resize, augment, crop_from):
    """Within a pixel of the square, under every option. Control: a placement that is mirrored the other way round."""
    transform = ImageTransform(SIZE, resize=resize, augment=augment, crop_from=crop_from)
    compared, error = agreement(transform)
    assert compared > 20 and error <= 1.0

    def unlike(placed):
        fields = {name: getattr(placed, name) for name in placed.__dataclass_fields__}
        return Placement(**(fields | {"mirrored": not placed.mirrored}))

    if resize != "pad":  # its borders are found by the placement itself
        assert agreement(transform, place=unlike)[1] > 1.0


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize(("resize", "augment", "crop_from"), OPTIONS)
def test_boxes_of_a_picture_that_was_decoded_at_a_reduced_size_lie_there_too(resize, augment, crop_from, scale):
    """An edge may fall within one of the picture's reduced pixels, which is up to two of the square's: one more."""
    transform = ImageTransform(SIZE, resize=resize, augment=augment, crop_from=crop_from)
    compared, error = agreement(transform, scale)
    assert compared > 16 and error <= 2.0 + (scale == 4)


def test_boxes_by_hand():
    """A picture of 100 x 200 to 50 x 50: the middle square is columns 50 to 150, half of its pixels each."""
    crop = ImageTransform(50, resize="crop").placement(100, 200)
    assert crop.box((0.25, 0.0, 0.5, 1.0)) == (0.0, 0.0, 0.5, 1.0)
    assert crop.box((0.0, 0.0, 0.5, 1.0)) == (0.0, 0.0, 0.5, 1.0)  # cut at column 50
    assert crop.box((0.0, 0.0, 0.25, 1.0)) is None
    pad = ImageTransform(50, resize="pad").placement(100, 200)  # 25 rows, the first at row 12
    assert pad.box((0.0, 0.0, 1.0, 1.0)) == (0.0, 12 / 50, 1.0, 37 / 50)
    assert ImageTransform(50).placement(100, 200).box((0.1, 0.2, 0.3, 0.4)) == pytest.approx((0.1, 0.2, 0.3, 0.4))


def test_boxes_of_the_square_by_hand():
    crop = ImageTransform(50, resize="crop").placement(100, 200)
    assert crop.back((0.0, 0.0, 0.5, 1.0)) == (0.25, 0.0, 0.5, 1.0)
    assert replace(crop, mirrored=True).back((0.0, 0.0, 0.5, 1.0)) == (0.5, 0.0, 0.75, 1.0)
    pad = ImageTransform(50, resize="pad").placement(100, 200)
    assert pad.back((0.5, 0.0, 1.0, 37 / 50)) == (0.5, 0.0, 1.0, 1.0)
    assert pad.back((0.0, 0.0, 1.0, 0.2)) == (0.0, 0.0, 1.0, 0.0)  # the border above


@pytest.mark.parametrize(("resize", "augment", "crop_from"), OPTIONS)
def test_what_is_seen_of_a_box_comes_back(resize, augment, crop_from):
    transform = ImageTransform(SIZE, resize=resize, augment=augment, crop_from=crop_from)
    for number, ((height, width), box) in enumerate(itertools.product(PICTURES, boxes(16))):
        placed = transform.placement(height, width, (0, 0, number))
        seen = placed.box(box)
        if seen is not None:
            back = placed.back(seen)
            assert placed.box(back) == pytest.approx(seen)
            assert back == pytest.approx((*np.maximum(back[:2], box[:2]), *np.minimum(back[2:], box[2:])))


def test_a_region_counts_as_removed_by_the_share_of_its_area_that_is_left():
    crop = ImageTransform(50, resize="crop").placement(100, 200)
    half = (0.2, 0.1, 0.3, 0.9)  # columns 40 to 60: half of them are seen
    assert crop.box(half, 0.49) == pytest.approx((0.0, 0.1, 0.1, 0.9)) and crop.box(half, 0.51) is None


def test_mirroring_twice_is_nothing():
    transform = ImageTransform(50, augment="flip")
    mirrored = next(placed for i in range(99) if (placed := transform.placement(100, 200, (0, 0, i))).mirrored)
    box = (0.125, 0.25, 0.5, 0.75)
    assert mirrored.box(box) == (0.5, 0.25, 0.875, 0.75) and mirrored.box(mirrored.box(box)) == box
