import json

import pytest

from capkit.curation.base import Step
from capkit.curation.steps.blend_captions import BlendCaptions
from capkit.data.records import Caption, Record
from capkit.errors import UsageError
from capkit.llm.base import Answer
from capkit.sceneworld.language.captions import references
from capkit.sceneworld.language.oracles import score_caption
from capkit.sceneworld.language.plan import STYLES, make_plan
from capkit.sceneworld.llm import SceneLM
from capkit.sceneworld.world.scene import WorldOptions, make_scene


class Joiner:
    """Merges by joining the lines under [captions] with " / "; a caption with "fail" in it has no answer."""

    def __init__(self):
        self.prompts = []

    def about(self):
        return {"model": "joiner"}

    def ask(self, questions):
        prompts = [question.text for question in questions]
        self.prompts += prompts
        return [self._answer(prompt.partition("[captions]\n")[2].splitlines()) for prompt in prompts]

    def _answer(self, lines):
        text = " / ".join(line.partition(". ")[2] for line in lines)
        if "fail" in text:
            return Answer(None, "it gave up")
        return Answer("odd" if "odd" in text else json.dumps({"caption": text}))


def records():
    return [
        Record("k0", "a.jpg", [Caption("a dog"), Caption("one  dog"), Caption("a dog")], metadata={"id": 3}),
        Record("k1", captions=[Caption("fail")]),
        Record("k2", captions=[Caption("odd")]),
        Record("k3", captions=[Caption(" ")]),
        Record("k4", captions=[]),
        Record("k5", captions=[Caption("ein Hund", language="de"), Caption("a dog"), Caption("Hund", language="de")]),
    ]


def blended(step, given=None):
    failures = []
    step.attach_failures(failures.append)
    return list(step(lambda: records() if given is None else given)), failures


@pytest.fixture
def cache(tmp_path):
    return str(tmp_path / "answers")


def test_one_caption_takes_the_place_of_those_it_was_made_from(cache):
    (first, last), _ = blended(BlendCaptions(Joiner(), cache_dir=cache))
    source = "blendcap/blend_v1/joiner"
    assert first == Record("k0", "a.jpg", [Caption("a dog / one dog", source)], metadata={"id": 3})
    assert last.captions == [Caption("ein Hund / Hund", source, "de")]


def test_what_has_no_usable_answer_is_left_out_and_told_with_its_reason(cache):
    kept, failures = blended(BlendCaptions(Joiner(), cache_dir=cache))
    assert [record.key for record in kept] == ["k0", "k5"]
    reasons = {failure.key: failure.reason for failure in failures}
    assert reasons["k1"] == "it gave up"
    assert reasons["k2"] == "unparsable answer: not one JSON object"
    assert reasons["k3"] == reasons["k4"] == "no caption, or only empty ones"
    assert {failure.said for failure in failures} == {None, "odd"}


def test_a_second_run_asks_for_the_failures_alone(cache):
    blended(BlendCaptions(Joiner(), cache_dir=cache))
    again = Joiner()
    step = BlendCaptions(again, cache_dir=cache)
    blended(step)
    assert [prompt.rpartition(". ")[2] for prompt in again.prompts] == ["fail", "odd"]
    assert step.counts == {"text_cached": 2, "text_asked": 2, "text_failed": 2, "text_refused": 1}


def test_captions_can_be_kept(cache):
    (first, _), _ = blended(BlendCaptions(Joiner(), keep=True, cache_dir=cache))
    assert [caption.source for caption in first.captions] == ["human"] * 3 + ["blendcap/blend_v1/joiner"]


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_batches_change_nothing(tmp_path, batch_size):
    kept, failures = blended(BlendCaptions(Joiner(), batch_size=batch_size, cache_dir=str(tmp_path / "one")))
    assert (kept, len(failures)) == (blended(BlendCaptions(Joiner(), cache_dir=str(tmp_path / "two")))[0], 4)


def test_its_version_is_that_of_the_prompt_file(tmp_path, cache):
    file = tmp_path / "mine_v2.txt"
    file.write_text("Short.\n[captions]\n$captions")
    step = BlendCaptions(Joiner(), prompt=str(file), cache_dir=cache)
    (first, _), _ = blended(step)
    assert first.captions[0].source == "blendcap/mine_v2/joiner"
    assert step.fingerprint_fields()["prompt"]["name"] == "mine_v2"


@pytest.mark.unchecked
def test_blendcap_of_references_states_the_union_of_their_facts_and_nothing_new(cache):
    """Facts by the plan that the references were written from; the caption is judged by the oracle."""
    scenes = [make_scene(WorldOptions(), 0, "train", index) for index in range(100)]
    given = [Record(str(i), captions=[Caption(text) for text in references(s)]) for i, s in enumerate(scenes)]
    kept, failures = blended(BlendCaptions(SceneLM(), cache_dir=cache), given)
    assert not failures and [record.key for record in kept] == [record.key for record in given]
    for scene, record in zip(scenes, kept, strict=True):
        stated = make_plan(scene, "human", STYLES["human"]).facts()
        (caption,) = record.captions
        score = score_caption(scene, caption.text, stated)
        assert score.num_facts == score.num_correct == score.num_recalled == len(stated)


def test_it_is_a_step_and_wants_a_model(cache):
    assert isinstance(BlendCaptions(Joiner(), cache_dir=cache), Step)
    with pytest.raises(UsageError, match="text_lm="):
        BlendCaptions()
    with pytest.raises(UsageError, match="expected an integer of at least 1"):
        BlendCaptions(Joiner(), batch_size=0, cache_dir=cache)
