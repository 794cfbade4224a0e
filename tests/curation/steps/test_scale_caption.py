"""ScaleCap's step on models that are scripted: what they are asked, how often, and what a failure becomes."""

import re
from collections import Counter

import numpy as np
import pytest

from capkit.curation.steps.scale_caption import ScaleCaption, distinct_names
from capkit.data.images import BadImage
from capkit.data.records import Caption, Record
from capkit.errors import UsageError
from capkit.llm.asker import Asker
from capkit.llm.base import Answer
from capkit.llm.ledger import Ledger
from capkit.llm.rated import rated_answer
from capkit.sceneworld.chat.sections import sections
from capkit.sceneworld.language.tagging import SceneTagger
from capkit.sceneworld.llm import SceneLM, SceneVision
from capkit.sceneworld.world.scene import WorldOptions, make_scene

GRAY = np.zeros((4, 4, 3), np.uint8)
SAID = "There is a circle. There is a star, there is a square. There is a triangle"
GAINS = {"circle": 1.0, "star": -0.1, "square": 0.5, "triangle": -1.0}


class Describer:
    """Says a text, whose words gain what `gains` says. Its samples are all alike."""

    takes_pictures = rates = True

    def __init__(self, text=SAID, gains=GAINS):
        self.text, self.gains, self.asked = text, gains, []

    def about(self):
        return {"model": "describer"}

    def ask(self, questions):
        self.asked += questions
        return [Answer(self.said()) for _ in questions]

    def said(self):
        words = list(re.finditer(r"\S+", self.text))
        return rated_answer(
            self.text, [word.span() for word in words], [self.gains.get(word[0].strip(".,"), 0.0) for word in words]
        )


class Scripted:
    """Answers by the sections of a prompt, and counts what it was asked."""

    def __init__(self, takes_pictures, **answers):
        self.takes_pictures, self.answers, self.asked = takes_pictures, answers, []

    def about(self):
        return {"model": "seer" if self.takes_pictures else "writer"}

    def ask(self, questions):
        self.asked += questions
        return [Answer(self._answer(sections(question.text))) for question in questions]

    def _answer(self, given):
        (kind,) = [name for name in self.answers if name in given]
        answer = self.answers[kind]
        return answer(given) if callable(answer) else answer

    def counts(self):
        return Counter(name for question in self.asked for name in sections(question.text) if name in self.answers)


def writer(**answers):
    """Names the last word of a sentence; the later sections come first, as [sentences] stands in both."""
    last = lambda given: "1. " + given["sentence"].rstrip(".").split()[-1]  # noqa: E731
    return Scripted(
        False,
        **{"positions": '{"caption": "A caption."}', "answers": "Collected.", "sentence": last, **answers},
    )


def seer(**answers):
    replies = {"detail": "It is red.", "position": "It is on the left.", **answers}
    return Scripted(True, **replies)


def run(folder, text_lm=None, vision=None, describer=None, records=None, read=lambda key: GRAY, **settings):
    failures = []
    step = ScaleCaption(
        text_lm or writer(),
        vision or seer(),
        describer or Describer(),
        SceneTagger(),
        cache_dir=str(folder),
        **settings,
    )
    step.attach_failures(failures.append)
    step.attach_images(read)
    given = [Record("0", captions=[Caption("A caption of before.")])] if records is None else records
    return list(step(lambda: given)), failures, step


def test_what_is_asked_of_whom(tmp_path):
    """Two sentences stayed, of which one lost a clause; two objects: 1 + 2 x 2 and 2 + 3 questions."""
    text_lm, vision, describer = writer(), seer(), Describer()
    (after,), failures, step = run(tmp_path, text_lm, vision, describer)
    assert not failures and len(describer.asked) == 1
    assert vision.counts() == {"detail": 2, "position": 2}
    assert text_lm.counts() == {"sentence": 2, "answers": 2, "positions": 1}
    asked = [sections(question.text) for question in text_lm.asked]
    assert [given["sentence"] for given in asked if "sentence" in given] == ["There is a circle.", "There is a square."]
    assert {given["sentences"] for given in asked if "sentences" in given} == {"There is a circle. There is a square."}
    assert [given["answers"] for given in asked if "answers" in given] == [
        "1. It is red.\n2. It is red.", "1. It is on the left.\n2. It is on the left.",
    ]  # fmt: skip
    assert [sections(question.text) for question in vision.asked] == [
        {"detail": "circle"}, {"position": "circle"}, {"detail": "square"}, {"position": "square"},
    ]  # fmt: skip
    assert after.captions == [Caption("A caption.", "scalecap/scalecap_merge_v1/writer/describer")]
    assert after.metadata["scalecap"] == {
        "description": SAID,
        "ratings": [["There is a circle", 1.0], ["There is a star", -0.1], ["there is a square", 0.5],
                    ["There is a triangle", -1.0]],
        "objects": ["circle", "square"],
    }  # fmt: skip
    assert step.counts["vision_questions"] == step.counts["text_questions"] == 5
    assert (step.counts["units"], step.counts["units_dropped"]) == (4, 2)


@pytest.mark.parametrize("budget", [0, 1, 2, 3, 5, 9, None])
@pytest.mark.parametrize("num_objects", [1, 2, 5])
def test_calls_are_counted(tmp_path, budget, num_objects):
    """1 + 2 min(N, n) and g + 3. Where nothing is asked about, nothing is composed: N = 0 asks text_lm nothing."""
    words = ["circle", "square", "star", "heart", "moon"]
    names = "\n".join(f"{i}. {word}" for i, word in enumerate(words[:num_objects], 1))
    text_lm, vision, describer = writer(sentence=names), seer(), Describer(gains={"circle": 1.0, "square": 1.0})
    _, _, step = run(tmp_path, text_lm, vision, describer, num_objects=budget)
    asked = num_objects if budget is None else min(budget, num_objects)
    assert len(describer.asked) + len(vision.asked) == step.counts["vision_questions"] == 1 + 2 * asked
    assert len(text_lm.asked) == step.counts["text_questions"] == (2 + 3 if asked else 0)


def test_without_objects_the_sentences_are_the_caption(tmp_path):
    text_lm = writer(sentence="none")
    (after,), failures, step = run(tmp_path, text_lm, keep=True)
    assert not failures and step.counts["vision_questions"] == 1 and len(text_lm.asked) == 2
    assert [caption.text for caption in after.captions] == [
        "A caption of before.", "There is a circle. There is a square.",
    ]  # fmt: skip
    assert after.captions[-1].source == "scalecap/scalecap_describe_v1/describer"


def test_minus_infinity_and_no_budget_return_the_description(tmp_path):
    (after,), _, step = run(tmp_path, tau=None, num_objects=0)
    assert after.captions[0].text == SAID and step.counts["units_dropped"] == 0


def test_where_no_sentence_stays_the_description_does(tmp_path):
    (after,), _, step = run(tmp_path, tau=2.0, num_objects=0)
    assert after.captions[0].text == SAID and step.counts["descriptions_kept_for_lack_of_any"] == 1


def test_an_object_that_is_named_twice_is_asked_about_once_and_in_order(tmp_path):
    assert distinct_names(["the red Cup", "dog", "A red cup.", "Dog", "cup"]) == ["the red Cup", "dog", "cup"]
    vision = seer()
    names = iter(["1. the star\n2. a heart", "1. Star\n2. circle"])
    run(tmp_path, writer(sentence=lambda given: next(names)), vision, num_objects=2)
    assert [sections(question.text).get("detail") for question in vision.asked[::2]] == ["the star", "a heart"]


def failing(place):
    """An answer that is empty for one of the questions."""
    return lambda given: "" if place in given.values() else "It is red."


def test_an_answer_that_failed_is_reported_and_the_caption_does_without(tmp_path):
    text_lm = writer()
    (after,), failures, _ = run(tmp_path, text_lm, seer(detail=failing("circle")))
    assert after.captions[0].text == "A caption."
    assert [failure.reason for failure in failures] == ["details: unparsable answer: it is empty"]
    answers = [sections(question.text).get("answers") for question in text_lm.asked]
    assert "1. It is red." in answers and "1. It is on the left.\n2. It is on the left." in answers


def test_a_sentence_whose_objects_failed_is_reported_and_stays(tmp_path):
    text_lm = writer(sentence=lambda given: "circle" if "circle" in given["sentence"] else "1. square")
    (after,), failures, _ = run(tmp_path, text_lm)
    assert [failure.reason.partition(":")[0] for failure in failures] == ["objects"]
    assert after.metadata["scalecap"]["objects"] == ["square"] and after.captions[0].text == "A caption."
    assert {sections(q.text).get("sentences") for q in text_lm.asked} >= {"There is a circle. There is a square."}


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({"answers": ""}, "collecting"),
        ({"positions": "no JSON"}, "merging"),
        ({"positions": '{"caption": ""}'}, "merging"),
    ],
)
def test_without_a_merged_caption_the_record_is_left_out(tmp_path, answers, reason):
    after, failures, _ = run(tmp_path, writer(**answers))
    assert not after and failures and {failure.reason.partition(":")[0] for failure in failures} == {reason}


@pytest.mark.parametrize("said", ["", "I'm sorry, I cannot see it.", " ".join(["word"] * 10_000)])
def test_an_empty_description_a_refusal_or_one_of_10000_words_is_a_failure(tmp_path, said):
    after, failures, step = run(tmp_path, describer=Describer(said))
    assert not after and failures[0].reason.startswith("description: ") and step.counts["text_questions"] == 0


def test_an_unreadable_picture_is_reported_and_others_go_on(tmp_path):
    def read(key):
        if key == "1":
            raise BadImage("empty file (0 bytes)")
        return GRAY

    after, failures, _ = run(tmp_path, records=[Record(str(i)) for i in range(3)], read=read)
    assert [record.key for record in after] == ["0", "2"]
    assert [(failure.key, failure.reason) for failure in failures] == [("1", "picture: empty file (0 bytes)")]


def test_a_second_run_asks_nothing(tmp_path):
    first = run(tmp_path)
    text_lm, vision, describer = writer(), seer(), Describer()
    again = run(tmp_path, text_lm, vision, describer)
    assert again[0] == first[0] and not text_lm.asked + vision.asked + describer.asked


def test_a_dry_run_counts_a_sentence_and_an_object_and_asks_nothing(tmp_path):
    text_lm, vision, describer = writer(), seer(), Describer()
    step = ScaleCaption(text_lm, vision, describer, SceneTagger(), cache_dir=str(tmp_path))
    step.attach_images(lambda key: GRAY)
    ledger = Ledger(is_dry=True)
    for name, asker in step.askers.items():
        asker.account = ledger.account(name, asker.model)
    assert len(list(step(lambda: [Record("0")]))) == 1
    assert (step.counts["vision_questions"], step.counts["text_questions"]) == (3, 4)
    assert not text_lm.asked + vision.asked + describer.asked


def test_the_exact_models_answer_every_prompt(tmp_path):
    """By the scene: a circle that is named gets its colour, size and place, and a star that is not there nothing."""
    scene = next(
        scene
        for scene in (make_scene(WorldOptions(inside_probability=0.0), 0, "test", i) for i in range(100))
        if [item.shape for item in scene.objects].count("circle") == 1
        and "star" not in {o.shape for o in scene.objects}
    )
    circle = next(item for item in scene.objects if item.shape == "circle")
    describer = Describer("there is a circle. there is a star.", {"circle": 1.0, "star": 1.0})
    records = [Record("0", metadata={"scene": scene.to_dict()})]
    (after,), failures, _ = run(tmp_path, SceneLM(), SceneVision(), describer, records)
    text = after.captions[0].text
    assert not failures and "there is a star." in text
    assert f"{circle.size} {circle.color} circle is in the" in text


def test_what_the_step_needs_is_told_before_anything_is_asked(tmp_path):
    parts = (writer(), seer(), Describer(), SceneTagger())
    for missing in range(4):
        given = [None if i == missing else part for i, part in enumerate(parts)]
        with pytest.raises(UsageError, match=r"step\.scale_caption\.describer"):
            ScaleCaption(*given, cache_dir=str(tmp_path))
    with pytest.raises(UsageError, match="got Scripted, which does not tell log-probabilities"):
        ScaleCaption(writer(), seer(), seer(), SceneTagger(), cache_dir=str(tmp_path))
    with pytest.raises(UsageError, match="expected language=en, got 'pt-BR'"):
        ScaleCaption(*parts, language="pt-BR", cache_dir=str(tmp_path))
    with pytest.raises(UsageError, match="takes no pictures"):
        ScaleCaption(writer(), writer(), Describer(), SceneTagger(), cache_dir=str(tmp_path))
    with pytest.raises(UsageError, match=r"expected the fields \$sentences, \$details, \$positions"):
        ScaleCaption(*parts, merge_prompt="scalecap_objects_v1", cache_dir=str(tmp_path))
    with pytest.raises(UsageError, match="retries=1"):
        ScaleCaption(*parts, merge_retries=1, cache_dir=str(tmp_path))
    assert isinstance(ScaleCaption(*parts, cache_dir=str(tmp_path)).askers["look"], Asker)
