"""Modular captioners on SceneWorld: the controller learns what a word is, and modules do what they are called.

Captioners read features of a frozen CNN, a start of other effects, in the objects' true boxes. Words come from held-out
captions, whose shapes and colours are the scenes', and their classes from SceneWorld's grammar. The tables of
docs/modular.md are made of these numbers (`python -m benchmarks.modular_effects`).
"""

import json

import numpy as np
import pytest
from gold_prefixes import words_of

from capkit.sceneworld.world.options import COLORS, SHAPES

pytestmark = pytest.mark.effect

ONE_CORE = ["trainer=cpu", "trainer.devices=1"]
COUNTS = ["data.train.count=3200", "data.val.count=32", "data.test.count=200"]
BRIEF = [*ONE_CORE, *COUNTS, "controls=0", "callback=[recorder,checkpoints]"]
RIGHT, WITHOUT = 0.9, 0.6  # of the controller, with the linguistic term and without
MORE = 0.2  # words lost by one class over another when its module is silent


@pytest.fixture(scope="session")
def features(run_once, start):
    """Folders of features: of the objects' boxes, and of all cells."""

    def of(kind: str) -> str:
        encoder = [
            "image_encoder._target_=capkit.checkpoint.loading.load_image_encoder",
            "~image_encoder.weights",
            f"+image_encoder.ckpt={start('hallucinating', 0)}",
            "recommended.image_size=32",
        ]
        words = ["prepare", "data=sceneworld_modular", *COUNTS, *encoder, f"boxes={str(kind == 'boxes').lower()}"]
        return str(run_once(f"modular {kind}", [*words, "data.features=${run_dir}"], "keys.json"))

    return of


@pytest.fixture(scope="session")
def trained(run_once, features):
    """The run of an experiment with a seed and further words, of one block where nothing else is said."""

    def of(experiment: str, seed: int, *words: str, kind: str = "boxes", steps: int = 130):
        lengths = [f"max_steps={steps}", f"val_every={steps}"]
        own = [f"experiment={experiment}", f"data.features={features(kind)}", f"seed={seed}", *lengths, *BRIEF, *words]
        return run_once(experiment, own)

    return of


def numbers(run):
    return json.loads((run / "metrics.json").read_text())


WITHOUT_TERM = "objective.weight=0"
UNIFORM = (WITHOUT_TERM, "model.controller=uniform")
SHORT = ("model.blocks=1", "optimizer.lr=6e-3")  # CNM's controller in a quarter of the time


def test_the_controller_knows_what_a_word_is_for(trained, seed, measured):
    words = words_of(trained("cnm_sceneworld", seed, *SHORT))
    np.testing.assert_allclose(words.weights.sum(1), 1, atol=1e-6)
    assert measured("controller accuracy", words.controller(), ">=", RIGHT)


def losses(run):
    """Accuracy of colours and of shapes that silencing a module costs: (colours, shapes) of attribute and object."""
    whole = words_of(run)
    silent = {name: words_of(run, name) for name in ("attribute", "object")}
    return {
        name: tuple(whole.right_of(kind) - words.right_of(kind) for kind in (COLORS, SHAPES))
        for name, words in silent.items()
    }


def test_modules_do_what_they_are_called(trained, seed, measured):
    lost = losses(trained("cnm_sceneworld", seed, *SHORT))
    (colors, shapes), (other_colors, other_shapes) = lost["attribute"], lost["object"]
    assert measured("silent attributes: colours lost, less shapes", colors - shapes, ">=", MORE)
    assert measured("silent objects: shapes lost, less colours", other_shapes - other_colors, ">=", MORE)


@pytest.mark.nightly
def test_without_the_linguistic_term_neither_is_so(trained, seed, measured):
    run = trained("cnm_sceneworld", seed, *SHORT, WITHOUT_TERM)
    words, lost = words_of(run), losses(run)
    assert measured("controller accuracy without the term", words.controller(), "<=", WITHOUT)
    assert measured("the same, modules named as fits best", words.matched(), "<=", WITHOUT)
    (colors, shapes), (other_colors, other_shapes) = lost["attribute"], lost["object"]
    both = min(colors - shapes, other_shapes - other_colors)
    assert not measured("the smaller of the two that silence costs", both, ">=", MORE, "without the term")


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["boxes", "cells"])
def test_cvlnm_knows_it_too_also_of_all_cells(kind, trained, seed, measured):
    run = trained("cvlnm_sceneworld", seed, kind=kind, steps=200)
    assert measured(f"controller accuracy, {kind}", words_of(run).controller(), ">=", RIGHT)
    spread = words_of(trained("cnm_sceneworld", seed, *SHORT, *UNIFORM)).weights.std()
    assert not measured("spread of a uniform controller's weights", spread, ">", 0, "uniform")


@pytest.mark.study
def test_a_memory_is_reported(trained, seed, measured):
    """No threshold: what it changes is within what seeds differ by."""
    for name, words in (("with", ()), ("without", ("model.memory=null",))):
        found = numbers(trained("cvlnm_sceneworld", seed, *words, steps=200))
        assert measured(f"CIDEr-D {name} memory", 100 * found["test/cider"], ">", 0)
        assert measured(f"fact F1 {name} memory", found["test/fact_f1"], ">", 0)


FEWER_CAPTIONS = {
    "one caption": ("data.train._target_=scene_controls.OneCaption",),
    "10 % of images": ("data.train.count=320",),
}


@pytest.mark.study
@pytest.mark.parametrize("fewer", FEWER_CAPTIONS)
def test_few_captions_cost_less_than_with_a_uniform_controller(fewer, trained, seeds, measured):

    def lost(*words):
        """Of CIDEr-D and of fact F1, the share that fewer captions cost, in the mean of seeds."""
        runs = [
            [numbers(trained("cnm_sceneworld", seed, *SHORT, *words, *more)) for seed in seeds]
            for more in ((), FEWER_CAPTIONS[fewer])
        ]
        names = ("test/cider", "test/fact_f1")
        return [np.mean([1 - less[name] / whole[name] for whole, less in zip(*runs, strict=True)]) for name in names]

    (cider, facts), (uniform_cider, uniform_facts) = lost(), lost(*UNIFORM)
    found = [
        measured("relative CIDEr-D lost", cider, "<", uniform_cider),
        measured("relative fact F1 lost", facts, "<", uniform_facts),
    ]
    assert all(found), found


@pytest.mark.study
@pytest.mark.parametrize("name", ["cnm", "cvlnm"])
def test_self_critical_training_gains_cider_and_not_by_other_images(name, trained, seed, measured):
    begun = trained(f"{name}_sceneworld", seed)
    gains = {}
    for reward in ("cider", "cider_shuffled"):
        words = (f"init_from={begun}", f"reward=[{reward}]")
        found = numbers(trained(f"{name}_scst_sceneworld", seed, *words))
        gains[reward] = 100 * (found["test/cider"] - found["test/initial/cider"])
    found = [
        measured("points of CIDEr-D gained", gains["cider"], ">=", 3),
        measured("points of CIDEr-D gained by a shuffled reward", gains["cider_shuffled"], "<", 1),
    ]
    assert all(found), found
