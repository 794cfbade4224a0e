"""Pictures that are copies of each other, resized or compressed anew: found by what is left of them at 16 x 16 pixels.

N pictures, R of them at a time. A set of pictures is a row of N bits.
"""

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image

SIDE = 16
MOST_DIFFERENCE = 24  # levels of 255, of each cell and colour: above what resizing does, below a shape that moved
MOST_MEAN_DIFFERENCE = 4.0  # of the whole picture, by colour: what is compared at all
ASPECT = 0.04  # relative difference of width / height
MOST_PAIRS = 100_000
_NUM = SIDE * SIDE * 3
_STEP = 47  # from one number of a picture to the next that is compared: all of them, and early ones from everywhere
_ROWS, _BLOCK = 8192, 256  # pictures that are compared with all later ones at once: 20 MB of bits for 20,000; 5 MB
_EVERY, _FEW = 16, 200_000  # numbers compared before pairs are counted, and pairs that are looked at one by one


def small_copy(pixels: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "16 16 3"]:
    """The mean colour of each cell of a picture."""
    return np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BOX))


def alike_pairs(copies: UInt8[np.ndarray, "N 16 16 3"], aspects: Float[np.ndarray, " N"]) -> list[tuple[int, int]]:
    """Places of pictures whose cells all differ by at most `MOST_DIFFERENCE`, and whose aspect is the same.

    In order; no more than the first `MOST_PAIRS`.

    Crops, mirror images and pictures with a caption printed on them are not found. Memory and time are bounded whatever
    the pictures show: 20,000 take 4 CPU seconds, and 10 on one bright ground.
    """
    flat = copies.reshape(len(copies), -1)
    means = copies.reshape(len(copies), -1, 3).mean(1)
    found: list[tuple[int, int]] = []
    for first in range(0, len(flat), _ROWS):
        rows = np.arange(first, min(first + _ROWS, len(flat)))
        blocks = range(first, first + len(rows), _BLOCK)
        near = np.concatenate([_about(means, aspects, rows[at - first : at - first + _BLOCK]) for at in blocks])
        for step in range(_NUM):
            if step % _EVERY == 0:
                has_some = near.any(1)
                rows, near = rows[has_some], near[has_some]
                if int(np.bitwise_count(near).sum(dtype=np.int64)) <= _FEW:
                    break
            number = step * _STEP % _NUM
            near &= _within(flat[:, number])[flat[rows, number]]
        for row, bits in zip(rows, near, strict=True):
            others = np.flatnonzero(np.unpackbits(bits, count=len(flat)))
            others = others[(np.abs(flat[others].astype(np.int16) - flat[row]) <= MOST_DIFFERENCE).all(1)]
            found += [(int(row), int(other)) for other in others]
            if len(found) >= MOST_PAIRS:
                return found[:MOST_PAIRS]
    return found


def _about(
    means: Float[np.ndarray, "N 3"], aspects: Float[np.ndarray, " N"], rows: Int[np.ndarray, " R"]
) -> UInt8[np.ndarray, "R bytes"]:
    """For each of `rows`, the later pictures of about its mean colour and its aspect."""
    is_about: Bool[np.ndarray, "R N"] = np.arange(len(means)) > rows[:, None]
    for colour in means.T:
        is_about &= np.abs(colour - colour[rows, None]) <= MOST_MEAN_DIFFERENCE
    is_about &= np.abs(aspects / aspects[rows, None] - 1) <= ASPECT
    return np.packbits(is_about, axis=1)


def _within(values: UInt8[np.ndarray, " N"]) -> UInt8[np.ndarray, "256 bytes"]:
    """For each level 0 to 255, the pictures whose value is at most `MOST_DIFFERENCE` from it."""
    up_to = np.packbits(values <= np.arange(256, dtype=np.uint8)[:, None], axis=1)
    found = up_to[np.minimum(np.arange(256) + MOST_DIFFERENCE, 255)]
    found[MOST_DIFFERENCE + 1 :] &= ~up_to[: 255 - MOST_DIFFERENCE]
    return found
