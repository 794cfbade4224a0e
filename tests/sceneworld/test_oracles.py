"""Fact scores: hand-worked, against brute force, and with the right order of good and bad captions."""

from itertools import pairwise, permutations

import pytest
from fact_helpers import renamed
from hypothesis import given, settings
from hypothesis import strategies as st

from capkit.sceneworld.language.captions import caption, references
from capkit.sceneworld.language.facts import scene_facts
from capkit.sceneworld.language.oracles import count_matches, score_caption
from capkit.sceneworld.language.parser import parse
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.scene import Scene, SceneObject, make_scene

# a large blue circle left of a small red square
HAND = Scene(
    (SceneObject("circle", "blue", "large", 1 / 6, 0.5), SceneObject("square", "red", "small", 5 / 6, 0.5)), "white"
)
STATED = caption(HAND, "human").facts  # 3 + 3 attributes and one relation


@pytest.mark.parametrize(
    ("text", "precision", "recall", "unparsed"),
    [
        ("a large blue circle to the left of a small red square", 1, 1, 0),
        ("a small red square to the right of a large blue circle", 1, 1, 0),
        ("a blue circle and a red square", 1, 4 / 7, 0),
        ("a circle", 1, 1 / 7, 0),
        ("", 0, 0, 0),
        ("hello world", 0, 0, 2),
        # wrong binding: both nouns hold, both colours do not
        ("a red circle and a blue square", 2 / 4, 2 / 7, 0),
        # a wrong noun takes its adjectives along
        ("a blue star and a red square", 2 / 4, 2 / 7, 0),
        # a true fact that the reference does not state counts for precision only
        ("a blue circle on a white background", 1, 2 / 7, 0),
        ("there are two shapes on a white background", 1, 0, 0),
        ("a blue circle on a black background", 2 / 3, 2 / 7, 0),
        ("a circle to the right of a square", 2 / 3, 2 / 7, 0),
        # said twice as one object, and as two
        ("a blue circle. the blue circle. the blue circle is blue", 1, 2 / 7, 0),
        ("a blue circle and a blue circle", 2 / 4, 2 / 7, 0),
        ("two blue circles", 2 / 4, 2 / 7, 0),
        ("a blue circle dog", 1, 2 / 7, 1),
    ],
)
def test_scores_by_hand(text: str, precision: float, recall: float, unparsed: int) -> None:
    assert len(STATED) == 7
    score = score_caption(HAND, text, STATED)
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0
    assert (score.precision, score.recall, score.f1) == pytest.approx((precision, recall, f1))
    assert score.num_unparsed == unparsed


@pytest.mark.unchecked
def test_every_reference_scores_one_against_its_own_facts() -> None:
    options = WorldOptions(shapes=["circle", "square"], colors=["red", "blue"], holdout=(), text_probability=0.3)
    for index in range(20):
        scene = make_scene(options, 0, "train", index)
        for style in ("short", "human", "dense"):
            facts = caption(scene, style).facts
            for text in references(scene, style):
                score = score_caption(scene, text, facts)
                assert (score.precision, score.recall, score.f1, score.num_unparsed) == (1, 1, 1, 0), text


def test_repeating_correct_facts_does_not_raise_the_score() -> None:
    for index in range(50):
        scene = make_scene(WorldOptions(), 0, "val", index)
        text, facts = references(scene)[0], caption(scene, "human").facts
        once = score_caption(scene, text, facts)
        again = text.replace("a ", "the ").replace("an ", "the ")
        assert score_caption(scene, f"{text}. {again}", facts).f1 <= once.f1
        assert score_caption(scene, f"{text}. {text}", facts).f1 < once.f1


def test_another_scenes_caption_scores_far_lower() -> None:
    scenes = [make_scene(WorldOptions(), 0, "test", i) for i in range(80)]
    wrong = [
        score_caption(scene, references(other)[0], caption(scene, "human").facts).f1
        for scene, other in pairwise(scenes)
    ]
    assert sum(wrong) / len(wrong) < 0.45


def test_swapping_two_colours_costs_precision() -> None:
    lowered = 0
    for index in range(120):
        scene = make_scene(WorldOptions(min_objects=2), 0, "val", index)
        a, b = scene.objects[0], scene.objects[1]
        if a.color != b.color and a.shape != b.shape and len({o.shape for o in scene.objects}) == len(scene.objects):
            swapped = (
                SceneObject(a.shape, b.color, a.size, a.x, a.y),
                SceneObject(b.shape, a.color, b.size, b.x, b.y, b.inside),
                *scene.objects[2:],
            )
            text = references(Scene(swapped, scene.background))[0]
            score = score_caption(scene, text, caption(scene, "human").facts)
            assert score.num_facts - score.num_correct == 2
            lowered += 1
    assert lowered > 20


def brute_force(text: str, scene: Scene, stated: frozenset[str]) -> tuple[int, int]:
    """Best (true, stated) over every injective partial assignment; nouns must agree."""
    parsed = parse(text)
    number, objects = len(parsed.mentions), len(scene.objects)
    true = frozenset(scene_facts(scene))
    best = (0, 0)
    free = [f for f in parsed.facts if f in parsed.globals]
    for chosen in permutations([*range(objects), *range(100, 100 + number)], number):
        wrong = [
            i for i, (m, o) in enumerate(zip(parsed.mentions, chosen, strict=True))
            if o < 100 and m.shape is not None and scene.objects[o].shape != m.shape
        ]  # fmt: skip
        if not wrong:
            facts = renamed([f for f in parsed.facts if f not in parsed.globals], chosen) | set(free)
            best = max(best, (len(facts & true), len(facts & stated)))
    return best


NOUNS = st.builds(
    " ".join,
    st.tuples(*map(st.sampled_from, (["a", "the", "two"], ["small", "large"], ["red", "blue"], ["circle", "star"]))),
)
TEXTS = st.builds(
    lambda nouns, links: " ".join(word for pair in zip(nouns, links, strict=True) for word in pair),
    st.lists(NOUNS, min_size=3, max_size=3),
    st.lists(st.sampled_from(["and", "left of", "above", ".", "with", "inside"]), min_size=3, max_size=3),
)


@pytest.mark.unchecked
@settings(max_examples=25, deadline=None)
@given(TEXTS, st.integers(0, 10**6))
def test_the_assignment_is_the_best_there_is(text: str, index: int) -> None:
    options = WorldOptions(
        shapes=["circle", "star"], colors=["red", "blue"], max_objects=3, inside_probability=0.5, holdout=()
    )
    scene = make_scene(options, 0, "train", index)
    if len(parse(text).mentions) <= 4:
        stated = frozenset(caption(scene, "human").facts)
        found = count_matches(parse(text), frozenset(scene_facts(scene)), stated, len(scene.objects))
        assert found == brute_force(text, scene, stated)


def test_degenerate_captions_are_scored_quickly() -> None:
    scene = Scene(
        tuple(SceneObject("circle", "red", "small", x / 6, y / 6) for x in (1, 3) for y in (1, 3, 5)), "white"
    )
    text = " above ".join(["a red circle"] * 40)
    score = score_caption(scene, text, caption(scene, "human").facts)
    assert 0 < score.precision < 0.5


def test_recall_of_nothing_to_say() -> None:
    assert score_caption(HAND, "a circle", []).recall == 1
    assert score_caption(HAND, "", []).recall == 0
