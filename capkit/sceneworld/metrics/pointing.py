"""Whether a captioner looks at what it names, on SceneWorld, where the pixels of every object are known.

S the side of the grid of image tokens, N objects.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from capkit.errors import UsageError
from capkit.sceneworld.language.english import SHAPE_WORDS
from capkit.sceneworld.world.render import masks
from capkit.sceneworld.world.scene import Scene


def pointing(
    words: Sequence[Sequence[str]],
    shares: Sequence[Float[np.ndarray, "_ S S"]],
    scenes: Sequence[Scene],
    nouns: Mapping[str, str] = SHAPE_WORDS,
) -> dict[str, float]:
    """The pointing game of Zhang et al. 2016 (arXiv 1608.00507), of the nouns of captions, in [0, 1].

    - `pointing`: share of the nouns whose strongest cell has its centre on a visible pixel of their object;
    - `pointing_chance`: the same of a cell drawn at random, which is the objects' mean share of the grid's centres;
    - `pointing_others`: share of the nouns whose strongest cell has its centre on another object;
    - `pointing_nouns`: how many nouns were counted. Without any, the others are NaN.

    A noun counts where exactly one object of the scene has its shape: of two circles it is not known which is meant.

    Args:
        words: Of each caption.
        shares: Attention of each word to the cells of its picture, such as `word_attention` gives.
        scenes: What the pictures show, drawn as wide and high as the grid.
        nouns: From a word, in lower case, to the shape that it names: a `Lexicon`'s `shapes`; English.
    """
    if not len(words) == len(shares) == len(scenes):
        raise UsageError(
            f"pointing: expected words, attention and a scene for each caption, got {len(words)}, {len(shares)} and "
            f"{len(scenes)}"
        )
    found: dict[str, list[float]] = {"pointing": [], "pointing_chance": [], "pointing_others": []}
    for said, looks, scene in zip(words, shares, scenes, strict=True):
        shapes = [item.shape for item in scene.objects]
        places = [i for i, word in enumerate(said) if shapes.count(nouns.get(word.lower(), "")) == 1]
        cells = centres_on_objects(scene, looks.shape[-1]) if places else np.zeros(0)
        for place in places:
            cell = np.unravel_index(looks[place].argmax(), looks[place].shape)
            on_object = cells[shapes.index(nouns[said[place].lower()])]
            hits = bool(on_object[cell])
            found["pointing"].append(hits)
            found["pointing_chance"].append(float(on_object.mean()))
            found["pointing_others"].append(bool(cells[:, *cell].any()) and not hits)
    means = {name: float(np.mean(values)) if values else float("nan") for name, values in found.items()}
    return {**means, "pointing_nouns": float(len(found["pointing"]))}


def centres_on_objects(scene: Scene, side: int) -> Bool[np.ndarray, "N S S"]:
    """Whether the centre of each cell of a grid lies on a visible pixel of each object."""
    pixels = side * (2 * (64 // side) + 1)  # odd many a cell, so that one is its middle
    middle = np.arange(side) * (pixels // side) + pixels // side // 2
    return masks(scene, pixels)[:, middle[:, None], middle]
