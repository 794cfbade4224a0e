"""Every metric whose models are asked: in two processes that share its questions, and in one that was interrupted."""

import json

import pytest

from capkit.distributed.collectives import rank
from capkit.judges.chat_judge import ChatJudge
from capkit.judges.chat_verifier import ChatVerifier
from capkit.judges.decomposers import ChatDecomposer
from capkit.judges.matchers import ChatMatcher
from capkit.llm.base import Answer
from capkit.metrics.arena.arena_metric import Arena
from capkit.metrics.caption_qa import CaptionQA
from capkit.metrics.dcscore import DCScore
from capkit.metrics.dnli import DNLI
from capkit.metrics.open_chair import OpenCHAIR
from capkit.metrics.prism import Prism
from capkit.metrics.scoring import score_rows
from capkit.readers.chat import ChatReader
from capkit.sceneworld.chat.sections import sections
from capkit.sceneworld.language.captions import caption, references
from capkit.sceneworld.language.nouns import SceneNouns
from capkit.sceneworld.llm import SceneLM
from capkit.sceneworld.reading import SceneQuestions
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.scene import make_scene
from capkit.testing.distributed import run_distributed
from capkit.utils.rng import stable_hash

pytestmark = pytest.mark.integration

NUM_SCENES = 7  # no multiple of the ranks
NAMES = ("caption_qa", "prism", "dcscore", "dnli", "open_chair", "arena")


class Counted:
    """SceneWorld's language model; letters and numbers are drawn by the question. Some replies cannot be read."""

    takes_pictures = False
    can_be_read = False

    def __init__(self):
        self.asked = []

    def about(self):
        return {"model": "counted"}

    def ask(self, questions):
        self.asked += [question.text for question in questions]
        return [self.answer(question) for question in questions]

    def answer(self, question):
        draw = stable_hash("counted", question.text)
        if draw % 7 == 0 and not self.can_be_read:
            return Answer("I would rather not say")
        if "boxed" in question.text:
            return Answer(f"\\boxed{{{draw % 2}}}")
        return SceneLM().ask([question])[0] if sections(question.text) else Answer("AB"[draw % 2])


class Interrupted(Counted):
    """The same, every reply of which can be read, until a Ctrl-C after so many answers."""

    can_be_read = True

    def __init__(self, num_answers):
        super().__init__()
        self.num_answers = num_answers

    def ask_each(self, questions):
        for place, question in enumerate(questions):
            if len(self.asked) == self.num_answers:
                raise KeyboardInterrupt
            self.asked.append(question.text)
            yield place, self.answer(question)


def rows():
    scenes = [make_scene(WorldOptions(), 0, "test", index) for index in range(NUM_SCENES)]
    texts = [caption(scene, "human").text for scene in scenes]
    return [
        {
            "key": str(index),
            "caption": texts[index - index % 2],  # every other one is that of the scene before
            "references": references(scene, "dense"),
            "metadata": {"scene": scene.to_dict()},
        }
        for index, scene in enumerate(scenes)
    ]


def metric(name, folder, model):
    kept = {"cache_dir": f"{folder}/{name}-{rank()}"}  # as on machines without a common disk
    if name == "caption_qa":
        return CaptionQA(ChatReader(model, **kept), SceneQuestions(), max_failed=1.0)
    if name == "prism":
        return Prism(f"{folder}/prism.json", text_lm=model, max_failed=1.0, **kept)
    if name == "open_chair":
        return OpenCHAIR(model, SceneNouns(), max_failed=1.0, **kept)
    if name == "arena":
        judge = ChatJudge(model, "arena_text_v1", sees=False, **kept)
        return Arena(judge, {"base": f"{folder}/base.json"}, both_orders=True, max_failed=1.0)
    decomposer, verifier = ChatDecomposer(model, **kept), ChatVerifier(model, **kept)
    if name == "dnli":
        return DNLI(decomposer, verifier, max_failed=1.0)
    return DCScore(decomposer, ChatMatcher(model, **kept), verifier, max_failed=1.0)


def scored(folder):
    """The numbers of each metric, and the questions that this process put for it."""
    found = {}
    for name in NAMES:
        model = Counted()
        found[name] = score_rows(rows(), {name: metric(name, folder, model)}), model.asked
    return found


def with_files(folder):
    folder.mkdir()
    keys = [str(index) for index in range(NUM_SCENES)]
    asked = [{"image": key, "prompt": f"How many? {key}", "answer": "1"} for key in keys]
    (folder / "prism.json").write_text(json.dumps(asked))
    (folder / "base.json").write_text(json.dumps({key: "a red circle" for key in keys}))
    return str(folder)


def test_two_ranks_share_the_questions_of_every_metric_and_give_its_numbers(tmp_path):
    alone = scored(with_files(tmp_path / "alone"))
    first, second = run_distributed(scored, 2, with_files(tmp_path / "two"))
    for name in NAMES:
        numbers, asked = alone[name]
        assert first[name][0] == pytest.approx(numbers, nan_ok=True) and second[name][0] == first[name][0], name
        assert 0 < numbers[f"{name}_failed"] < numbers[f"{name}_asked"], f"{name}: some replies cannot be read"
        # A question of two pictures may be put by both ranks.
        both = first[name][1] + second[name][1]
        assert set(both) == set(asked) and max(len(first[name][1]), len(second[name][1])) < len(asked), name


@pytest.mark.parametrize("name", NAMES)
def test_a_metric_that_was_interrupted_asks_nothing_again(name, tmp_path):
    """Interrupted in the middle of its questions, in whichever step that is; the next one goes on from the store."""
    whole, folder = Interrupted(None), with_files(tmp_path / "files")
    numbers = score_rows(rows(), {name: metric(name, with_files(tmp_path / "whole"), whole)})
    before, after = Interrupted(len(whole.asked) // 2), Interrupted(None)
    with pytest.raises(KeyboardInterrupt):
        score_rows(rows(), {name: metric(name, folder, before)})
    assert score_rows(rows(), {name: metric(name, folder, after)}) == pytest.approx(numbers, nan_ok=True)
    assert numbers[f"{name}_failed"] == 0 and len(before.asked) == len(whole.asked) // 2 > 2
    assert sorted(before.asked + after.asked) == sorted(whole.asked), "each question once"
