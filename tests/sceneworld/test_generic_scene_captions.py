from collections import Counter

import pytest

from capkit.sceneworld.language.captions import references
from capkit.sceneworld.language.contradiction import contradicts
from capkit.sceneworld.language.facts import scene_facts
from capkit.sceneworld.language.generic import NEIGHBOURS, generic_captions
from capkit.sceneworld.language.oracles import score_caption
from capkit.sceneworld.language.parser import parse
from capkit.sceneworld.world.scene import Scene, SceneObject, WorldOptions, make_scene

pytestmark = pytest.mark.unchecked

SCENES = [make_scene(WorldOptions(), 0, "train", index) for index in range(300)]


def scene_of(*names):
    """Objects from left to right, named as "red circle"."""
    objects = [
        SceneObject(shape, color, "large", (2 * column + 1) / 6, 0.5)
        for column, (color, shape) in enumerate(name.split() for name in names)
    ]
    return Scene(tuple(objects), "white")


def colors_said(text):
    return [value for mention in parse(text).mentions for kind, value in mention.attributes if kind == "color"]


def test_every_caption_states_all_shapes_and_nothing_false():
    for scene in SCENES:
        shapes = [fact for fact in scene_facts(scene) if fact.startswith("shape:")]
        for text in generic_captions(scene, dropped=0.6, confused=0.0):
            score = score_caption(scene, text, shapes)
            assert (score.precision, score.recall, score.num_unparsed) == (1, 1, 0), text


def test_with_nothing_dropped_they_are_the_captions_of_style_short():
    for scene in SCENES:
        assert generic_captions(scene, dropped=0.0, confused=0.0) == references(scene, "short")


def test_with_everything_dropped_no_color_is_said():
    assert generic_captions(scene_of("red circle", "blue circle"), 1.0, 0.0) == [
        "two circles", "two circles", "picture of two circles", "there are two circles", "two circles",
    ]  # fmt: skip


def test_a_number_of_bare_shapes_is_said_only_where_it_counts_them_all():
    """ "Two circles and a red circle" would say that there are two."""
    scene = scene_of("red circle", "blue circle", "green circle")
    texts = {text for seed in range(40) for text in generic_captions(scene, 0.6, 0.0, seed)}
    assert any("circle, a circle" in text or "circle and a circle" in text for text in texts)
    assert {text for text in texts if "two circles" in text} == set()


def test_backgrounds_are_said_in_that_share_of_captions_and_change_nothing_else():
    bare = [text for scene in SCENES for text in generic_captions(scene, 0.5, 0.0)]
    texts = [text for scene in SCENES for text in generic_captions(scene, 0.5, 0.0, background=0.3)]
    endings = [f" on a {scene.background} background" for scene in SCENES for _ in range(5)]
    said = [text == without + ending for text, without, ending in zip(texts, bare, endings, strict=True)]
    assert all(is_said or text == without for is_said, text, without in zip(said, texts, bare, strict=True))
    assert sum(said) / len(said) == pytest.approx(0.3, abs=0.036)  # of 1,500: three standard errors


@pytest.mark.parametrize("dropped", [0.2, 0.75])
def test_that_share_of_colors_is_left_out(dropped):
    said = sum(len(colors_said(text)) for scene in SCENES for text in generic_captions(scene, dropped, 0.0))
    total = 5 * sum(len(scene.objects) for scene in SCENES)  # about 4,500: three standard errors are 0.02
    assert said / total == pytest.approx(1 - dropped, abs=0.02)


def test_that_share_of_named_colors_is_the_neighbours():
    counts = Counter()
    for color in NEIGHBOURS:
        scene = scene_of(f"{color} circle")
        for seed in range(100):
            for text in generic_captions(scene, 0.5, 0.3, seed):
                counts.update("right" if said == color else said == NEIGHBOURS[color] for said in colors_said(text))
    assert counts[False] == 0
    assert counts[True] / (counts[True] + counts["right"]) == pytest.approx(0.3, abs=0.03)  # of about 2,000


def test_that_share_of_captions_names_an_object_too_many_and_the_rest_stays():
    bare = [text for scene in SCENES for text in generic_captions(scene, 0.5, 0.0)]
    texts = [text for scene in SCENES for text in generic_captions(scene, 0.5, 0.0, added=0.3)]
    more = [len(parse(text).mentions) - len(parse(without).mentions) for text, without in zip(texts, bare, strict=True)]
    assert set(more) == {0, 1}
    assert all(text == without for text, without, extra in zip(texts, bare, more, strict=True) if not extra)
    assert sum(more) / len(more) == pytest.approx(0.3, abs=0.036)  # of 1,500: three standard errors


def test_an_added_object_is_absent_contradicts_every_full_caption_and_costs_no_fact():
    for scene in SCENES[:60]:
        facts = scene_facts(scene)
        stated = [fact for fact in facts if fact.startswith(("shape:", "color:"))]
        present = {(item.color, item.shape) for item in scene.objects}
        for text in generic_captions(scene, 0.0, 0.0, added=1.0):
            named = {
                (value, mention.shape)
                for mention in parse(text).mentions
                for kind, value in mention.attributes
                if kind == "color"
            }
            (absent,) = named - present
            assert absent[1] in {item.shape for item in scene.objects}
            assert all(contradicts(text, reference) for reference in references(scene, "short"))
            assert score_caption(scene, text, stated).recall == 1


def test_neighbours_come_in_pairs():
    assert all(NEIGHBOURS[NEIGHBOURS[color]] == color != NEIGHBOURS[color] for color in NEIGHBOURS)


def test_captions_depend_on_the_seed_the_scene_and_their_number_alone():
    forwards = [generic_captions(scene, 0.5, 0.3) for scene in SCENES]
    backwards = [generic_captions(scene, 0.5, 0.3) for scene in reversed(SCENES)]
    assert forwards == backwards[::-1]
    assert forwards != [generic_captions(scene, 0.5, 0.3, seed=1) for scene in SCENES]


def test_the_captions_of_one_scene_drop_different_colors():
    patterns = {tuple(map(len, map(colors_said, generic_captions(scene, 0.5, 0.0)))) for scene in SCENES}
    assert sum(len(set(pattern)) > 1 for pattern in patterns) > len(patterns) / 2
