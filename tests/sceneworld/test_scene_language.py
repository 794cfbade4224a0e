"""Captions: what they say, how long they are, how their words are tagged."""

from dataclasses import replace
from itertools import pairwise

import pytest

from capkit.errors import UsageError
from capkit.sceneworld.language.captions import caption, reference_captions, references
from capkit.sceneworld.language.english import TAG_OF, tag_words
from capkit.sceneworld.language.facts import scene_facts
from capkit.sceneworld.language.lexicon import words_of
from capkit.sceneworld.language.plan import STYLES, Detail
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.scene import Scene, SceneObject, make_scene

SCENES = [make_scene(WorldOptions(text_probability=0.2), 0, "train", i) for i in range(80)]
PAIR = Scene(
    (SceneObject("circle", "red", "large", 1 / 6, 0.5), SceneObject("square", "orange", "small", 5 / 6, 0.5)), "white"
)


def test_captions_of_two_objects_read_as_expected() -> None:
    assert caption(PAIR, "short").text == "a red circle and an orange square"
    assert caption(PAIR, "human").text == "a large red circle to the left of a small orange square"
    assert caption(PAIR, "human", 3).text == "we see a big red circle with a little orange square to its right"
    assert caption(PAIR, "human", 4).text == "this shows a small orange square right of a large red circle".replace(
        "small", "tiny"
    )
    assert caption(PAIR, "dense").text == (
        "there are two shapes on a white background. a large red circle is in the middle left. "
        "a small orange square is in the middle right. the red circle is to the left of the orange square."
    )


def test_equal_descriptions_are_grouped_in_the_short_style() -> None:
    items = [SceneObject("cross", "blue", "small", x, 0.5) for x in (1 / 6, 0.5, 5 / 6)]
    scene = Scene(tuple(items), "white")
    assert caption(scene, "short").text == "three blue crosses"
    bare = caption(scene, "short", detail=replace(STYLES["short"], color=False))
    assert bare.text == "three crosses" and "count:cross=3" in bare.facts
    two = caption(scene, "short", detail=replace(STYLES["short"], color=False, num_objects=2))
    assert two.text == "a cross and a cross"  # "two crosses" would be wrong: there are three


def test_five_references_differ_in_words_and_state_the_same_true_facts() -> None:
    for scene in SCENES:
        for style in ("short", "human", "dense"):
            captions = reference_captions(scene, style)
            assert len({item.facts for item in captions}) == 1
            assert set(captions[0].facts) <= set(scene_facts(scene))
            assert len(set(captions[0].facts)) == len(captions[0].facts)
        assert len(set(references(scene))) == 5


def test_human_references_name_every_object_with_colour_and_size() -> None:
    for scene in SCENES:
        said = caption(scene, "human").facts
        for i, item in enumerate(scene.objects):
            assert {f"shape:{i}={item.shape}", f"color:{i}={item.color}", f"size:{i}={item.size}"} <= set(said)


def test_default_human_references_fit_in_32_tokens_with_their_end() -> None:
    lengths = [
        len(words_of(text)) for i in range(120) for text in references(make_scene(WorldOptions(), 1, "train", i))
    ]
    assert max(lengths) <= 31


def test_detail_decides_length_and_facts() -> None:
    scene = next(scene for scene in SCENES if len(scene.objects) == 5)
    words = [len(caption(scene, style).words) for style in ("short", "human", "dense")]
    assert words == sorted(words) and words[2] > 2 * words[1]
    by_number = [len(caption(scene, "dense", detail=Detail(num_objects=n)).words) for n in (1, 2, 3, 4, 5)]
    assert by_number == sorted(set(by_number))
    plain = caption(scene, "human", detail=Detail(color=False))
    assert not any(fact.startswith("color") for fact in plain.facts)


@pytest.mark.parametrize("style", ["short", "human", "dense"])
def test_each_flag_adds_its_facts_and_words(style: str) -> None:
    base = replace(STYLES[style], size=False, background=False)
    for flag, kind in (("size", "size:"), ("background", "background=")):
        less, more = caption(PAIR, style, detail=base), caption(PAIR, style, detail=replace(base, **{flag: True}))
        added = set(more.facts) - set(less.facts)
        assert added and all(fact.startswith(kind) for fact in added)
        assert len(more.words) > len(less.words)


def test_noisy_captions_drop_most_attributes_and_some_are_unrelated() -> None:
    noisy = [caption(scene, "noisy", v) for scene in SCENES for v in range(5)]
    clean = [caption(scene, "human", v) for scene in SCENES for v in range(5)]
    empty = sum(not item.facts for item in noisy) / len(noisy)
    assert 0.15 < empty < 0.35
    named = sum(fact.startswith("color") for item in noisy for fact in item.facts)
    assert named < 0.4 * sum(fact.startswith("color") for item in clean for fact in item.facts)
    wrong = [set(item.facts) - set(scene_facts(SCENES[i // 5])) for i, item in enumerate(noisy)]
    assert 0.02 < sum(bool(facts) for facts in wrong) / len(noisy) < 0.4


def test_noise_is_keyed_by_scene_variant_and_seed() -> None:
    texts = [caption(SCENES[0], "noisy", seed=seed).text for seed in range(12)]
    assert texts == [caption(SCENES[0], "noisy", seed=seed).text for seed in range(12)]
    assert len(set(texts)) > 4
    assert references(SCENES[0], "noisy") == [caption(SCENES[0], "noisy", v).text for v in range(5)]


def test_every_word_of_a_caption_has_its_penn_tag() -> None:
    item = caption(PAIR, "human")
    assert list(zip(item.words, item.tags, strict=True)) == [
        ("a", "DT"), ("large", "JJ"), ("red", "JJ"), ("circle", "NN"), ("to", "TO"), ("the", "DT"), ("left", "NN"),
        ("of", "IN"), ("a", "DT"), ("small", "JJ"), ("orange", "JJ"), ("square", "NN"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("there are two circles.", "EX VBP CD NNS ."),
        ("a circle with a star inside", "DT NN IN DT NN RB"),
        ("a circle with a star inside it", "DT NN IN DT NN IN PRP"),
        ("a star inside a circle", "DT NN IN DT NN"),
        ("a circle that contains a star", "DT NN WDT VBZ DT NN"),
        ("we see a cross with a star to its right", "PRP VBP DT NN IN DT NN TO PRP$ NN"),
        ("and the letter a", "CC DT NN NN"),
        ("the number 42", "DT NN CD"),
        ("it contains a star, plus an orange moon", "PRP VBZ DT NN , CC DT JJ NN"),
    ],
)
def test_tags_by_hand(text: str, tags: str) -> None:
    assert tag_words(words_of(text)) == tags.split()


def test_every_word_that_the_grammar_writes_has_a_tag_of_its_own() -> None:
    drawn = {"word", "letter", "number", "reads"}
    for scene in SCENES[:40]:
        for style in ("short", "human", "dense"):
            for item in reference_captions(scene, style):
                pairs = pairwise(["", *item.words])
                assert {word for before, word in pairs if before not in drawn} <= set(TAG_OF)


@pytest.mark.parametrize(
    ("style", "variant", "detail", "message"),
    [
        ("shrot", 0, None, "did you mean 'short'"),
        ("short", 5, None, "variant"),
        ("short", 0, Detail(relations=1), "human or dense"),
        ("human", 0, Detail(relations=2), "dense"),
        ("noisy", 0, replace(STYLES["noisy"], count=True), "count"),
    ],
)
def test_what_a_style_cannot_say_is_refused(style: str, variant: int, detail: Detail | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        caption(PAIR, style, variant, detail=detail)
