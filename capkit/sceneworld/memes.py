"""Synthetic memes whose label depends on picture and text together and on neither alone.

As in the Hateful Memes challenge (Kiela et al. 2020, arXiv 2005.04790), every text occurs on a picture that makes it
hateful and on one that does not ("benign confounder"). Here the label is 1 if exactly one of two conditions holds: the
object's colour is warm; the text is unkind. The text is not drawn into the picture, which would then suffice alone.
"""

from dataclasses import dataclass

from capkit.sceneworld.language.captions import Detail, caption
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.scene import Scene, draw_scene
from capkit.sceneworld.world.stream import Stream

WARM = ("red", "orange", "yellow", "pink")
COOL = ("green", "cyan", "blue", "purple")
KIND = ("lovely", "great", "welcome", "nice", "sweet", "good", "brave", "dear")
UNKIND = ("ugly", "awful", "unwanted", "nasty", "bad", "cruel", "vile", "mean")
_TEXTS = (
    "this is {}", "so {} today", "we find it {}", "everyone says {}", "look how {}", "how {} of them", "{} as always",
    "that {} thing again",
)  # fmt: skip
_SAYS_COLOR = Detail(size=False, inside=False, text=False)
_GENERIC = Detail(color=False, size=False, inside=False, text=False)
GROUP = 4  # memes that share two pictures and two texts
_VARIANTS = (0, 2, 3)  # the variants of style short that differ for a single object


@dataclass(frozen=True)
class SceneMeme:
    """A picture (its text is not drawn), the text on it, the label, and the candidate captions.

    `informative` is the index of the caption that names the object's colour and repeats the text, as CAMU's prompt
    demands; the other one is generic and only mentions a shape with words.
    """

    scene: Scene
    text: str
    label: int
    captions: tuple[str, str]
    informative: int


def make_meme(seed: int, split: str, index: int, refused: float = 0.0) -> SceneMeme:
    """The meme at (seed, split, index), with two candidate captions in random order.

    In a share `refused` of the groups the informative caption is empty, as models refuse to describe hateful pictures.

    Memes 4 g to 4 g + 3 combine two pictures, one warm and one cool, with two texts, one kind and one unkind. Over
    complete groups each picture and each text has both labels equally often, so a classifier of one of them alone has
    an AUROC of exactly .5. Splits share no pictures.
    """
    group, member = divmod(index, GROUP)
    is_warm, is_unkind = divmod(member, 2)
    stream = Stream("meme", seed, split, group)
    scenes = [draw_scene(_world(colors), stream, split) for colors in (COOL, WARM)]
    texts = [stream.choice(_TEXTS).format(stream.choice(words)) for words in (KIND, UNKIND)]
    scene = scenes[is_warm]
    own = Stream("meme captions", seed, split, index)
    text = texts[is_unkind]
    said = [caption(scene, "short", own.choice(_VARIANTS), detail=detail).text for detail in (_SAYS_COLOR, _GENERIC)]
    is_refused = Stream("meme refusal", seed, split, group).chance(refused)
    captions = ("" if is_refused else f"{said[0]} with the words {text}", f"{said[1]} with words on it")
    informative = own.below(2)
    return SceneMeme(
        scene, text, int(is_warm != is_unkind), captions if informative == 0 else captions[::-1], informative
    )


def _world(colors: tuple[str, ...]) -> WorldOptions:
    return WorldOptions(colors=colors, holdout=(), max_objects=1, inside_probability=0.0)
