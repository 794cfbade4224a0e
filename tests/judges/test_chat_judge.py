import numpy as np
import pytest

from capkit.errors import UsageError
from capkit.judges.chat_judge import ChatJudge
from capkit.judges.pairwise import Judgement, Pair, decide
from capkit.judges.verdict_reply import STRINGS, VerdictReply, reply_of
from capkit.llm.base import Answer, Picture
from capkit.llm.replies import Unparsable
from capkit.sceneworld.language.captions import caption
from capkit.sceneworld.llm import SceneLM, SceneVision
from capkit.sceneworld.pair_judge import ScenePairJudge
from capkit.sceneworld.world.render import render
from capkit.sceneworld.world.scene import WorldOptions, make_scene


def test_the_six_strings_and_no_others():
    assert [VerdictReply().read(f"Reason: since\nJudgment: {text}").verdict for text in STRINGS] == [
        "a", "a", "b", "b", "tie", "tie",
    ]  # fmt: skip
    read = VerdictReply().read(" Reason: 2 is wrong,\n1 is not.\n\nJudgment: Caption 1 is better.\n")
    assert read == Judgement("a", "2 is wrong,\n1 is not.")
    assert VerdictReply().read(reply_of(read)) == read


@pytest.mark.parametrize(
    "text",
    [
        "Caption 1 is better",  # no reason
        "Reason: since\nJudgment: Caption 1 is slightly better",  # has a 1: the program's Elo would call it a win
        "Reason: since\nJudgment: Caption 1 is better than Caption 2",
        "Reason: since\nJudgment: <Tie>",
        "Reason: since\nJudgment: Tie\nJudgment: Caption 2 is better",
        "Reason: Judgment: Tie",
        "Judgment: Tie\nReason: since",
        "",
    ],
)
def test_anything_else_is_no_verdict(text):
    with pytest.raises(Unparsable):
        VerdictReply().read(text)


class Says:
    """Says one thing; keeps the questions."""

    takes_pictures = None

    def __init__(self, text):
        self.text, self.asked = text, []

    def about(self):
        return {"model": "says"}

    def ask(self, questions):
        self.asked += questions
        return [Answer(self.text) for _ in questions]


def picture():
    return Picture(np.zeros((8, 8, 3), np.uint8))


def test_a_judge_that_sees_is_shown_captions_reference_and_picture_in_the_order_of_the_pair(tmp_path):
    model = Says("Reason: since\nJudgment: Caption 2 is better")
    judge = ChatJudge(model, cache_dir=str(tmp_path))
    pair = Pair("0", "the first", "the second", ("the truth",), picture)
    assert judge.judge([pair, pair.turned]) == [Judgement("b", "since")] * 2
    first, second = model.asked
    for asked, texts in ((first, ("the first", "the second")), (second, ("the second", "the first"))):
        assert asked.text.endswith("[caption_1]\n{}\n\n[caption_2]\n{}".format(*texts))
        assert "[reference]\nthe truth\n" in asked.text and len(asked.pictures) == 1
    assert judge.judge([pair]) == [Judgement("b", "since")] and len(model.asked) == 2  # from the store


def test_a_reply_that_cannot_be_read_is_no_verdict_with_the_reason(tmp_path):
    judge = ChatJudge(Says("Caption 1 wins"), cache_dir=str(tmp_path))
    (found,) = judge.judge([Pair("0", "x", "y", picture=picture)])
    assert found.verdict is None and found.reason.startswith('unparsable answer: expected "Reason: ..."')
    assert judge.askers["judge"].counts["failed"] == 1


def test_what_a_judge_cannot_do_is_told_before_it_is_asked(tmp_path):
    model = Says("Reason: since\nJudgment: Tie")
    with pytest.raises(UsageError, match="needs the picture of each pair, got none of 1 of 1, such as 0"):
        ChatJudge(model, cache_dir=str(tmp_path)).judge([Pair("0", "x", "y", ("z",))])
    language = ChatJudge(model, "arena_text_v1", sees=False, cache_dir=str(tmp_path))
    with pytest.raises(UsageError, match="compares captions with a reference, got none for 1 of 2 pairs, such as 0"):
        language.judge([Pair("0", "x", "y"), Pair("1", "x", "y", ("z",))])
    with pytest.raises(UsageError, match="needs a model that sees; add vision_chat=hf, server or scene"):
        ChatJudge()
    with pytest.raises(UsageError, match="expected a language model, got SceneVision"):
        ChatJudge(SceneVision(), "arena_text_v1", sees=False)
    assert not model.asked


@pytest.fixture(scope="module")
def scene_pairs():
    scenes = [make_scene(WorldOptions(), 0, "test", index) for index in range(20)]
    return [
        Pair(
            str(index),
            caption(scene, "human").text,
            caption(scenes[index - 1], "dense").text,
            (caption(scene, "dense").text,),
            lambda scene=scene: Picture(render(scene), {"scene": scene.to_dict()}),
            {"scene": scene.to_dict()},
        )
        for index, scene in enumerate(scenes)
    ]


def test_scene_models_answer_the_prompts_as_the_scene_judge_does(tmp_path, scene_pairs):
    """By the picture, by a dense reference, and by the rules: a caption of the picture beats one of another picture."""
    sees = ChatJudge(SceneVision(), cache_dir=str(tmp_path))
    reads = ChatJudge(SceneLM(), "arena_text_v1", sees=False, cache_dir=str(tmp_path))
    for judge in (sees, reads, ScenePairJudge()):
        assert {found.verdict for found in decide(judge, scene_pairs, seed=3)} == {"a"}
    assert sees.judge(scene_pairs) == ScenePairJudge().judge(scene_pairs)


def test_biases_of_the_scene_judge(scene_pairs):
    first = ScenePairJudge(first_bias=1.0)
    assert {found.verdict for found in first.judge(scene_pairs)} == {"a"}
    assert {found.verdict for found in first.judge([pair.turned for pair in scene_pairs])} == {"a"}
    longer = [len(pair.a.split()) > len(pair.b.split()) for pair in scene_pairs]
    found = ScenePairJudge(length_bias=1.0).judge(scene_pairs)
    assert [said.verdict == "a" for said in found] == longer and not all(longer)
    some = ScenePairJudge(first_bias=0.5).judge([pair.turned for pair in scene_pairs])
    assert 2 < sum(said.reason == "it stands first" for said in some) < 18
    with pytest.raises(UsageError, match="expected at most 1, got"):
        ScenePairJudge(first_bias=0.7, length_bias=0.4)
    with pytest.raises(UsageError, match="needs SceneWorld's metadata 'scene', got none for 1 of 1"):
        first.judge([Pair("0", "x", "y")])


def test_captions_of_one_quality_are_a_tie(scene_pairs):
    pair = scene_pairs[0]
    equal = Pair("0", pair.a, pair.a, metadata=pair.metadata)
    assert ScenePairJudge().judge([equal])[0].verdict == "tie"
    assert ScenePairJudge(tie_below=1.0).judge([pair])[0].verdict == "tie"
