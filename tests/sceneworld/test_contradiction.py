"""Contradiction between two texts: rule by rule, against brute force, and never between true captions of a scene."""

import random
from itertools import product

import pytest

from capkit.sceneworld.language.captions import caption
from capkit.sceneworld.language.contradiction import contradicts
from capkit.sceneworld.language.facts import PLACES
from capkit.sceneworld.language.parser import parse
from capkit.sceneworld.world.options import COLORS, WorldOptions
from capkit.sceneworld.world.scene import make_scene

HERE = "a red circle left of a blue square"


@pytest.mark.parametrize(
    ("hypothesis", "premise", "wanted"),
    [
        # rule 1: one circle for each mention
        ("two circles", "a red circle", True),
        ("a red circle", "two red circles", False),
        ("a red circle and a red circle", "a red circle and a blue circle", True),
        ("a red circle and a circle", "a red circle and a blue circle", False),
        # rule 2: colours, sizes and places, bound to their noun
        ("a blue circle", "a red circle", True),
        ("a blue circle", "a red circle and a blue circle", False),
        ("a blue circle and a red square", HERE, True),
        ("a circle", "a red circle", False),
        ("a red circle", "a circle", False),
        ("a tiny circle", "a big red circle", True),
        ("a big circle", "a large circle", False),
        ("a circle in the top left", "a circle in the center", True),
        # rule 3: what the premise does not name is neutral
        ("a yellow heart", HERE, False),
        ("a red circle and a green star", HERE, False),
        ("a red thing", HERE, False),
        ("a green thing", HERE, False),
        ("hello world", HERE, False),
        ("", HERE, False),
        # rule 4: relations
        ("a square left of a circle", HERE, True),
        ("a square right of a circle", HERE, False),
        ("a circle above a square", HERE, False),
        ("a circle inside a square", HERE, True),
        ("a circle left of a star. the star is left of a square", HERE, False),
        ("a square left of a star. the star is left of a circle", HERE, True),
        ("a circle left of a square", "a circle in the top right and a square in the top left", True),
        ("a circle left of a square", "a circle in the top left and a square in the bottom right", False),
        ("a circle left of a star. the star is left of a square. the square is left of a heart", HERE, True),
        ("a circle inside a square", "a circle inside a star", True),
        # rule 5: counts, background, text
        ("two circles", "a red circle, a blue circle and a circle", True),
        ("two red circles", "a red circle, a red circle and a red circle", False),
        ("two circles", "a red circle and a blue circle", False),
        ("there are four shapes", "there are three shapes", True),
        ("a circle, a star and a heart", "there are two shapes", True),
        ("a heart", "there are two shapes. " + HERE, True),
        ("there are two shapes", "a red circle, a star and a square", True),
        ("a circle on a white background", "a circle on a black background", True),
        ("a circle with the word sun", "a circle with the word map", True),
        ("a circle with the word sun on a white background", "a circle", False),
        # a hypothesis that contradicts itself
        ("a red blue circle", "a star", True),
        ("a circle left of a square and left of the circle", "a star", True),
        ("a circle inside a square. the square is inside the circle", "a star", True),
    ],
)
def test_rules(hypothesis, premise, wanted):
    assert contradicts(hypothesis, premise) is wanted


def scenes(count):
    return [make_scene(WorldOptions(), 0, "train", index) for index in range(count)]


@pytest.mark.unchecked
def test_true_captions_of_one_scene_never_contradict_each_other():
    pairs = [(style, variant) for style in ("short", "human", "dense") for variant in range(5)]
    for scene in scenes(25):
        texts = [caption(scene, *pair).text for pair in pairs]
        assert not [(one, other) for one, other in product(texts, texts) if contradicts(one, other)]


def test_a_colour_that_no_object_of_the_shape_has_is_a_contradiction_and_no_colour_is_none():
    for scene in scenes(60):
        reference = caption(scene, "human").text
        for item in scene.objects:
            absent = set(COLORS) - {other.color for other in scene.objects if other.shape == item.shape}
            assert all(contradicts(f"a {color} {item.shape}", reference) for color in absent)
            assert not contradicts(f"a {item.color} {item.shape}", reference)
            assert not contradicts(f"a {item.shape}", reference)


def test_leaving_words_out_never_makes_a_contradiction():
    for one, other in zip(scenes(40), scenes(41)[1:], strict=True):
        premise, full = caption(other, "human").text, caption(one, "human", 2).text
        without = " ".join(word for word in full.split() if word not in COLORS)
        assert contradicts(full, premise) or not contradicts(without, premise)


def some_text(draw):
    """One or two sentences about circles, squares and stars, as contradictory as chance makes them."""
    things = [f"{color}{shape}" for color in ("", "red ", "blue ") for shape in ("circle", "square", "star")]
    sentences = []
    for _ in range(draw.choice((1, 2))):
        one, other = draw.choice(things), draw.choice(things)
        article = draw.choice(("a", "the"))
        forms = [
            f"{article} {one}",
            f"{article} {one} {draw.choice(('left of', 'right of', 'above', 'inside'))} a {other}",
            f"{article} {one} in the {draw.choice(PLACES)}",
            f"two {one}s",
            f"there are {draw.choice(('two', 'three'))} shapes",
        ]
        sentences.append(draw.choice(forms))
    return ". ".join(sentences)


def brute_force(hypothesis, premise):
    """Tries every choice of things, and every column and row of each."""
    said, given = parse(hypothesis), parse(premise)
    shapes = [mention.shape for mention in given.mentions]
    options = [
        [j for j, shape in enumerate(shapes) if shape == mention.shape] or [len(shapes) + i]
        for i, mention in enumerate(said.mentions)
    ]
    return not any(
        len(set(choice)) == len(choice) and possible(said, given, list(choice)) for choice in product(*options)
    )


def possible(said, given, choice):
    things = sorted({*range(len(given.mentions)), *choice})
    mentions = [*enumerate(given.mentions), *zip(choice, said.mentions, strict=True)]
    told = given.globals | said.globals
    relations = given.relations | {(name, choice[a], choice[b]) for name, a, b in said.relations}
    for kind in ("color", "size", "place"):
        for thing in things:
            if len({v for t, m in mentions if t == thing for k, v in m.attributes if k == kind}) > 1:
                return False
    shape_of = {thing: mention.shape for thing, mention in mentions}
    said_counts = [fact.removeprefix("count:").split("=") for fact in told]
    totals = [
        total for total in range(len(things), 20) if all(n == str(total) for k, n in said_counts if k == "object")
    ]
    counts = [list(shape_of.values()).count(shape) == int(n) for shape, n in said_counts if shape != "object"]
    if not totals or not all(counts):
        return False
    inside = [(a, b) for name, a, b in relations if name == "inside"]
    ways = {(a, b) for a, b in inside}
    for _ in things:
        ways |= {(a, c) for a, b in ways for b2, c in ways if b == b2}
    if len({a for a, _ in inside}) < len(inside) or any(a == b for a, b in ways):
        return False
    places = [(t, PLACES.index(v)) for t, m in mentions for k, v in m.attributes if k == "place"]
    for relation, part in (("left", lambda place: place // 3), ("above", lambda place: place % 3)):
        fits = False
        for numbers in product(range(3), repeat=len(things)):
            at = dict(zip(things, numbers, strict=True))
            fits = fits or (
                all(at[t] == part(place) for t, place in places)
                and all(at[a] < at[b] for name, a, b in relations if name == relation)
                and all(at[a] == at[b] for a, b in inside)
            )
        if not fits:
            return False
    return True


def test_equals_brute_force_over_all_readings_and_all_grids():
    draw = random.Random(0)
    pairs = [(some_text(draw), some_text(draw)) for _ in range(400)]
    wanted = [brute_force(*pair) for pair in pairs]
    assert 80 < sum(wanted) < 320  # chance gives both answers often
    assert [contradicts(*pair) for pair in pairs] == wanted
