"""Questions about what a caption states, their answers, and the caption without what some of them ask for.

Caption and scene are asked alike: `seen` gives a scene the form of a parsed caption that states all of it. An object is
named by shape, size and place, as many of them as tell it from the caption's others, and never by its colour: who sees
no colours would not find it. What cannot be asked so is not asked.
"""

import re
from collections.abc import Iterable
from copy import deepcopy

from capkit.sceneworld.language.english import NUMBERS, PLURALS
from capkit.sceneworld.language.facts import PLACES, relations, scene_facts
from capkit.sceneworld.language.parser import Mention, ParsedCaption, parse
from capkit.sceneworld.language.writing import UnsayableError, write_facts
from capkit.sceneworld.world.scene import Scene

_ATTRIBUTES = {
    "color": "what color is the {}?",
    "size": "what size is the {}?",
    "place": "where is the {}?",
    "shape": "what shape is the {}?",
}
_RELATIONS = {"left": "to the left of", "above": "above", "inside": "inside"}
_GLOBALS = {"background": "what is the background?", "text": "what is written in the picture?"}
_COUNTED = {"object": "shapes", **PLURALS}
_NAMES = ((), ("size",), ("place",), ("size", "place"))


def seen(scene: Scene) -> ParsedCaption:
    """Everything that holds in a scene, as a caption that states it."""
    mentions = [
        Mention(o.shape, {("color", o.color), ("size", o.size), ("place", PLACES[o.cell])}) for o in scene.objects
    ]
    said = {text for text in scene_facts(scene) if text.startswith(("count:", "background=", "text="))}
    return ParsedCaption(mentions, set(relations(scene)), said)


def questions_about(caption: ParsedCaption) -> list[str]:
    """A question for each fact, except those whose object cannot be named without the answer."""
    found = []
    for index, mention in enumerate(caption.mentions):
        kinds = [*(["shape"] if mention.shape else []), *sorted(kind for kind, _ in mention.attributes)]
        for kind in kinds:
            if (name := _name(caption, index, kind)) is not None:
                found.append(_ATTRIBUTES[kind].format(name))
    for relation, subject, target in sorted(caption.relations):
        names = [_name(caption, index, None) for index in (subject, target)]
        if None not in names:
            found.append(f"is the {names[0]} {_RELATIONS[relation]} the {names[1]}?")
    for text in sorted(caption.globals):
        about = text.partition("=")[0]
        found.append(_GLOBALS.get(about) or f"how many {_COUNTED[about.removeprefix('count:')]} are there?")
    return list(dict.fromkeys(found))


def answer_to(question: str, known: ParsedCaption) -> str | None:
    """The answer by what is known; None if that does not tell."""
    about = _about(question, known)
    if about is None:
        return None
    kind, subject, target = about
    if kind in _RELATIONS:
        return "yes" if (kind, subject, target) in known.relations else "no"
    if kind == "global":
        values = [text.partition("=")[2] for text in known.globals if text.partition("=")[0] == subject]
        return (NUMBERS[int(values[0])] if str(subject).startswith("count:") else values[0]) if values else None
    mention = known.mentions[int(subject)]
    values = [value for name, value in sorted(mention.attributes) if name == kind]
    return mention.shape if kind == "shape" else values[0] if values else None


def about_object(name: str, known: ParsedCaption, kinds: Iterable[str]) -> str | None:
    """A sentence with what is known of an object: its shape, and its attributes of these kinds; None if it is unknown.

    Of objects that the name does not tell apart, of the first.
    """
    index = _named(name, known)
    if index is None:
        return None
    mention, wanted = known.mentions[index], set(kinds)
    said = Mention(mention.shape, {item for item in mention.attributes if item[0] in wanted})
    return write_facts(ParsedCaption([said]))


def without(caption: ParsedCaption, questions: Iterable[str]) -> str:
    """The caption in words, without the facts that the questions ask for.

    Relations of objects that can no longer be told from others are left out too. Raises UnsayableError for a question
    that is about nothing in the caption, and where nothing is left to say.
    """
    left = deepcopy(caption)
    for question in questions:
        about = _about(question, caption)
        if about is None:
            raise UnsayableError(f"the caption does not say what is asked for: {question}")
        kind, subject, target = about
        if kind in _RELATIONS:
            left.relations.discard((kind, int(subject), int(target)))
        elif kind == "global":
            left.globals = {text for text in left.globals if text.partition("=")[0] != subject}
        elif kind == "shape":
            left.mentions[int(subject)].shape = None
        else:
            mention = left.mentions[int(subject)]
            mention.attributes = {item for item in mention.attributes if item[0] != kind}
    if not left.facts:
        raise UnsayableError("nothing is left of the caption")
    try:
        return write_facts(left)
    except UnsayableError:
        names = [(m.shape, frozenset(item for item in m.attributes if item[0] != "place")) for m in left.mentions]
        left.relations = {r for r in left.relations if all(names.count(names[i]) == 1 for i in r[1:])}
        return write_facts(left)


def _name(caption: ParsedCaption, index: int, asked: str | None) -> str | None:
    """A description that fits this object only, without what is asked for; None if there is none."""
    mention = caption.mentions[index]
    has = dict(sorted(mention.attributes))
    shape = None if asked == "shape" else mention.shape
    for kinds in _NAMES:
        # "the thing in the center" is no mention to the parser: an object without shape needs its size.
        if asked in kinds or not has.keys() >= set(kinds) or (shape is None and "size" not in kinds):
            continue
        wanted = {(kind, has[kind]) for kind in kinds}
        fitting = [m for m in caption.mentions if shape in (None, m.shape) and wanted <= m.attributes]
        if len(fitting) == 1:
            size, place = (has[kind] if kind in kinds else None for kind in ("size", "place"))
            return (f"{size} " if size else "") + (shape or "thing") + (f" in the {place}" if place else "")
    return None


def _about(question: str, known: ParsedCaption) -> tuple[str, int | str, int | str] | None:
    """Kind, object and second object, or "global" and what it is about; None for a question about nothing known."""
    for subject, text in _GLOBALS.items():
        if question == text:
            return "global", subject, ""
    for noun, plural in _COUNTED.items():
        if question == f"how many {plural} are there?":
            return "global", f"count:{noun}", ""
    for kind, template in _ATTRIBUTES.items():
        before, after = template.split("{}")
        if question.startswith(before) and question.endswith(after):
            found = _named(question[len(before) : -len(after)], known)
            return None if found is None else (kind, found, "")
    for kind, words in _RELATIONS.items():
        matched = re.fullmatch(f"is the (.+) {words} the (.+)\\?", question)
        if matched is not None:
            first, second = (_named(name, known) for name in matched.groups())
            return None if first is None or second is None else (kind, first, second)
    return None


def _named(name: str, known: ParsedCaption) -> int | None:
    """The first of the objects that the name fits best: it must have the shape, and most of the attributes."""
    mentions = parse(f"the {name}").mentions
    if len(mentions) != 1:
        return None
    (wanted,) = mentions
    fitting = [i for i, m in enumerate(known.mentions) if None in (wanted.shape, m.shape) or m.shape == wanted.shape]
    return max(fitting, key=lambda i: (len(wanted.attributes & known.mentions[i].attributes), -i), default=None)
