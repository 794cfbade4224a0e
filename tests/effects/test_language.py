"""System 29 on SceneWorld: a captioner of one dialect is scored on both (native and word for word from the English).

Two captioners of the same pictures, over the frozen features of one image encoder, differ in the dialect of their
training captions only. The cross-context gap of the paper is one of form: CIDEr falls on the other dialect, facts do
not. The table stands in docs/sceneworld.md.
"""

import json
from itertools import product

import pytest
from filelock import FileLock

from capkit.cli import main
from capkit.metrics.coco.cider import cider
from capkit.sceneworld.language.captions import listed
from capkit.sceneworld.language.grammar import Description
from capkit.sceneworld.language.languages import GRAMMARS
from capkit.sceneworld.language.parser import Mention, parse
from capkit.sceneworld.metrics.facts import fact_scores
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.options import WorldOptions

pytestmark = pytest.mark.effect

ONE_CORE = ["trainer=cpu", "trainer.devices=1"]
NUM_TEST = 200
COUNTS = ["data.train.count=800", "data.val.count=100", f"data.test.count={NUM_TEST}"]
TRAINING = ["max_steps=100", "val_every=100", "controls=0", "metric=[cider,facts]", "metric.cider.language=pt-BR"]
DIALECTS = ("native", "literal")
WORLD = WorldOptions(  # of data=sceneworld_pt_small
    shapes=("circle", "square", "triangle", "cross"),
    sizes=("large",),
    backgrounds=("white", "black"),
    min_objects=2,
    max_objects=2,
    inside_probability=0.0,
)
GAP = 1.0  # of CIDEr, in 0 .. 10
SAME = 0.05  # of fact F1


@pytest.fixture(scope="module")
def features(shared_runs, start):
    """What the image encoder of a captioner of English says of the pictures, which are the same for both dialects."""
    folder = shared_runs / "portuguese_features"
    with FileLock(f"{folder}.lock"), pytest.MonkeyPatch.context() as patch:
        patch.chdir(shared_runs)
        encoder = ["image_encoder._target_=capkit.checkpoint.loading.load_image_encoder", "~image_encoder.weights"]
        encoder += [f"image_encoder.ckpt={start('generic', 0)}", "recommended.image_size=32"]
        assert main(["prepare", "data=sceneworld_pt_small", *COUNTS, *encoder, f"data.features={folder}"]) == 0
    return folder


@pytest.fixture(scope="module")
def cells(run_once, features, seed):
    """By (dialect of training, dialect of test): the folder of an evaluation."""
    found = {}
    for dialect in DIALECTS:
        words = ["experiment=captioner_ptbr_sceneworld", f"data.train.dialect={dialect}", f"data.features={features}"]
        words += ["model.image_encoder=null", "model.feature_width=64", *COUNTS, *TRAINING, *ONE_CORE, f"seed={seed}"]
        run = found[dialect, dialect] = run_once(f"{dialect}_{seed}", words)
        other = next(name for name in DIALECTS if name != dialect)
        words = ["evaluate", f"ckpt={run}", f"data.train.dialect={other}", *ONE_CORE]
        found[dialect, other] = run_once(f"{dialect}_on_{other}_{seed}", words)
    return found


@pytest.fixture(scope="module")
def numbers(cells):
    return {cell: json.loads((folder / "metrics.json").read_text()) for cell, folder in cells.items()}


@pytest.fixture(scope="module")
def captions(cells):
    """By dialect: what its captioner wrote, in the order of the test scenes."""
    written = {}
    for dialect in DIALECTS:
        rows = json.loads((cells[dialect, dialect] / "predictions" / "test.json").read_text())
        by_key = {row["image_id"]: row["caption"] for row in rows}
        written[dialect] = [by_key[record.key] for record in records(dialect)]
    return written


def records(dialect):
    scenes = SceneWorld("test", NUM_TEST, size=32, style="short", options=WORLD, dialect=dialect)
    return [scenes.record(index) for index in range(NUM_TEST)]


def other_of(dialect):
    return next(name for name in DIALECTS if name != dialect)


def reworded(text, dialect):
    """The objects that a caption names, in the words of a dialect."""
    mentions = parse(text, "pt-BR").mentions
    return listed([(1, described(mention)) for mention in mentions], 0, GRAMMARS[dialect])


def described(mention: Mention) -> Description:
    said = dict(mention.attributes)
    return Description(mention.shape or "object", said.get("color", ""), said.get("size", ""))


def test_cider_is_higher_on_the_dialect_of_training(numbers, captions, measured):
    """Fails where the dialect is ignored: both captioners learn one, and a row's cells are equal.

    Control: the same captions, read and written again in the other dialect, lose nothing there.
    """
    for dialect in DIALECTS:
        other, what = other_of(dialect), f"CIDEr of the {dialect} captioner on its own dialect over the other"
        own = numbers[dialect, dialect]["test/cider"]
        assert measured(what, own - numbers[dialect, other]["test/cider"], ">=", GAP)
        references = [[item.text for item in record.captions] for record in records(other)]
        again = cider([reworded(text, other) for text in captions[dialect]], references, language="pt-BR")
        assert not measured(what, own - again, ">=", GAP, "its captions reworded in the other")


def test_facts_are_the_same_in_every_cell(numbers, measured):
    """Fails where the parser reads one dialect only. Control: captions of other pictures, in each cell."""
    scores = {cell: numbers[cell]["test/fact_f1"] for cell in product(DIALECTS, DIALECTS)}
    assert measured(
        "fact F1, most over least of the four cells", max(scores.values()) - min(scores.values()), "<", SAME
    )
    assert measured("fact F1, least of the four cells", min(scores.values()), ">=", 0.9)
    for cell in scores:
        lost = max(scores.values()) - numbers[cell]["test/shuffled/fact_f1"]
        assert not measured("fact F1 lost", lost, "<", SAME, f"{' on '.join(cell)}, captions of other pictures")


def test_facts_are_read_in_the_language_of_the_record(captions, measured):
    """Control: the English parser reads nothing of the same captions."""
    for dialect in DIALECTS:
        metadata = [record.metadata for record in records(dialect)]
        assert measured("fact F1", fact_scores(captions[dialect], metadata)["fact_f1"], ">=", 0.9)
        english = [{**row, "language": "en"} for row in metadata]
        found = fact_scores(captions[dialect], english)["fact_f1"]
        assert not measured("fact F1", found, ">=", 0.9, "read as English")
