"""Synthetic memes whose label needs the picture, the text on it and a caption at once.

The label is 1 if an odd number of three conditions hold: the object's colour is warm, which only the picture shows; the
text is unkind; the words are not meant as they are said, which only the informative caption tells. As in the Hateful
Memes challenge (Kiela et al. 2020, arXiv 2005.04790), every picture and every text occur in memes of both labels
("benign confounders"), and here every pair of picture, text and caption does. The text is not drawn into the picture.
"""

from dataclasses import dataclass
from functools import lru_cache

from capkit.sceneworld.language.captions import Detail, caption
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.scene import Scene, draw_scene
from capkit.sceneworld.world.stream import Stream

WARM = ("red", "orange", "yellow", "pink")
COOL = ("green", "cyan", "blue", "purple")
KIND = ("lovely", "great", "nice", "good")
UNKIND = ("ugly", "awful", "nasty", "bad")
_TEXTS = ("so {}", "how {}", "very {}", "{} indeed")
EARNEST = ("earnest", "sincere")
IRONIC = ("ironic", "joking")
PRINTED = ("printed", "short")  # of the caption that tells how the words look
_SAYS = ("{} words", "{} text")
_COLOR = Detail(size=False, inside=False, text=False)
_NO_COLOR = Detail(color=False, size=False, inside=False, text=False)
GROUP = 8  # memes that share two pictures, two texts and two meanings


@dataclass(frozen=True)
class SceneMeme:
    """A picture (its text is not drawn), the text on it, the label, and the candidate captions.

    `informative` is the index of the caption that tells how the words are meant: `meaning`, one of EARNEST and IRONIC.
    The other one tells in the same form how they look. Both name the object's shape.
    """

    scene: Scene
    text: str
    meaning: str
    label: int
    captions: tuple[str, str]
    informative: int


def make_meme(
    seed: int, split: str, index: int, refused: float = 0.0, names_color: bool = False, ironic: float | None = None
) -> SceneMeme:
    """The meme at (seed, split, index), with two candidate captions in random order.

    In a share `refused` of the groups the informative caption is empty, as models refuse to describe hateful pictures.
    With `names_color` the captions name the object's colour too: they fit the picture as captions of the web do, and
    no longer leave a part of the label to it. A meme is ironic with the probability `ironic`.

    Memes 8 g to 8 g + 7 combine two pictures, one warm and one cool, with two texts, one kind and one unkind. Where
    `ironic` is None, they combine them with two meanings too: over complete groups each pair of picture, text and
    meaning then has both labels equally often, so a classifier that lacks one of the three has an AUROC of .5. Splits
    share no pictures.
    """
    group, member = divmod(index, GROUP)
    is_warm, is_unkind, is_ironic = member >> 2 & 1, member >> 1 & 1, member & 1
    pictures, texts, meanings = _group(seed, split, group)
    own = Stream("meme captions", seed, split, index)
    if ironic is not None:
        is_ironic = int(Stream("meme meaning", seed, split, index).chance(ironic))
    scene, meaning = pictures[is_warm], meanings[is_ironic]
    detail = _COLOR if names_color else _NO_COLOR
    said = [
        f"{caption(scene, 'short', detail=detail).text}, {own.choice(_SAYS).format(word)}"
        for word in (meaning, own.choice(PRINTED))
    ]
    is_refused = Stream("meme refusal", seed, split, group).chance(refused)
    captions = ("" if is_refused else said[0], said[1])
    informative = own.below(2)
    return SceneMeme(
        scene,
        texts[is_unkind],
        meaning,
        is_warm ^ is_unkind ^ is_ironic,
        captions if informative == 0 else captions[::-1],
        informative,
    )


@lru_cache(maxsize=10_000)
def _group(seed: int, split: str, group: int) -> tuple[list[Scene], list[str], list[str]]:
    """Two pictures (cool, warm), two texts (kind, unkind), two meanings (earnest, ironic)."""
    stream = Stream("meme", seed, split, group)
    pictures = [draw_scene(_WORLDS[colors], stream, split) for colors in (COOL, WARM)]
    texts = [stream.choice(_TEXTS).format(stream.choice(words)) for words in (KIND, UNKIND)]
    return pictures, texts, [stream.choice(words) for words in (EARNEST, IRONIC)]


_WORLDS = {
    colors: WorldOptions(
        colors=colors,
        sizes=("large",),
        backgrounds=("white", "gray"),
        holdout=(),
        max_objects=1,
        inside_probability=0.0,
    )
    for colors in (COOL, WARM)
}
