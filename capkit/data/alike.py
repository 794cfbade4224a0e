"""Pictures that are copies of each other, resized or compressed anew: found by what is left of them at 16 x 16 pixels.

N pictures.
"""

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

SIDE = 16
MOST_DIFFERENCE = 24  # levels of 255, of each cell and colour: above what resizing does, below a shape that moved
MOST_MEAN_DIFFERENCE = 4.0  # of the whole picture, by colour: what is compared at all
ASPECT = 0.04  # relative difference of width / height
_COARSE = 47  # every 47th of 768 numbers: cells and colours from everywhere


def small_copy(pixels: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "16 16 3"]:
    """The mean colour of each cell of a picture."""
    return np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BOX))


def alike_pairs(copies: UInt8[np.ndarray, "N 16 16 3"], aspects: Float[np.ndarray, " N"]) -> list[tuple[int, int]]:
    """Places of pictures whose cells all differ by at most `MOST_DIFFERENCE`, and whose aspect is the same.

    Crops, mirror images and pictures with a caption printed on them are not found. Time grows with the number of
    pairs of about the same mean colour.
    """
    flat = copies.reshape(len(copies), -1).astype(np.int16)
    means = copies.reshape(len(copies), -1, 3).mean(1)
    order = np.argsort(means[:, 0], kind="stable")
    ends = np.searchsorted(means[order, 0], means[order, 0] + MOST_MEAN_DIFFERENCE, side="right")
    found = []
    for place, (first, end) in enumerate(zip(order, ends, strict=True)):
        others = order[place + 1 : end]
        others = others[(np.abs(means[others] - means[first]) <= MOST_MEAN_DIFFERENCE).all(1)]
        others = others[np.abs(aspects[others] / aspects[first] - 1) <= ASPECT]
        for step in (_COARSE, 1):  # some of the cells first: they tell most pictures apart
            others = others[(np.abs(flat[others, ::step] - flat[first, ::step]) <= MOST_DIFFERENCE).all(1)]
        found += [(min(first, other), max(first, other)) for other in others]
    return sorted((int(first), int(other)) for first, other in found)
