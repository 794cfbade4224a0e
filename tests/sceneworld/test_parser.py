"""The parser: all that the grammar writes, and what half-trained captioners write."""

from dataclasses import replace

import pytest
from fact_helpers import parses_exactly
from hypothesis import given, settings
from hypothesis import strategies as st

from capkit.sceneworld.language.captions import NUM_VARIANTS, caption, reference_captions
from capkit.sceneworld.language.english import LEXICON, PLURALS
from capkit.sceneworld.language.parser import parse
from capkit.sceneworld.language.plan import STYLES
from capkit.sceneworld.world.options import COLORS, SHAPES, WorldOptions
from capkit.sceneworld.world.scene import make_scene

WORLDS = {
    "default": WorldOptions(),
    "all": WorldOptions(shapes=SHAPES, sizes=("small", "medium", "large"), text_probability=0.4, holdout=()),
    "many alike": WorldOptions(  # few kinds, so that objects share shapes, colours, even everything
        shapes=SHAPES[:3], colors=("red", "blue"), max_objects=6, inside_probability=0.6, holdout=()
    ),
}


def first_failure(world: str, styles: tuple[str, ...], seed: int, count: int) -> str:
    """The first caption of a world's scenes that does not parse back, or nothing."""
    for index in range(count):
        scene = make_scene(WORLDS[world], seed, "train", index)
        for item in (item for style in styles for item in reference_captions(scene, style)):
            if not parses_exactly(item.text, item.facts, len(scene.objects)):
                return f"{item.text!r} does not say {item.facts}"
    return ""


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("style", ["short", "human", "dense"])
def test_every_caption_parses_back_to_exactly_the_facts_it_states(world: str, style: str) -> None:
    assert first_failure(world, (style,), 0, 15) == ""


@pytest.mark.unchecked
@pytest.mark.parametrize("count", [20, pytest.param(3000, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("world", WORLDS)
def test_many_scenes_parse_back(world: str, count: int) -> None:
    assert first_failure(world, ("short", "human", "dense"), 1, count) == ""


FLAGS = st.fixed_dictionaries({name: st.booleans() for name in ("color", "size", "background", "text")})


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(sorted(WORLDS)), FLAGS, st.integers(1, 6), st.data())
def test_every_level_of_detail_parses_back(
    index: int, world: str, flags: dict, number: int, data: st.DataObject
) -> None:
    scene = make_scene(WORLDS[world], 2, "train", index)
    style = data.draw(st.sampled_from(["short", "human", "dense"]))
    detail = replace(STYLES[style], num_objects=number, **flags)
    if style != "short":
        relations = data.draw(st.integers(0, 1 if style == "human" else 5))
        detail = replace(detail, place=data.draw(st.booleans()), inside=data.draw(st.booleans()), relations=relations)
    item = caption(scene, style, data.draw(st.integers(0, NUM_VARIANTS - 1)), detail=detail)
    assert parses_exactly(item.text, item.facts, min(number, len(scene.objects))), (item.text, item.facts)


def test_noisy_captions_parse_to_what_they_state_and_other_words_are_counted() -> None:
    unparsed = 0
    for index in range(80):
        scene = make_scene(WORLDS["default"], 0, "val", index)
        for item in reference_captions(scene, "noisy"):
            parsed = parse(item.text)
            assert sorted(fact.split("=")[1] for fact in parsed.facts) == sorted(f.split("=")[1] for f in item.facts)
            unparsed += parsed.num_unparsed
    assert unparsed > 150


@pytest.mark.parametrize(
    ("text", "facts", "unparsed"),
    [
        ("", [], []),
        ("a red circle", ["shape:0=circle", "color:0=red"], []),
        # repetition
        ("a red red circle", ["shape:0=circle", "color:0=red"], []),
        ("a red circle. the red circle. the circle is red", ["shape:0=circle", "color:0=red"], []),
        ("a circle and a circle", ["shape:0=circle", "shape:1=circle"], []),
        ("and and and", [], []),
        # contradiction
        ("a red blue circle", ["shape:0=circle", "color:0=blue", "color:0=red"], []),
        # fragments
        ("a large red", [], ["a", "large", "red"]),
        ("left of a circle", ["shape:0=circle"], ["left", "of"]),
        ("a circle to the left of", ["shape:0=circle"], ["to", "the", "left", "of"]),
        ("a circle left of left of", ["shape:0=circle"], ["left", "of", "left", "of"]),
        ("in the top left", [], ["in", "the", "top", "left"]),
        ("it is red", [], ["it", "red"]),
        ("a circle inside", ["shape:0=circle"], ["inside"]),
        ("the word", [], ["the", "word"]),
        # wrong order
        ("circle red", ["shape:0=circle"], ["red"]),
        ("red circle the the", ["shape:0=circle", "color:0=red"], ["the", "the"]),
        # words outside the vocabulary
        ("a dog and a red circle flying", ["shape:0=circle", "color:0=red"], ["a", "dog", "flying"]),
        ("there is no circle", ["shape:0=circle"], ["no"]),
        ("ünï 圆 circle", ["shape:0=circle"], ["ünï", "圆"]),
        ("🙂 !! ... -- \" ' circle", ["shape:0=circle"], []),
        # predicates, synonyms, plurals
        ("the circle is large and red", ["shape:0=circle", "color:0=red", "size:0=large"], []),
        ("a tiny grey box", ["shape:0=square", "color:0=gray", "size:0=small"], []),
        ("two circles", ["shape:0=circle", "shape:1=circle", "count:circle=2"], []),
        ("2 red circles", ["shape:0=circle", "color:0=red", "shape:1=circle", "color:1=red"], []),
        ("circles", ["shape:0=circle", "shape:1=circle"], []),
        ("three shapes", ["count:object=3"], []),
        ("a red thing", ["color:0=red"], []),
        ("a star on a plain red background", ["shape:0=star", "background=red"], []),
        ("the background is gray. a star is red", ["shape:0=star", "color:0=red", "background=gray"], []),
        ("the text reads sun", ["text=sun"], []),
        ("the letter a", ["text=a"], []),
        ("A RED CIRCLE", ["shape:0=circle", "color:0=red"], []),
    ],
)
def test_rules_by_hand(text: str, facts: list[str], unparsed: list[str]) -> None:
    parsed = parse(text)
    assert (parsed.facts, parsed.unparsed) == (facts, unparsed)


@pytest.mark.parametrize(
    ("text", "relations"),
    [
        ("a circle left of a star", {("left", 0, 1)}),
        ("a circle to the right of a star", {("left", 1, 0)}),
        ("a circle is below a star", {("above", 1, 0)}),
        ("a circle above and to the left of a star", {("above", 0, 1), ("left", 0, 1)}),
        ("a circle inside a star", {("inside", 0, 1)}),
        ("a circle around a star", {("inside", 1, 0)}),
        ("a circle with a star inside", {("inside", 1, 0)}),
        ("a circle with a star inside it", {("inside", 1, 0)}),
        ("a circle. it contains a star", {("inside", 1, 0)}),
        ("a circle. there is a star inside it", {("inside", 1, 0)}),
        ("a circle with a star to its right", {("left", 0, 1)}),
        ("a circle with a star below it", {("above", 0, 1)}),
        ("a circle with a star inside, left of a moon", {("inside", 1, 0), ("left", 0, 2)}),
        ("a circle with a star inside left of a moon", {("inside", 1, 0), ("left", 1, 2)}),
        ("a circle left of a star, which is above a moon", {("left", 0, 1), ("above", 1, 2)}),
        ("a circle left of a star and above a moon", {("left", 0, 1), ("above", 0, 2)}),
        ("a circle and a star. the circle is left of the star", {("left", 0, 1)}),
        ("two circles left of a star", {("left", 0, 2), ("left", 1, 2)}),
        ("a circle left of two stars", {("left", 0, 1), ("left", 0, 2)}),
    ],
)
def test_relations_by_hand(text: str, relations: set[tuple[str, int, int]]) -> None:
    parsed = parse(text)
    assert parsed.relations == relations and not parsed.unparsed


def test_the_definite_article_points_back_to_the_mention_that_fits() -> None:
    parsed = parse("a red circle and a blue circle. the blue circle is large. the circle is small. the star is red")
    assert [sorted(mention.attributes) for mention in parsed.mentions] == [
        [("color", "red"), ("size", "small")],
        [("color", "blue"), ("size", "large")],
        [("color", "red")],
    ]


FIRST_WORDS = {phrase.words[0] for phrase in LEXICON.phrases}
OTHERS = {"a", "the", "two", "it", ",", ".", "of", "left", "zzz"}
WORDS = sorted({*FIRST_WORDS, *SHAPES, *PLURALS.values(), *COLORS, *OTHERS})


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=25))
def test_word_salad_is_read_without_failing_and_no_word_is_invented(words: list[str]) -> None:
    parsed = parse(" ".join(words))
    assert all(parsed.unparsed.count(word) <= words.count(word) for word in parsed.unparsed)
    assert words.count("zzz") <= parsed.unparsed.count("zzz") + len([f for f in parsed.facts if f == "text=zzz"]) * 25
    assert len(set(parsed.facts)) == len(parsed.facts)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_read_without_failing(text: str) -> None:
    assert parse(text).num_unparsed <= len(text)


def test_a_very_long_caption_is_read_in_linear_time() -> None:
    parsed = parse("a red circle is left of a blue square. " * 200)
    assert len(parsed.mentions) == 400 and parsed.num_unparsed == 0
