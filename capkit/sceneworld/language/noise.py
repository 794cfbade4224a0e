"""Noisy captions like web alt-text: dropped or wrong attributes, swapped letters, boilerplate, unrelated text."""

from capkit.sceneworld.language import facts as fact
from capkit.sceneworld.world.options import COLORS, SHAPES, SIZES
from capkit.sceneworld.world.scene import Scene, SceneObject, scene_hash
from capkit.sceneworld.world.stream import Stream

_UNRELATED = (
    "img_{}.jpg", "best price free shipping", "click here to enlarge", "untitled {}", "dsc{} copy",
    "welcome to my blog", "summer sale up to {} percent off", "happy birthday grandma", "page {}", "how we met",
)  # fmt: skip
_PREFIXES = ("stock photo", "vector clipart", "hd wallpaper", "buy now", "new", "img_{}")
_SUFFIXES = ("free download", "shutterstock {}", "for sale", "pinterest", "| my shop", "hq")
_UNRELATED_SHARE, _DROP_OBJECT, _DROP_ATTRIBUTE, _WRONG, _GARBLED, _BOILERPLATE = 0.2, 0.3, 0.6, 0.1, 0.05, 0.4

NoisyText = tuple[str, tuple[str, ...]]


def noisy_caption(scene: Scene, variant: int, seed: int, num_objects: int | None, color: bool, size: bool) -> NoisyText:
    """Noisy text and the facts, true or false, that its readable words state; seeded by scene, variant and seed."""
    stream = Stream("noise", scene_hash(scene), variant, seed)
    if stream.chance(_UNRELATED_SHARE):
        return boilerplate(stream), ()
    facts: list[str] = []
    parts: list[str] = []
    for i, item in enumerate(scene.objects[:num_objects]):
        if not parts or not stream.chance(_DROP_OBJECT):
            parts.append(_noun_phrase(stream, i, item, color, size, facts))
    text = stream.choice((", ", " ", " and ")).join(parts)
    if stream.chance(_BOILERPLATE):
        text = f"{_numbered(stream, stream.choice(_PREFIXES))} {text}"
    if stream.chance(_BOILERPLATE):
        text = f"{text} {_numbered(stream, stream.choice(_SUFFIXES))}"
    return text, tuple(facts)


def boilerplate(stream: Stream) -> str:
    """A text that says nothing of any picture."""
    return _numbered(stream, stream.choice(_UNRELATED))


def _numbered(stream: Stream, text: str) -> str:
    return text.format(1000 + stream.below(9000))


def _noun_phrase(stream: Stream, index: int, item: SceneObject, color: bool, size: bool, facts: list[str]) -> str:
    """Adjectives and noun; appends the facts that remain readable to `facts`."""
    words, said = [], []
    wanted = [("size", item.size, tuple(SIZES))] if size else []
    wanted += [("color", item.color, tuple(COLORS))] if color else []
    for kind, value, values in wanted:
        if stream.chance(_DROP_ATTRIBUTE):
            continue
        value = stream.choice(values) if stream.chance(_WRONG) else value
        words.append(_maybe_garbled(stream, value))
        if words[-1] == value:
            said.append(fact.attribute_fact(kind, index, value))
        else:
            said.clear()  # an adjective before an unreadable word has no noun
    shape = stream.choice(SHAPES) if stream.chance(_WRONG) else item.shape
    words.append(_maybe_garbled(stream, shape))
    if words[-1] == shape:
        facts += [fact.shape_fact(index, shape), *said]
    return " ".join(words)


def _maybe_garbled(stream: Stream, word: str) -> str:
    if not stream.chance(_GARBLED):
        return word
    i = 1 + stream.below(len(word) - 2)
    return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
