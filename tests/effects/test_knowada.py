"""KnowAda: what a student that sees no colours cannot tell leaves the captions, and nothing else does.

The student guesses one of eight colours, anew for each answer, and is right about all the rest. So the questions about
colour are unknown, by the scene alone, but for those that it guessed right four times of ten. Controls: the same number
of questions of each picture drawn at random, and the same grades at the published 8 of 10, where recall is .88.

Taken away by hand: a student that sees (`SceneVision._guessed` returns the scene) finds nothing unknown, and the first
two tests fail; so they do where `without` leaves the attributes that are asked for.
"""

import numpy as np
import pytest

from capkit.curation.knowada_files import read_knowada
from capkit.curation.steps.adapt_to_student import AdaptToStudent
from capkit.data.records import Caption, Record
from capkit.sceneworld.language.asking import without
from capkit.sceneworld.language.captions import caption
from capkit.sceneworld.language.oracles import score_caption
from capkit.sceneworld.language.parser import parse
from capkit.sceneworld.llm import SceneLM, SceneVision
from capkit.sceneworld.world.render import render
from capkit.sceneworld.world.scene import WorldOptions, make_scene
from capkit.utils.rng import generator

pytestmark = pytest.mark.effect

NUM_SCENES, FOUND = 100, 0.95


def adapted(folder, seed, student, num_scenes=NUM_SCENES):
    """Scenes, captions before, records after, and by picture the grades of each question and the unknown ones."""
    scenes = [make_scene(WorldOptions(), seed, "train", index) for index in range(num_scenes)]
    texts = [caption(scene, "dense").text for scene in scenes]
    records = [
        Record(str(i), captions=[Caption(text)], metadata={"scene": scene.to_dict()})
        for i, (scene, text) in enumerate(zip(scenes, texts, strict=True))
    ]
    step = AdaptToStudent(
        SceneLM(), student, SceneLM(), threshold=7, tables=str(folder / "tables"), cache_dir=str(folder / "answers")
    )
    step.attach_images(lambda key: render(scenes[int(key)], 32))
    after = list(step(lambda: records))
    _, judged = read_knowada(folder / "tables" / "judgments.csv")
    _, listed = read_knowada(folder / "tables" / "difficult_questions_list.csv")
    grades = {i: {item.question: item.grades for item in picture.asked} for i, picture in judged.items()}
    return scenes, texts, after, grades, {i: set(picture.unknown) for i, picture in listed.items()}


@pytest.fixture(scope="module")
def blind(tmp_path_factory, seed):
    return adapted(tmp_path_factory.mktemp("knowada"), seed, SceneVision(blind=["color"], seed=seed))


def is_about_colour(question):
    return question.startswith("what color")


def found(grades, unknown):
    """Precision and recall of the unknown questions, as those about colour."""
    truth = {(i, q) for i, asked in grades.items() for q in asked if is_about_colour(q)}
    said = {(i, q) for i, asked in unknown.items() for q in asked}
    return len(truth & said) / len(said), len(truth & said) / len(truth)


def at_random(grades, unknown, seed):
    """As many questions of each picture, drawn."""
    drawn = {}
    for i, asked in grades.items():
        order = generator(seed, "control", i).permutation(len(asked))
        drawn[i] = {list(asked)[place] for place in order[: len(unknown[i])]}
    return drawn


def test_what_the_student_does_not_know_are_the_colours(blind, seed, measured):
    _, _, _, grades, unknown = blind
    precision, recall = found(grades, unknown)
    at_8 = {i: {q for q, given in asked.items() if given.count(1) >= 8} for i, asked in grades.items()}
    assert measured("precision", precision, ">=", FOUND) and measured("recall", recall, ">=", FOUND)
    for name, value in zip(("precision", "recall"), found(grades, at_random(grades, unknown, seed)), strict=True):
        assert not measured(name, value, ">=", FOUND, "as many questions at random")
    assert not measured("recall", found(grades, at_8)[1], ">=", FOUND, "8 of 10, as published")


def test_the_captions_lose_their_colours_and_nothing_else(blind, seed, measured):
    """Facts are counted in the text by the parser, and held to the scene."""
    scenes, texts, after, grades, unknown = blind
    no_shapes = {i: {q: g for q, g in asked.items() if not q.startswith("what shape")} for i, asked in grades.items()}
    drawn = at_random(no_shapes, unknown, seed)  # an object without shape and size has no words
    control = [without(parse(text), drawn[i]) for i, text in enumerate(texts)]
    result = {}
    for name, new in (("adapted", [record.captions[0].text for record in after]), ("control", control)):
        pairs = list(zip(map(parse, texts), map(parse, new), strict=True))
        kept = {}
        for kind, is_kind in (("colours", is_colour), ("others", lambda fact: not is_colour(fact))):
            counts = [[sum(map(is_kind, side.facts)) for side in pair] for pair in pairs]
            kept[kind] = sum(b for _, b in counts) / sum(a for a, _ in counts)
        result[name] = kept
        true = [score_caption(scene, text, []).precision for scene, text in zip(scenes, new, strict=True)]
        assert np.mean(true) == 1.0
    assert measured("colours left", result["adapted"]["colours"], "<", 0.1)
    assert measured("other facts left", result["adapted"]["others"], ">", 0.95)
    assert not measured("colours left", result["control"]["colours"], "<", 0.1, "as many facts at random")
    assert not measured("other facts left", result["control"]["others"], ">", 0.95, "as many facts at random")


def is_colour(fact):
    return fact.startswith("color:")


def test_a_student_that_sees_leaves_every_caption_as_it_was(tmp_path, seed):
    """One object of a hundred is seen wrongly, so that ten answers can differ."""
    _, texts, after, _, unknown = adapted(tmp_path, seed, SceneVision(wrong=0.01, seed=seed), 20)
    assert [record.captions[0] for record in after] == [Caption(text) for text in texts]
    assert not any(unknown.values())
