"""Filters of questions: each switch by itself on planted questions, and what the released programs read wrongly."""

import numpy as np
import pytest
import torch

from capkit.curation.question_verdicts import AMBIGUOUS, NONE_OF_THEM, WAYS_OUT
from capkit.curation.questions import LetterOrNothing, Split
from capkit.curation.steps.filter_questions import NONE_OF_THE_ABOVE, FilterQuestions
from capkit.data.images import BadImage
from capkit.data.records import Record
from capkit.errors import UsageError
from capkit.llm.base import Answer
from capkit.sceneworld.chat.sections import sections

GRAY = np.zeros((4, 4, 3), np.uint8)
COLORS = ["Blue", "Amber", "Cyan", "Dun"]
OFF = {"blind": False, "seen": False, "duplicates": False, "agreed": False}


class Model:
    """Answers a question by `says`: the text of an option, another text as it is, or None for a call that fails."""

    def __init__(self, says, name="model", draws=False):
        self.says, self.name, self.draws, self.asked = says, name, draws, []

    def about(self):
        return {"model": self.name}

    def ask(self, questions):
        self.asked += questions
        return [self._answer(question) for question in questions]

    def _answer(self, question):
        given = sections(question.text)
        options = {line[3:]: line[0] for line in given["options"].splitlines()}
        said = self.says(given["question"], question.sample, bool(question.pictures))
        return Answer(None, "gave up") if said is None else Answer(options.get(said, said))


class Encoder:
    """Places texts by their first word."""

    def __init__(self, name="first word"):
        self.name = name

    def fingerprint_fields(self, side):
        return {"side": side, "encoder": self.name}

    def encode_text(self, texts):
        words = sorted({text.split()[0] for text in texts})
        return torch.eye(len(words) + 1)[[words.index(text.split()[0]) for text in texts]]


def question(text, answer="Blue", choices=COLORS):
    return {"question": text, "choices": list(choices), "answer": answer, "category": []}


def record(*questions, key="0"):
    return Record(key, metadata={"questions": list(questions)})


def run(folder, records, read=lambda key: GRAY, **settings):
    failures = []
    step = FilterQuestions(**{**OFF, **settings}, cache_dir=str(folder))
    step.attach_failures(failures.append)
    step.attach_images(read)
    return list(step(lambda: records)), failures, step


def kept(records):
    return [q["question"] for r in records for q in r.metadata["questions"]]


def knows(**answers):
    """Knows some answers; else says what is no option."""
    return lambda text, sample, sees: answers.get(text, "I cannot see")


# blind ----------------------------------------------------------------------------------------------------------------


def test_what_a_language_model_answers_goes(tmp_path):
    model = Model(knows(known="Blue", wrong="Amber"))
    after, failures, step = run(
        tmp_path, [record(*map(question, ("known", "wrong", "unknown")))], blind=True, text_lm=model
    )
    assert kept(after) == ["wrong", "unknown"] and not failures
    assert step.counts["dropped_blind"] == 1 and step.counts["kept"] == 2
    assert [(q["question"], q["by"]) for q in after[0].metadata["questions_dropped"]] == [("known", "blind")]
    assert all(not q.pictures for q in model.asked)


@pytest.mark.parametrize(("num_right", "is_kept"), [(6, True), (7, False)])
def test_seven_of_ten_samples_drop_a_question_of_four_options(tmp_path, num_right, is_kept):
    model = Model(lambda text, sample, sees: "Blue" if sample < num_right else "Amber", draws=True)
    after, _, _ = run(tmp_path, [record(question("q"))], blind=True, text_lm=model)
    assert bool(after) == is_kept and {q.sample for q in model.asked} == set(range(10))


def test_orders_are_drawn_and_do_not_depend_on_other_records(tmp_path):
    first, second = Model(knows()), Model(knows())
    run(tmp_path / "a", [record(question("q"))], blind=True, text_lm=first)
    run(tmp_path / "b", [record(question("p"), key="1"), record(question("q"))], blind=True, text_lm=second)
    asked = {q.text for q in first.asked}
    assert len(asked) > 4 and asked == {q.text for q in second.asked if "\nq\n" in q.text}


def test_questions_with_the_option_no_are_filtered_as_others(tmp_path):
    model = Model(knows(**{"is it?": "No"}))
    after, _, _ = run(
        tmp_path, [record(question("is it?", "No", ["Yes", "No"]), question("q"))], blind=True, text_lm=model
    )
    assert kept(after) == ["q"]


def test_an_answer_that_begins_with_a_letter_of_an_option_is_read_by_its_text(tmp_path):
    """The released filter takes "Blue" for B, whatever stands there, and "Dun" for D."""
    model = Model(knows(q="Blue", r="Amber"))
    after, _, _ = run(tmp_path, [record(question("q"), question("r", "Dun"))], blind=True, text_lm=model)
    assert kept(after) == ["r"]


# seen -----------------------------------------------------------------------------------------------------------------


def seen(says, without=None):
    return {"seen": True, "vision_chat": Model(says, "vision"), "without_picture": Model(without or knows(), "text")}


def test_what_the_picture_answers_and_nothing_else_stays(tmp_path):
    sees = {"good": "Blue", "wrong gold": "Amber", "text": "Blue", "none": NONE_OF_THE_ABOVE}
    models = seen(lambda text, sample, sees_it: sees[text] if sees_it else "I cannot see", knows(text="Blue"))
    after, failures, step = run(tmp_path, [record(*map(question, sees))], **models)
    assert kept(after) == ["good"] and not failures
    assert step.counts["dropped_without_picture"] == 1 and step.counts["dropped_with_picture"] == 2
    asked = models["vision_chat"].asked
    assert all(q.text.strip().endswith(f"E. {NONE_OF_THE_ABOVE}") for q in asked)
    assert not any(NONE_OF_THE_ABOVE in q.text for q in models["without_picture"].asked)
    assert not any("\ntext\n" in q.text for q in asked)  # what went is not asked again


def test_one_right_answer_without_the_picture_is_one_too_many(tmp_path):
    """A model that says "A" is right in a fourth of the orders."""
    first = Model(lambda text, sample, sees: "A", "guess")
    records = [record(question("q"), key=str(i)) for i in range(200)]
    after, _, _ = run(tmp_path, records, seen=True, vision_chat=Model(knows(q="Blue"), "vision"), without_picture=first)
    assert abs(len(after) / 200 - 0.75**4) < 0.11  # 3 standard deviations of .316


def test_a_letter_in_a_word_is_no_answer(tmp_path):
    """ "A" is in "Answer" and, as a word, in "A cat": the released test takes both for A."""
    for said in ("Answer", "A cat", "Answer: A", "I say A"):
        models = seen(knows(q="Blue"), lambda text, sample, sees, said=said: said)
        after, _, step = run(tmp_path / said, [record(question("q"))], **models)
        assert kept(after) == ["q"] and step.counts["without_picture_failed"] == 0


def test_one_model_may_answer_with_and_without(tmp_path):
    model = Model(lambda text, sample, sees: "Blue" if sees or text == "text" else "?", "both")
    after, _, _ = run(
        tmp_path,
        [record(question("good"), question("text"))],
        seen=True,
        vision_chat=model,
        without_picture=model,
    )
    assert kept(after) == ["good"]


def test_a_failed_call_is_neither_right_nor_wrong(tmp_path):
    calls = {"maybe": None, "fine": "?"}
    models = seen(knows(maybe="Blue", fine="Blue"), lambda text, sample, sees: calls[text])
    after, failures, step = run(tmp_path, [record(question("maybe"), question("fine"))], **models)
    assert kept(after) == ["fine"] and step.counts["undecided"] == 1
    assert {f.reason for f in failures} == {"without_picture: maybe: gave up"}
    calls["maybe"] = "?"  # the next run asks it again
    again, _, step = run(tmp_path, [record(question("maybe"), question("fine"))], **models)
    assert kept(again) == ["maybe", "fine"] and step.counts["undecided"] == 0


def test_a_picture_that_cannot_be_read_is_reported(tmp_path):
    def read(key):
        if key == "0":
            raise BadImage("broken")
        return GRAY

    records = [record(question("q"), key=key) for key in "01"]
    after, failures, _ = run(tmp_path, records, read, **seen(knows(q="Blue")))
    assert [r.key for r in after] == ["1"] and [f.reason for f in failures] == ["picture: broken"]


# duplicates and agreement ---------------------------------------------------------------------------------------------


def test_of_doubles_one_stays(tmp_path):
    records = [record(*map(question, ("one", "one more", "two"))), record(question("one"), key="1")]
    after, _, step = run(tmp_path, records, duplicates=True, encoder=Encoder())
    assert kept(after) == ["one", "two", "one"]  # of each picture by itself
    assert step.counts["dropped_duplicates"] == 1
    others = FilterQuestions(**{**OFF, "duplicates": True}, encoder=Encoder("others"), cache_dir=str(tmp_path))
    assert step.fingerprint_fields() != others.fingerprint_fields()


def test_two_models_agree_or_a_person_looks(tmp_path):
    first = {"both": "Blue", "out": AMBIGUOUS, "one": "Blue", "gold": "Amber", "fails": None}
    second = {"both": "Blue", "out": NONE_OF_THEM, "one": "Cyan", "gold": "Amber", "fails": AMBIGUOUS}
    models = [Model(lambda text, sample, sees, s=s: s[text], name) for s, name in ((first, "1"), (second, "2"))]
    after, failures, step = run(
        tmp_path, [record(*map(question, first))], agreed=True, vision_chat=models[0], second_vision_chat=models[1]
    )
    assert kept(after) == ["both"]
    looks = after[0].metadata["questions_to_review"]
    assert [(q["question"], q["first"], q["second"]) for q in looks] == [
        ("one", "Blue", "Cyan"),
        ("gold", "Amber", "Amber"),
    ]
    counts = {name: step.counts[name] for name in ("kept", "dropped_agreed", "review", "undecided")}
    assert counts == {"kept": 1, "dropped_agreed": 1, "review": 2, "undecided": 1}  # a failed call is no way out
    assert [f.reason for f in failures] == ["first: fails: gave up"]
    assert all(way in models[0].asked[0].text for way in WAYS_OUT)


def test_a_record_with_nothing_left_is_left_out_and_one_to_review_is_not(tmp_path):
    models = {"vision_chat": Model(knows(a="Blue"), "1"), "second_vision_chat": Model(knows(a="Cyan"), "2")}
    after, failures, _ = run(tmp_path, [record(question("a")), Record("1")], agreed=True, **models)
    assert [r.key for r in after] == ["0"] and kept(after) == []
    assert [(f.key, f.reason[:11]) for f in failures] == [("1", "no question")]
    after, failures, _ = run(tmp_path, [record(question("q"))], blind=True, text_lm=Model(knows(q="Blue")))
    assert not after and [f.reason for f in failures] == ["none of 1 questions is left"]


# what is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "no filter is on"),
        ({"blind": True}, "the filter blind needs text_lm"),
        ({"seen": True}, "the filter seen needs vision_chat"),
        ({"seen": True, "vision_chat": Model(knows())}, "the filter seen needs without_picture"),
        ({"duplicates": True}, "the filter duplicates needs encoder"),
        ({"agreed": True, "vision_chat": Model(knows())}, "needs second_vision_chat"),
        (
            {"agreed": True, "vision_chat": Model(knows()), "second_vision_chat": Model(knows())},
            "asks two models, got one twice",
        ),
    ],
)
def test_a_filter_without_its_models_is_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        FilterQuestions(**{**OFF, **settings})


def test_more_options_than_letters_are_refused(tmp_path):
    many = question("q", "0", [str(number) for number in range(24)])
    with pytest.raises(UsageError, match=r"at most 22 options.*got 24 of 'q'"):
        models = {"vision_chat": Model(knows(), "1"), "second_vision_chat": Model(knows(), "2")}
        run(tmp_path, [record(many)], agreed=True, **models)


def test_a_set_of_another_split_is_refused(tmp_path):
    file = tmp_path / "q.jsonl"
    row = '{"id": "b", "split": "test", "questions": [{"question": "q", "choices": ["x", "y"], "answer": "x"}]}\n'
    file.write_text(row)
    pictures = {"train": {"a": "a"}, "test": {"b": "b"}}
    step = FilterQuestions(
        **{**OFF, "duplicates": True}, encoder=Encoder(), questions=str(file), cache_dir=str(tmp_path)
    )
    with pytest.raises(UsageError, match="expected questions of split train, got a set that says it belongs to test"):
        step.attach_split(Split("train", pictures.__getitem__))
    file.write_text(row.replace('"split": "test", ', ""))
    step = FilterQuestions(
        **{**OFF, "duplicates": True}, encoder=Encoder(), questions=str(file), cache_dir=str(tmp_path)
    )
    with pytest.raises(UsageError, match=r"1 pictures of the test split \('b'\)"):
        step.attach_split(Split("train", pictures.__getitem__))
    step.attach_split(Split("test", pictures.__getitem__))
    failures = []
    step.attach_failures(failures.append)
    (after,) = step(lambda: [Record("b"), Record("c")])
    assert kept([after]) == ["q"] and [f.key for f in failures] == ["c"]


@pytest.mark.parametrize(
    ("said", "letter"),
    [("B", "B"), ("(B)", "B"), (' "B" ', "B"), ("E", ""), ("Answer", ""), ("b", ""), ("B because", ""), ("", "")],
)
def test_a_reply_is_one_letter_of_an_option_or_no_option(said, letter):
    assert LetterOrNothing("ABCD").read(said) == letter
