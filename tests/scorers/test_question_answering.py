"""CapRL's reward: shares by hand, what is drawn, what is read once, and what cannot be scored."""

import json
import math
import time
import warnings

import pytest
import torch

from capkit.distributed.collectives import rank, world_size
from capkit.errors import ReaderAway, RunFailure, UsageError
from capkit.llm.base import Answer
from capkit.readers.base import ChoiceQuestion, Reading
from capkit.readers.chat import ChatReader
from capkit.readers.question_sets import ABSTAIN, QuestionFile
from capkit.sceneworld.language.captions import caption
from capkit.sceneworld.reading import SceneQuestions, SceneReader
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.scene import make_scene
from capkit.scorers.question_answering import QuestionAnswering
from capkit.scorers.reward import Reward, RewardTerm
from capkit.scorers.shuffled import Shuffled
from capkit.testing.distributed import run_distributed
from capkit.types import CaptionBatch, Samples


class Table:
    """Says of each question what stands behind it in the caption: "what? red. how? -" ("-": cannot be read)."""

    def __init__(self):
        self.calls = []

    def about(self):
        return {"reader": "table"}

    def read(self, texts, questions):
        self.calls.append((list(texts), [list(asked) for asked in questions]))
        return [
            [self.answer(text, question) for question in asked] for text, asked in zip(texts, questions, strict=True)
        ]

    def answer(self, text, question):
        if question.text not in text:
            return Reading(question.abstain)
        said = text.partition(question.text)[2].strip().partition(".")[0]
        return Reading(None, failure="no letter") if said == "-" else Reading(question.choices.index(said))


class Away:
    def about(self):
        return {"reader": "away"}

    def read(self, texts, questions):
        raise UsageError("no connection to http://localhost:1")


def rows(**pictures):
    return {
        key: [
            {"question": text, "choices": choices, "answer": choices[0], "category": [kind]}
            for text, choices, kind in asked
        ]
        for key, asked in pictures.items()
    }


WHAT = ("what?", ["red", "blue", "green"], "Object Color")
HOW = ("how?", ["many", "few"], "count")
WHO = ("who?", ["a dog", "a cat", "a cow", "a hen"], "count")
SET = rows(x=[WHAT, HOW, WHO], y=[WHAT], z=[])


@pytest.fixture
def questions(tmp_path):
    (tmp_path / "questions.json").write_text(json.dumps(SET))
    return str(tmp_path / "questions.json")


def scores(scorer, captions, step=1):
    """Of captions by picture."""
    scorer.at_step(step)
    return scorer(CaptionBatch(list(captions)), Samples.from_texts(list(captions.values())))


ANSWERS = {
    "what? red. how? many. who? a dog.": 1.0,
    "what? red. how? few. who? a dog.": 2 / 3,
    "what? red.": 1 / 3,  # abstains from two
    "": 0.0,
    "what? red. how? -. who? a cat.": 1 / 2,  # of two that were read
    "what? -. how? -. who? a dog.": math.nan,  # one of three was read
    "what? -. how? -. who? -.": math.nan,  # never 0
}


def test_shares_by_hand(questions):
    scorer = QuestionAnswering(Table(), questions, all_questions=True)
    found = scores(scorer, {"x": list(ANSWERS)})
    torch.testing.assert_close(found, torch.tensor([list(ANSWERS.values())]), equal_nan=True)
    logs = scorer.logs()
    assert (logs["questions"], logs["unasked"], logs["repeated"]) == (21, 0, 0)
    assert logs["unread"] == pytest.approx(6 / 21) and logs["abstained"] == pytest.approx(5 / 21)
    assert logs["right_object_color"] == pytest.approx(4 / 5)  # of 7 two could not be read, one abstained
    assert logs["right_count"] == pytest.approx(4 / 10)


def test_the_time_of_reading_is_logged(questions):
    class Slow(Table):
        def read(self, texts, questions):
            time.sleep(0.05)
            return super().read(texts, questions)

    scorer = QuestionAnswering(Slow(), questions, all_questions=True)
    scores(scorer, {"x": ["what? red."] * 4})
    logs = scorer.logs()
    assert 0.05 <= logs["read_seconds"] < 30 and logs["repeated"] == 0.75
    assert logs["answers_per_second"] == pytest.approx(12 / logs["read_seconds"])  # those read once count for all


def test_what_was_asked_is_read_back_once_each_without_training(questions):
    scorer = QuestionAnswering(Table(), questions)
    texts = [["what? red. how? few.", "what? -."]]
    found = scorer.read_back(CaptionBatch(["x"]), Samples.from_texts(texts))
    assert [[len(caption) for caption in picture] for picture in found] == [[3, 3]]  # 8 draws of 3 questions
    told = {read.question: (read.answer, read.said, read.abstained) for read in found[0][0]}
    assert told == {
        "what?": ("red", "red", False), "how?": ("many", "few", False), "who?": ("a dog", ABSTAIN, True)
    }  # fmt: skip
    assert {read.question: read.said for read in found[0][1]}["what?"] is None
    assert scorer.read_back(CaptionBatch(["z"]), Samples.from_texts([["what? red."]])) == [[[]]]
    assert scorer.logs() == {}
    reward = Reward({"qa": RewardTerm(scorer), "other": RewardTerm(lambda batch, samples: torch.zeros(1, 2))})
    assert reward.read_back(CaptionBatch(["x"]), Samples.from_texts(texts)) == found
    shuffled = Reward({"qa": RewardTerm(Shuffled(scorer))})
    assert shuffled.read_back(CaptionBatch(["x"]), Samples.from_texts(texts)) == found  # of its own picture
    assert (
        Reward({"other": RewardTerm(lambda b, s: torch.zeros(1, 2))}).read_back(
            CaptionBatch(["x"]), Samples.from_texts(texts)
        )
        == []
    )


def test_a_question_that_is_drawn_in_two_orders_is_read_back_once_whatever_is_said():
    """A reader that likes the first letter says something else of each order."""
    batch, _ = scene_batch(6)
    scorer = QuestionAnswering(SceneReader("first"), SceneQuestions(kinds=["color", "exists"]), num_questions=16)
    found = scorer.read_back(batch, Samples.from_texts([["", "a red circle and a blue square"]] * 6))
    for before, now in found:
        assert [read.question for read in before] == [read.question for read in now]
        assert len({read.question for read in now}) == len(now)


def test_guessing_is_worth_nothing_where_chance_is_subtracted(questions):
    """A wrong answer of n choices costs 1 / (n - 1); an abstention nothing."""
    scorer = QuestionAnswering(Table(), questions, all_questions=True, subtract_chance=True)
    found = scores(scorer, {"x": ["what? blue. how? few. who? a cow.", "", "what? red. how? many. who? a hen."]})
    assert found[0].tolist() == pytest.approx([(-1 / 2 - 1 - 1 / 3) / 3, 0.0, (1 + 1 - 1 / 3) / 3])
    guesses = [scores(scorer, {"y": [f"what? {color}."]}).item() for color in WHAT[1]]
    assert sum(guesses) == pytest.approx(0)


def scene_batch(count, start=0):
    scenes = [make_scene(WorldOptions(), 0, "test", index) for index in range(start, start + count)]
    keys = [str(index) for index in range(start, start + count)]
    texts = [[caption(scene, "human", variant).text for variant in range(3)] for scene in scenes]
    return CaptionBatch(keys, metadata=[{"scene": scene.to_dict()} for scene in scenes]), Samples.from_texts(texts)


def scene_scorer(**settings):
    return QuestionAnswering(SceneReader(), SceneQuestions(), num_questions=6, **settings)


def test_equals_a_loop_that_asks_one_question_at_a_time():
    batch, samples = scene_batch(4)
    found = scores_of(scene_scorer(all_questions=True), batch, samples)
    for row, texts in enumerate(samples.texts):
        items = SceneQuestions().of("", batch.metadata[row])
        for number, text in enumerate(texts):
            right = 0
            for item in items:
                ((said,),) = SceneReader().read(
                    [text], [[ChoiceQuestion(item.question, (*item.choices, "?"), len(item.choices))]]
                )
                right += (*item.choices, "?")[said.choice] == item.answer
            assert found[row, number].item() == pytest.approx(right / len(items))


def test_a_score_does_not_depend_on_the_batch():
    batch, samples = scene_batch(4)
    found = scores_of(scene_scorer(), batch, samples)
    for row in range(4):
        for number in range(3):
            alone = scores_of(scene_scorer(), batch.select([row]), samples.select(row, number))
            assert alone.item() == found[row, number].item()


def scores_of(scorer, batch, samples, step=3):
    scorer.at_step(step)
    return scorer(batch, samples)


def drawn(scorer, step, number=2):
    """The questions of each caption of one picture at a step."""
    batch, _ = scene_batch(1)
    seen = []
    scorer.reader = Table()
    scorer.reader.answer = lambda text, question: seen.append((text, question)) or Reading(0)
    scorer.at_step(step)
    scorer(batch, Samples.from_texts([[f"caption {place}" for place in range(number)]]))
    return [[question for said, question in seen if said == f"caption {place}"] for place in range(number)]


def test_the_samples_of_a_picture_are_asked_the_same_and_another_step_asks_another_draw():
    first, second = drawn(scene_scorer(), 1)
    assert first == second and len(first) <= 6
    assert drawn(scene_scorer(), 1)[0] == first != drawn(scene_scorer(), 2)[0]
    assert drawn(scene_scorer(seed=1), 1)[0] != first
    assert drawn(scene_scorer(), None) == drawn(scene_scorer(), None)  # of validations


def test_as_published_each_caption_has_its_own_draw():
    first, second = drawn(scene_scorer(draw="caption"), 1)
    assert first != second


def test_options_stand_in_a_drawn_order_or_in_that_of_the_file():
    orders = {
        tuple(q.choices)
        for step in range(9)
        for q in drawn(scene_scorer(all_questions=True), step)[0]
        if "background" in q.text
    }
    assert len(orders) > 2
    kept = [q for step in range(5) for q in drawn(scene_scorer(shuffle=False), step)[0]]
    assert all(q.choices[-1] == ABSTAIN and q.abstain == len(q.choices) - 1 for q in kept)


def test_draws_are_with_replacement_and_in_equal_shares(questions):
    counts = dict.fromkeys((WHAT[0], HOW[0], WHO[0]), 0)
    scorer = QuestionAnswering(Table(), questions, num_questions=8)
    for step in range(200):
        scorer.reader.calls.clear()
        scores(scorer, {"x": [""]}, step)
        ((_, (asked,)),) = scorer.reader.calls
        for question in asked:
            counts[question.text] += 1
    assert min(counts.values()) > 0.25 * sum(counts.values())


def test_equal_questions_about_equal_captions_are_read_once(questions):
    scorer = QuestionAnswering(Table(), questions, all_questions=True, shuffle=False)
    found = scores(scorer, {"x": ["what? red.", "what? red.", "who? a dog."]})
    ((texts, asked),) = scorer.reader.calls
    assert texts == ["what? red.", "who? a dog."] and [len(row) for row in asked] == [3, 3]
    assert found[0].tolist() == pytest.approx([1 / 3] * 3)
    assert scorer.logs()["repeated"] == pytest.approx(3 / 9)


def test_a_picture_without_questions_has_no_score_and_is_counted(questions):
    scorer = QuestionAnswering(Table(), questions, all_questions=True)
    found = scores(scorer, {"x": ["what? red."], "z": ["what? red."], "unknown": ["what? red."]})
    assert found.isnan().flatten().tolist() == [False, True, True]
    assert scorer.logs()["unasked"] == 2
    few = QuestionAnswering(Table(), questions, all_questions=True, min_questions=2)
    assert scores(few, {"x": ["what? red."], "y": ["what? red."]}).isnan().flatten().tolist() == [False, True]


def test_a_step_without_any_question_ends_the_run_and_names_its_pictures(questions):
    scorer = QuestionAnswering(Table(), questions)
    with pytest.raises(RunFailure, match=r"none about any of step 1 \('z', 'unknown'\)"):
        scores(scorer, {"z": ["a"], "unknown": ["a"]})
    assert scores(scorer, {"z": ["a"]}, step=None).isnan().all()  # of a validation's batch


def test_a_step_none_of_whose_answers_can_be_read_ends_the_run(questions):
    """A server that fails each time, or a reader that never gives a letter, would else train on nothing for days."""
    scorer = QuestionAnswering(Table(), questions, all_questions=True)
    unread = "what? -. how? -. who? -."
    with pytest.raises(ReaderAway, match=r"none to the 6 questions of step 1 \(no letter\)"):
        scores(scorer, {"x": [unread, unread]})
    assert scores(scorer, {"x": [unread, "what? red."]}).isnan().tolist() == [[True, False]]
    assert scores(scorer, {"x": [unread]}, step=None).isnan().all()  # of a validation's batch


class Engine:
    """A model that chooses A, or where it is silent has no answer for a reason; what it chose is kept."""

    draws = False

    def __init__(self):
        self.is_silent = False

    def about(self):
        return {"backend": "test", "model": "engine"}

    def ask(self, questions):
        return [Answer(None, "status 503") if self.is_silent else Answer("A") for _ in questions]


def test_kept_answers_do_not_hide_a_server_that_fails_each_time(questions, tmp_path):
    """Rewards would go on as those of the captions that were read before."""
    engine = Engine()
    reader = ChatReader(engine, cache_dir=str(tmp_path / "answers"))
    scorer = QuestionAnswering(reader, questions, all_questions=True, draw="picture", shuffle=False)
    old = ["a", "b", "c", "d", "e"]
    assert not scores(scorer, {"x": old}).isnan().any()
    engine.is_silent = True
    assert not scores(scorer, {"x": old}, step=2).isnan().any()  # nothing new is asked
    # One caption may be at fault; the next one is not, whatever came in between.
    assert scores(scorer, {"x": [*old, "new"]}, step=3).isnan().tolist() == [[False] * 5 + [True]]
    assert scores(scorer, {"x": [*old, "new"]}, step=4).isnan().sum() == 1
    with pytest.raises(ReaderAway, match=r"about 2 captions \(such as 'new', 'newer'\): status 503; answers kept"):
        scores(scorer, {"x": [*old, "newer"]}, step=5)
    assert scores(scorer, {"x": [*old, "newest"]}, step=None).isnan().sum() == 1
    with pytest.raises(ReaderAway, match="about 2 captions"):
        scores(scorer, {"x": [*old, "new", "newest"]}, step=None)


def test_a_reply_in_between_says_that_the_server_is_there(questions, tmp_path):
    engine = Engine()
    scorer = QuestionAnswering(ChatReader(engine, cache_dir=str(tmp_path / "answers")), questions, shuffle=False)
    scores(scorer, {"x": ["a", "b"]})
    for step, text in enumerate(("new", "newer", "newest"), 2):
        engine.is_silent = True
        assert scores(scorer, {"x": ["a", "b", text]}, step).isnan().sum() == 1
        engine.is_silent = False
        assert not scores(scorer, {"x": ["a", text]}, step).isnan().any()


def test_questions_of_the_next_picture_are_the_control(questions):
    scorer = Shuffled(QuestionAnswering(Table(), questions, all_questions=True))
    found = scores(scorer, {"x": ["what? red.", ""], "y": ["what? red. how? many.", "who? a dog."]})
    assert found.tolist() == [pytest.approx([1.0, 0.0]), pytest.approx([2 / 3, 1 / 3])]


# -- before the first step


def keys(**splits):
    return {"train": ["x", "y"], "val": [], "test": [], **splits}.__getitem__


def test_question_sets_of_another_split_are_refused(questions):
    scorer = QuestionAnswering(Table(), questions)
    scorer.meet(keys())
    with pytest.raises(UsageError, match=r"1 pictures of the test split \('y'\)"):
        scorer.meet(keys(train=["x"], test=["y"]))
    with pytest.raises(UsageError, match=r"none about any of 2 \('p', 'q'\), but about 'x', 'y', 'z'"):
        scorer.meet(keys(train=["p", "q"]))
    with pytest.warns(UserWarning, match=r"1 of 2 training pictures have no questions \('p'\)"):
        scorer.meet(keys(train=["x", "p"]))
    with pytest.warns(UserWarning, match=r"all 2 validation pictures have no questions \('p', 'q'\).*will be NaN"):
        scorer.meet(keys(val=["p", "q"]))
    with warnings.catch_warnings(action="error"):
        scorer.meet(keys(val=["p", "y"]))  # one has some
    scene_scorer().meet(keys())


def test_pictures_with_fewer_questions_than_wanted_are_told_before_the_first_step(tmp_path):
    (tmp_path / "set.json").write_text(json.dumps(rows(x=[HOW, HOW], y=[HOW])))
    known = QuestionFile(tmp_path / "set.json")
    with pytest.warns(UserWarning, match=r"1 of 2 .* have fewer questions than min_questions=2 \('y'\)"):
        QuestionAnswering(Table(), known, min_questions=2).meet(keys())
    with pytest.raises(UsageError, match=r"all 2 .* min_questions=3 \('x', 'y'\); lower min_questions"):
        QuestionAnswering(Table(), known, min_questions=3).meet(keys())


class OfTwo(Table):
    def check(self, asked):
        for question in asked:
            if len(question.choices) > 4:
                raise UsageError(f"cannot put {question.text!r}")


def test_questions_that_the_reader_cannot_put_are_told_before_the_first_step(questions):
    """Of training pictures alone, with the abstain option that they will have."""
    QuestionAnswering(OfTwo(), questions).meet(keys(train=["y"]))
    QuestionAnswering(OfTwo(), questions, abstain=False).meet(keys())
    with pytest.raises(UsageError, match=r"cannot put 'who\?'"):
        QuestionAnswering(OfTwo(), questions).meet(keys())


def test_a_file_that_changed_between_attempts_is_refused(questions, tmp_path):
    before = QuestionAnswering(Table(), questions).state_dict()
    QuestionAnswering(Table(), questions).load_state_dict(before)
    (tmp_path / "changed.json").write_text(json.dumps(SET | rows(y=[HOW])))
    with pytest.raises(UsageError, match=r"expected the questions that the checkpoint was trained by.*init_from"):
        QuestionAnswering(Table(), QuestionFile(tmp_path / "changed.json")).load_state_dict(before)


def test_a_reader_and_questions_are_needed(questions):
    with pytest.raises(UsageError, match="needs a reader; add reader="):
        QuestionAnswering(questions=questions)
    with pytest.raises(UsageError, match="needs questions; give"):
        QuestionAnswering(Table())
    with pytest.raises(UsageError, match="did you mean 'color'"):
        SceneQuestions(kinds=["colour"])


class HoldsThePolicy(Table):
    def __init__(self, network):
        super().__init__()
        self.network = network


def test_a_reader_that_is_the_policy_is_refused(questions):
    policy = torch.nn.Sequential(torch.nn.Linear(2, 2))
    own = Reward({"qa": RewardTerm(QuestionAnswering(HoldsThePolicy(torch.nn.Linear(2, 2)), questions))})
    own.require_apart(policy)
    reward = Reward({"qa": RewardTerm(Shuffled(QuestionAnswering(HoldsThePolicy(policy[0]), questions)))})
    with pytest.raises(UsageError, match="expected a model of its own"):
        reward.require_apart(policy)


# -- several processes


def of_rank(path):
    """Scores and logs of this rank's share, and what happens where one rank, or none, has questions or a reader."""
    batch, samples = scene_batch(4)
    mine = list(range(rank(), 4, world_size()))
    scorer = scene_scorer()
    scorer.at_step(5)
    found = scorer(batch.select(mine), samples.images(mine))
    told = []
    for reader, own in ((Table(), ("x", "z")), (Table(), ("z", "z")), ((Away(), Table())[rank()], ("x", "y"))):
        try:
            scores(QuestionAnswering(reader, path), {own[rank()]: ["a"]})
            told.append(None)
        except RunFailure as error:
            told.append((type(error).__name__, str(error)))
    return found, scorer.logs(), told


@pytest.mark.integration
def test_two_processes_score_as_one_and_fail_together(questions):
    batch, samples = scene_batch(4)
    scorer = scene_scorer()
    scorer.at_step(5)
    whole = scorer(batch, samples)
    (first, logs, told), (second, same_logs, same_told) = run_distributed(of_rank, 2, questions, timeout_s=60)
    torch.testing.assert_close(torch.stack([first, second], 1).flatten(0, 1), whole)
    own = {name: logs[name] for name in ("repeated", "read_seconds", "answers_per_second")}
    assert logs == same_logs and logs == pytest.approx({**scorer.logs(), **own})
    assert told == same_told
    assert told[0] is None and told[1][0] == "RunFailure" and told[2][0] == "ReaderAway"
    assert "no connection" in told[2][1]


def test_a_reader_that_is_away_is_no_fault_of_a_caption(questions):
    reward = Reward({"qa": RewardTerm(QuestionAnswering(Away(), questions))})
    with pytest.raises(ReaderAway, match="the reader cannot be asked: no connection"):
        reward(CaptionBatch(["x"]), Samples.from_texts([["a"]]), 1, 2)
    with pytest.raises(ReaderAway, match="the reader cannot be asked: no connection"):  # in a validation
        reward.score_alone(CaptionBatch(["x"]), Samples.from_texts([["a"]]))
