import random

import pytest

from capkit.sceneworld.language.captions import Detail, caption
from capkit.sceneworld.language.contradiction import contradicts
from capkit.sceneworld.language.merging import AmbiguousError, enriched, union
from capkit.sceneworld.language.oracles import score_caption
from capkit.sceneworld.language.parser import parse
from capkit.sceneworld.language.writing import signature, write_facts
from capkit.sceneworld.world.scene import WorldOptions, make_scene

OPTIONS = WorldOptions(text_probability=0.3)
# Levels of detail of which none says what all of them say together.
LEVELS = [
    ("short", Detail(size=False, inside=False, text=False)),
    ("human", Detail(color=False, relations=1)),
    ("human", Detail(num_objects=2, relations=1)),
    ("human", Detail(size=False, place=True, background=True)),
    ("dense", Detail(color=False, place=True, inside=False, relations=2)),
]


def union_of(*texts):
    return signature(union([parse(text) for text in texts]))


def enriched_by(anchor, description):
    return set(enriched(parse(anchor), parse(description)).facts)


def meaning(text):
    """Facts without the numbers of mentions."""
    return signature(parse(text))


def facts_of(text):
    return set(parse(text).facts)


def test_two_captions_of_one_object_are_joined():
    merged = union_of("a red circle", "a large circle on a white background")
    assert merged == meaning("a large red circle on a white background")


def test_other_colours_are_other_objects():
    assert union_of("a red circle", "a blue circle") == meaning("a red circle and a blue circle")


def test_relations_are_carried_to_the_objects_they_belong_to():
    merged = union_of("a red circle left of a blue square", "a small square above a circle")
    assert merged == meaning("a small blue square right of a red circle. the square is above the red circle.")


def test_what_the_captions_leave_open_is_not_guessed():
    """Which circle is large? Nothing says it, so no caption could state both facts of one object."""
    with pytest.raises(AmbiguousError, match="look-alikes"):
        union_of("a red circle and a blue circle", "a large circle and a small circle")


def test_a_third_caption_may_settle_it():
    texts = ["a red circle and a blue circle", "a large circle and a small circle", "a large red circle"]
    assert union_of(*texts) == meaning("a large red circle and a small blue circle")


def test_places_settle_it_where_a_relation_is_known():
    """Equal circles: the one on the left is the one of which something else is left of."""
    merged = union_of("a circle left of a circle", "a circle in the top left and a circle in the top right")
    assert merged == meaning("a circle in the top left. a circle is in the top right. it is right of the circle.")


@pytest.mark.unchecked
def test_the_union_of_references_is_what_each_of_them_says():
    for index in range(100):
        scene = make_scene(OPTIONS, 0, "train", index)
        references = [caption(scene, "human", variant) for variant in range(5)]
        text = write_facts(union([parse(reference.text) for reference in references]))
        score = score_caption(scene, text, references[0].facts)
        assert (score.precision, score.recall) == (1.0, 1.0)
        assert score.num_facts == len(references[0].facts) and score.num_unparsed == 0


@pytest.mark.unchecked
def test_the_union_of_captions_that_say_different_things_has_all_their_facts_and_no_new_one():
    """Facts are those that the captions' own plans state, by object; the merged text is judged by the oracle."""
    open_scenes = 0
    for index in range(120):
        scene = make_scene(OPTIONS, 0, "train", index)
        draw = random.Random(index)
        captions = [caption(scene, *_shuffled(draw.choice(LEVELS), variant)) for variant in range(5)]
        expected = {fact for said in captions for fact in said.facts}
        try:
            text = write_facts(union([parse(said.text) for said in captions]))
        except AmbiguousError:
            open_scenes += 1
            continue
        score = score_caption(scene, text, expected)
        assert score.precision == 1.0 and score.num_recalled == len(expected) == score.num_facts
    assert open_scenes <= 12


def _shuffled(level, variant):
    style, detail = level
    return style, variant, 0, detail


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_the_order_of_captions_does_not_matter(order):
    texts = ["a large circle", "a red circle left of a square", "a square on a black background"]
    assert union_of(*(texts[i] for i in order)) == union_of(*texts)


def test_a_description_adds_what_the_anchor_does_not_say():
    added = enriched_by("a red circle", "a large red circle in the top left and a green star on a gray background")
    assert added == facts_of("a large red circle in the top left and a green star on a gray background")


@pytest.mark.parametrize(
    ("anchor", "description", "result"),
    [
        ("a red circle", "a large green circle", "a large red circle"),
        ("a red circle on a white background", "a red circle on a black background", None),
        ("a red circle left of a blue star", "a blue star left of a red circle", None),
        ("there are two shapes. a red circle and a blue star.", "a green cross, a red circle and a blue star", None),
        ("a red circle left of a blue star", "a red circle in the top right and a blue star in the top left", None),
        ("two circles", "there are three circles", None),
    ],
    ids=["colour", "background", "relation", "more than were counted", "places against a relation", "count"],
)
def test_a_description_cannot_change_what_the_anchor_says(anchor, description, result):
    kept = enriched_by(anchor, description)
    if result is not None:
        assert kept == facts_of(result)
    assert facts_of(anchor) <= kept
    assert not (facts_of(description) <= kept)


def test_what_holds_under_one_reading_only_is_left_out():
    """One of two equal circles is in the top left: either may be meant."""
    anchor = "a red circle left of a blue star. there is a red circle."
    kept = enriched_by(anchor, "a red circle in the center. the background is gray.")
    assert kept == facts_of(anchor + " the background is gray.")


@pytest.mark.unchecked
def test_a_true_description_adds_only_true_facts_and_keeps_all_of_the_anchor():
    complete = 0
    for index in range(100):
        scene = make_scene(OPTIONS, 1, "train", index)
        anchor, seen = caption(scene, "human"), caption(scene, "dense")
        text = write_facts(enriched(parse(anchor.text), parse(seen.text)))
        both = {*anchor.facts, *seen.facts}
        score = score_caption(scene, text, both)
        assert score.precision == 1.0
        assert score_caption(scene, text, anchor.facts).recall == 1.0
        assert not contradicts(text, anchor.text)
        complete += score.num_recalled == len(both)
    assert complete >= 95
