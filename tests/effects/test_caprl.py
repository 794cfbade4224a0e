"""CapRL on SceneWorld: captions that leave colours out learn to name them, since questions are asked about colours.

Measured on held-out pictures by questions of two kinds that training never asked ("what shape is red?", "is there a red
circle?"), answered by an exact reader; answers and facts are the scenes'. Controls: questions of the next picture; a
reader that says the first letter where the caption tells nothing, without shuffling.

That fact precision falls by .02 at most, as was wanted, does not hold at every seed; its test, a study, fails there.
Short captions are paid too, "two crosses" for a cross and a triangle. Where 8 to 14 words are wanted it holds
(docs/question_rewards.md).
"""

import json

import pytest
from scene_controls import AnswerFirst

from capkit.config.arguments import parse
from capkit.config.compose import compose_config
from capkit.config.instantiate import build
from capkit.metrics.caption_qa import CaptionQA
from capkit.metrics.scoring import score_rows
from capkit.sceneworld.reading import SceneReader

pytestmark = pytest.mark.effect

BRIEF = [
    "controls=0", "val_every=60", "data.train.source.count=960", "data.val.source.count=24",
    "data.test.source.count=200", "trainer=cpu", "trainer.devices=1",
]  # fmt: skip
TOLD = ["count", "color", "shape", "exists"]  # the kinds that captions of this world can answer
TERM = "reward.question_answering"
WANTED = ["max_steps=120", "val_every=120"]  # 8 to 14 words; whole captions have 9
LONG = ["max_steps=200", "val_every=200"]
# As CapRL++'s, at this world's size: an upper bound; captions are cut after 16 tokens.
LENGTH = [
    "reward=[question_answering_scenes,length]", "reward.length.weight=0.2", "reward.length.scorer.shortest=0",
    "reward.length.scorer.longest=10", "reward.length.scorer.fall_off=4",
]  # fmt: skip
LAZY = [f"{TERM}.scorer.reader.unknown=first", f"{TERM}.scorer.questions._target_=scene_controls.AnswerFirst"]


@pytest.fixture(scope="module")
def tuned(run_once, start, seed):
    """The folder of a run."""

    def run(*words, experiment="caprl_sceneworld"):
        given = [f"experiment={experiment}", f"init_from={start('generic', seed)}", f"seed={seed}"]
        return run_once(experiment, [*given, *BRIEF, *words])

    return run


def gain(folder, name):
    numbers = json.loads((folder / "metrics.json").read_text())
    return numbers[f"test/{name}"] - numbers[f"test/initial/{name}"]


def test_questions_of_kinds_that_were_not_asked_are_answered_on_held_out_pictures(tuned, measured):
    folder = tuned()
    assert measured("gain in accuracy", gain(folder, "caption_qa_accuracy"), ">", 0.15)
    assert measured("gain in facts stated", gain(folder, "fact_recall"), ">", 0.1)


def test_questions_of_the_next_picture_teach_nothing(tuned, measured):
    folder = tuned(experiment="caprl_shuffled_sceneworld")
    assert not measured("gain in accuracy", gain(folder, "caption_qa_accuracy"), ">", 0.15, control="next picture")
    assert measured("gain under the next picture's questions", gain(folder, "caption_qa_accuracy"), "<=", 0.03)


@pytest.mark.study
def test_facts_stay_as_true_as_they_were(tuned, measured):
    control = tuned(experiment="caprl_shuffled_sceneworld")
    assert not measured("gain in fact precision", gain(control, "fact_precision"), ">=", -0.02, control="next picture")
    assert measured("gain in fact precision", gain(tuned(), "fact_precision"), ">=", -0.02)


@pytest.mark.nightly
def test_facts_stay_true_where_whole_captions_are_wanted(tuned, measured):
    folder = tuned("reward=[question_answering_scenes,length]", *WANTED)
    assert measured("gain in accuracy, 8 to 14 words", gain(folder, "caption_qa_accuracy"), ">", 0.15)
    assert measured("gain in facts stated, 8 to 14 words", gain(folder, "fact_recall"), ">", 0.1)
    what = "gain in fact precision, 8 to 14 words"
    assert measured(what, gain(folder, "fact_precision"), ">=", -0.02)
    control = tuned("reward=[question_answering_shuffled,length]", *WANTED, experiment="caprl_shuffled_sceneworld")
    assert not measured(what, gain(control, "fact_precision"), ">=", -0.02, control="next picture")


@pytest.mark.nightly
def test_an_upper_bound_on_length_costs_no_accuracy(tuned, measured):
    found = {name: shape(tuned(*LONG, *words)) for name, words in {"without": [], "with": LENGTH}.items()}
    for name, numbers in found.items():
        for what, value in numbers.items():
            measured(f"{what}, {name} the length term", value, ">=", 0.0)
    assert measured("accuracy, with - without", found["with"]["accuracy"] - found["without"]["accuracy"], ">=", -0.05)


def shape(folder):
    """Accuracy, fact precision, words and repetition of held-out captions; the share of samples cut at the length."""
    numbers = json.loads((folder / "metrics.json").read_text())
    names = {"accuracy": "caption_qa_accuracy", "fact precision": "fact_precision", "words": "length"}
    found = {what: numbers[f"test/{name}"] for what, name in {**names, "repetition": "repetition"}.items()}
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return {**found, "share cut": [row["rl/hit_max_length"] for row in rows if "rl/hit_max_length" in row][-1]}


@pytest.mark.nightly
def test_a_reader_that_likes_the_first_letter_is_fooled_by_the_order_of_the_file_alone(tuned, measured):
    unshuffled = how_much_more(tuned(*LAZY, f"{TERM}.scorer.shuffle=false"), shuffle=False)
    assert measured("lazy reader above the exact one", unshuffled, ">", 0.1)
    shuffled = how_much_more(tuned(*LAZY), shuffle=True)
    assert not measured("lazy reader above the exact one", shuffled, ">", 0.1, control="shuffled options")
    assert measured("lazy reader above the exact one, shuffled", abs(shuffled), "<=", 0.03)


def how_much_more(folder, shuffle):
    """Accuracy of a reader that says the first letter where it does not know, minus that of the exact one.

    On the run's held-out captions, the right answer first in the file. Over questions that no caption answers, a guess
    among n options is right by chance, whatever was trained.
    """
    source = build(compose_config(parse(["experiment=caprl_sceneworld", *BRIEF])).config.data.test)
    source.prepare()
    scenes = {source.record(i).key: source.record(i).metadata for i in range(len(source))}
    rows = [
        {"key": row["image_id"], "caption": row["caption"], "references": [], "metadata": scenes[row["image_id"]]}
        for row in json.loads((folder / "predictions" / "test.json").read_text())
    ]
    found = [
        score_rows(rows, {"qa": CaptionQA(SceneReader(unknown), AnswerFirst(kinds=TOLD), shuffle=shuffle)})
        for unknown in ("first", "abstain")
    ]
    return found[0]["caption_qa_accuracy"] - found[1]["caption_qa_accuracy"]
