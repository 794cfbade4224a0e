"""SceneWorld captions with planted errors: what is wrong and what is missing is known from the scene alone."""

from copy import deepcopy

from capkit.sceneworld.language.facts import PLACES, background_fact, count_fact
from capkit.sceneworld.language.parser import Mention, ParsedCaption
from capkit.sceneworld.language.writing import write_facts
from capkit.sceneworld.world.options import COLORS, SIZES
from capkit.sceneworld.world.scene import WorldOptions, make_scene
from capkit.utils.rng import generator

# As many objects that 4 facts can be wrong and 4 missing; none inside another, whose places would be one.
OPTIONS = WorldOptions(min_objects=4, max_objects=5, inside_probability=0.0, text_probability=0.0)


def scene_at(seed, index):
    return make_scene(OPTIONS, seed, "test", index)


def all_facts(scene):
    """Shape, colour, size and place of each object, their number, and the background."""
    mentions = [
        Mention(o.shape, {("color", o.color), ("size", o.size), ("place", PLACES[o.cell])}) for o in scene.objects
    ]
    return ParsedCaption(mentions, set(), {count_fact("object", len(mentions)), background_fact(scene.background)})


def planted(scene, seed, wrong, missing):
    """A caption with `wrong` colours and sizes that no object of the scene, or not this one, has, and `missing` of them
    left out."""
    random = generator(seed, "planted", write_facts(all_facts(scene)))
    said = deepcopy(all_facts(scene))
    places = [(index, kind) for index in range(len(said.mentions)) for kind in ("color", "size")]
    chosen = [places[place] for place in random.permutation(len(places))]
    absent = sorted(set(COLORS) - {item.color for item in scene.objects})
    for number, (index, kind) in enumerate(chosen[: wrong + missing]):
        mention, item = said.mentions[index], scene.objects[index]
        mention.attributes = {pair for pair in mention.attributes if pair[0] != kind}
        if number < wrong:
            others = absent if kind == "color" else sorted(set(SIZES) - {item.size})
            mention.attributes.add((kind, others[int(random.integers(len(others)))]))
    return write_facts(said)


def num_facts(scene):
    return 4 * len(scene.objects) + 2


def true_f1(scene, wrong, missing):
    """F1 of the facts that a planted caption states, among all that the reference states."""
    said, known = num_facts(scene) - missing, num_facts(scene)
    precision, recall = (said - wrong) / said, (said - wrong) / known
    return 2 * precision * recall / (precision + recall)
