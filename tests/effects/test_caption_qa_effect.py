"""CaptionQA on SceneWorld: what a caption is worth to an exact reader, 500 pictures.

Expected values come from the scene: questions, answers and captions are the world's, the score of an empty caption
follows from the numbers of choices. Controls: human captions miss the dense ones' score, captions of other pictures do
not fall as sentences are deleted, true colours are no worse than nothing, and without shuffling and with the right
answer first in the file a reader that says the first letter where it does not know gains .2 and more.

Taken away by hand, on seed 0: an abstain option worth 0 fails the formula of an empty caption and the test of wrong
colours; orders from one stream instead of (seed, picture, question) fail `test_a_picture_that_is_dropped...`; a reader
that counts mentions without a total, or reads relations off the wrong places, fails the test of denser captions.
"""

from dataclasses import replace

import numpy as np
import pytest
from scene_controls import AnswerFirst

from capkit.metrics.caption_qa import CaptionQA
from capkit.metrics.correlation import spearman
from capkit.metrics.scoring import score_rows
from capkit.readers.question_sets import Item
from capkit.sceneworld.language.captions import caption
from capkit.sceneworld.language.questions import YES_NO, questions
from capkit.sceneworld.reading import SceneQuestions, SceneReader
from capkit.sceneworld.world.options import COLORS, WorldOptions
from capkit.sceneworld.world.scene import make_scene

pytestmark = pytest.mark.effect

NUM_SCENES, MARGIN = 500, 0.05


@pytest.fixture(scope="module")
def scenes(seed):
    return [make_scene(WorldOptions(), seed, "test", index) for index in range(NUM_SCENES)]


def score(scenes, texts, reader="abstain", source=None, **settings):
    metric = CaptionQA(SceneReader(reader), source or SceneQuestions(), **settings)
    rows = [
        {"key": str(i), "caption": text, "references": [], "metadata": {"scene": scene.to_dict()}}
        for i, (scene, text) in enumerate(zip(scenes, texts, strict=True))
    ]
    return score_rows(rows, {"qa": metric})


@pytest.fixture(scope="module")
def found(scenes):
    """The numbers of captions of each style, and of empty ones."""
    styles = {style: score(scenes, captions(scenes, style)) for style in ("dense", "human", "short")}
    return styles | {"empty": score(scenes, [""] * len(scenes))}


def captions(scenes, style):
    return [caption(scene, style).text for scene in scenes]


def wrong_colors(scene):
    """Every object in another colour."""
    colors = list(COLORS)
    objects = tuple(
        replace(item, color=colors[(colors.index(item.color) + 1 + number) % len(colors)])
        if (colors.index(item.color) + 1 + number) % len(colors) != colors.index(item.color)
        else replace(item, color=colors[(colors.index(item.color) + 1) % len(colors)])
        for number, item in enumerate(scene.objects)
    )
    return replace(scene, objects=objects)


def by_formula(scene):
    """An empty caption: 1 / choices + .05 where one may abstain; of yes and no the "no" is right."""
    return [
        float(q.answer == "no") if set(q.choices) == set(YES_NO) else 1 / len(q.choices) + 0.05
        for q in questions(scene)
    ]


def test_denser_captions_are_worth_more_and_an_empty_one_what_its_formula_says(scenes, found, measured):
    found = {style: numbers["caption_qa"] for style, numbers in found.items()}
    empty = found["empty"]
    assert measured("dense", found["dense"], ">=", 0.95)
    assert not measured("dense", found["human"], ">=", 0.95, control="human captions")
    assert measured("dense - human", found["dense"] - found["human"], ">=", MARGIN)
    assert measured("human - short", found["human"] - found["short"], ">=", MARGIN)
    assert measured("short - empty", found["short"] - empty, ">=", MARGIN)
    expected = np.mean([value for scene in scenes for value in by_formula(scene)])
    assert measured("empty", empty, "<=", 0.4) and empty == pytest.approx(expected, abs=1e-9)


def test_the_score_falls_with_every_sentence_that_is_deleted(scenes, found, measured, seed):
    random = np.random.default_rng(seed)
    sentences = [text.removesuffix(".").split(". ") for text in captions(scenes, "dense")]
    orders = [random.permutation(len(parts)) for parts in sentences]

    def scores(pictures, numbers):
        deleted = [
            [
                ". ".join(part for place, part in enumerate(parts) if place not in order[:number]) + "."
                for parts, order in zip(sentences, orders, strict=True)
            ]
            for number in numbers
        ]
        return [score(pictures, texts[: len(pictures)])["caption_qa"] for texts in deleted]

    falling = [found["dense"]["caption_qa"], *scores(scenes, range(1, 6))]
    assert measured("Spearman of score and deleted sentences", spearman(range(6), falling), "<=", -0.95)
    assert measured("fall by five sentences", falling[0] - falling[-1], ">=", 0.15)
    first, last = scores(scenes[1:101], (0, 5))  # each caption is that of the scene before
    assert not measured("fall by five sentences", first - last, ">=", 0.15, control="captions of other pictures")


def test_wrong_colors_are_worth_less_than_nothing_where_one_may_abstain(scenes, found, measured):
    wrong = score(scenes, [caption(wrong_colors(scene), "dense").text for scene in scenes])
    counted = {"true": found["dense"], "empty": found["empty"], "wrong": wrong}
    found = {}
    for name, numbers in counted.items():
        counts = {kind: sum(q.kind == kind for s in scenes for q in questions(s)) for kind in ("color", "shape")}
        found[name] = sum(numbers[f"caption_qa/{kind}"] * counts[kind] for kind in counts) / sum(counts.values())
    assert measured("wrong - empty", found["wrong"] - found["empty"], "<", -MARGIN)
    assert not measured("wrong - empty", found["true"] - found["empty"], "<", -MARGIN, control="true colours")
    assert measured("true - empty", found["true"] - found["empty"], ">", 0.5)


def test_another_seed_of_orders_changes_nothing_for_who_knows_no_letters(scenes, found, measured):
    texts = captions(scenes, "human")
    assert score(scenes, texts, seed=1)["caption_qa"] == found["human"]["caption_qa"]
    lazy = [score(scenes, texts, "first", seed=seed)["caption_qa"] for seed in (0, 1)]
    assert measured("change by another seed", abs(lazy[0] - lazy[1]), "<", 0.02)
    unshuffled = score(scenes, texts, "first", AnswerFirst(), shuffle=False)["caption_qa"]
    assert not measured(
        "change by another seed", abs(unshuffled - lazy[0]), "<", 0.02, control="answer first, unshuffled"
    )
    assert measured("gain of the first letter", unshuffled - lazy[0], ">=", 0.2)
    shuffled = score(scenes, texts, "first", AnswerFirst())["caption_qa"]
    assert not measured("gain of the first letter", shuffled - lazy[0], ">=", 0.2, control="answer first, shuffled")


def test_a_picture_that_is_dropped_changes_no_other_question(scenes):
    texts = captions(scenes, "human")[:40]
    keys = [str(i) for i in range(40)]
    metric = CaptionQA(SceneReader("first"), SceneQuestions())
    metadata = [{"key": key, "scene": scene.to_dict()} for key, scene in zip(keys, scenes, strict=False)]
    whole = metric.judge(texts, [[]] * 40, metadata)
    part = metric.judge(texts[1:], [[]] * 39, metadata[1:])
    assert [found.values for found in part] == [found.values for found in whole[1:]]
    assert isinstance(metric.questions.of("0", metadata[0])[0], Item)
