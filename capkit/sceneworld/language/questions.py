"""Question-answer pairs about a scene, with multiple choices."""

from dataclasses import dataclass

from capkit.sceneworld.language import facts as fact
from capkit.sceneworld.language.english import NUMBERS, PLURALS
from capkit.sceneworld.world.options import BACKGROUNDS, COLORS, MAX_OBJECTS, SHAPES, SIZES, WORDS
from capkit.sceneworld.world.scene import Scene, scene_hash
from capkit.sceneworld.world.stream import Stream

YES_NO = ("yes", "no")
KINDS = ("count", "color", "size", "shape", "place", "exists", "relation", "background", "text")
_COUNTS = NUMBERS[: MAX_OBJECTS + 1]


@dataclass(frozen=True)
class Question:
    """A question. `facts` are those of the scene that decide the answer (none if something is absent)."""

    kind: str
    text: str
    answer: str
    choices: tuple[str, ...]
    facts: tuple[str, ...]


def questions(scene: Scene, seed: int = 0) -> list[Question]:
    """All questions whose answer is unique in the scene.

    Their kinds are KINDS. Yes-no questions come in pairs with
    opposite answers, so that always answering yes scores half. `seed` selects what the questions with answer no ask.
    """
    stream = Stream("questions", scene_hash(scene), seed)
    found = _counts(scene) + _attributes(scene) + _exists(scene, stream) + _relations(scene)
    said = fact.background_fact(scene.background)
    found.append(Question("background", "what is the background?", scene.background, BACKGROUNDS, (said,)))
    if scene.text is not None:
        word = scene.text.word
        choices = tuple(sorted({*WORDS, word}))
        found.append(Question("text", "what is written in the picture?", word, choices, (fact.text_fact(word),)))
    return found


def _counts(scene: Scene) -> list[Question]:
    number = len(scene.objects)
    asked = [("object", "how many shapes are there?", number)]
    for shape in dict.fromkeys(item.shape for item in scene.objects):
        same = sum(item.shape == shape for item in scene.objects)
        asked.append((shape, f"how many {PLURALS[shape]} are there?", same))
    return [
        Question("count", text, NUMBERS[count], _COUNTS, (fact.count_fact(noun, count),)) for noun, text, count in asked
    ]


def _attributes(scene: Scene) -> list[Question]:
    """Questions about objects identified by shape alone or by colour alone."""
    shapes, colors = [o.shape for o in scene.objects], [o.color for o in scene.objects]
    found = []
    for i, item in enumerate(scene.objects):
        place = fact.PLACES[item.cell]
        shape = fact.shape_fact(i, item.shape)
        color, size = (fact.attribute_fact(kind, i, getattr(item, kind)) for kind in ("color", "size"))
        where = fact.attribute_fact("place", i, place)
        if shapes.count(item.shape) == 1:
            name = item.shape
            found += [
                Question("color", f"what color is the {name}?", item.color, tuple(COLORS), (shape, color)),
                Question("size", f"what size is the {name}?", item.size, tuple(SIZES), (shape, size)),
                Question("place", f"where is the {name}?", place, fact.PLACES, (shape, where)),
            ]
        if colors.count(item.color) == 1:
            found.append(Question("shape", f"what shape is {item.color}?", item.shape, SHAPES, (color, shape)))
    return found


def _exists(scene: Scene, stream: Stream) -> list[Question]:
    present = {(item.color, item.shape) for item in scene.objects}
    index = stream.below(len(scene.objects))
    item = scene.objects[index]
    absent = [pair for pair in ((c, s) for c in COLORS for s in SHAPES) if pair not in present]
    near = [pair for pair in absent if pair[0] == item.color or pair[1] == item.shape]
    color, shape = stream.choice(near)
    facts = (fact.attribute_fact("color", index, item.color), fact.shape_fact(index, item.shape))
    return [
        Question("exists", f"is there a {item.color} {item.shape}?".replace("a o", "an o"), "yes", YES_NO, facts),
        Question("exists", f"is there a {color} {shape}?".replace("a o", "an o"), "no", YES_NO, ()),
    ]


def _relations(scene: Scene) -> list[Question]:
    names = [f"{item.color} {item.shape}" for item in scene.objects]
    words = {"left": "to the left of", "above": "above", "inside": "inside"}
    found = []
    for relation, i, j in fact.relations(scene):
        if names.count(names[i]) == names.count(names[j]) == 1:
            said = (fact.relation_fact(relation, i, j),)
            for (a, b), answer in (((i, j), "yes"), ((j, i), "no")):
                text = f"is the {names[a]} {words[relation]} the {names[b]}?"
                found.append(Question("relation", text, answer, YES_NO, said))
    return found
