"""An Asker over small models: one that answers lists, one in batches of its own, one many questions at once."""

import json
import os
import subprocess
import sys
import threading
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from queue import SimpleQueue

import numpy as np
import pytest
from killed import run_and_kill

from capkit.errors import UsageError
from capkit.llm.asker import Asker
from capkit.llm.base import Answer, Picture, Question
from capkit.llm.cache import question_key
from capkit.llm.ledger import Ledger
from capkit.llm.replies import Unparsable


class Upper:
    """Answers in capitals and remembers what it was asked; `bad` texts have no answer, `odd` ones an unusable one.

    `odd` maps a text to the number of its samples that are unusable.
    """

    draws = True

    def __init__(self, model="upper", bad=(), odd=None):
        self.model, self.bad, self.odd, self.asked = model, set(bad), odd or {}, []

    def about(self):
        return {"model": self.model}

    def ask(self, questions):
        return [self.answer(question) for question in questions]

    def answer(self, question):
        self.asked.append((question.text, question.sample) if question.sample else question.text)
        if question.text in self.bad:
            return Answer(None, "no answer")
        if question.sample < self.odd.get(question.text, 0):
            return Answer("?", tokens_in=2, tokens_out=1)
        pixels = "".join(f" {picture.pixels.sum()}" for picture in question.pictures)
        number = f" {question.sample}" if question.sample else ""
        return Answer(question.text.upper() + pixels + number, tokens_in=3, tokens_out=1)


class InBatches(Upper):
    """Answers the last question first, each by itself."""

    def ask_each(self, questions):
        for place in reversed(range(len(questions))):
            yield place, self.answer(questions[place])


class AtOnce(Upper):
    """Answers from four threads."""

    num_open = 4

    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        self.pool = ThreadPoolExecutor(4)

    def open(self, question):
        return self.pool.submit(self.answer, question)


class Lower:
    def read(self, text):
        if text == "?":
            raise Unparsable("it is a question mark")
        return text.lower() + "!"

    def schema(self):
        return {"type": "string"}


KINDS = [Upper, InBatches, AtOnce]


def asker(folder, model, **settings):
    return Asker(model, folder, Lower(), **settings)


def values(answers):
    return [answer.value for answer in answers]


def ask(asker, *texts):
    return asker.ask([Question(text) for text in texts])


def counts(cached=0, asked=0, failed=0, refused=0):
    return {"cached": cached, "asked": asked, "failed": failed, "refused": refused}


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_run_asks_nothing_and_answers_the_same(tmp_path, kind):
    model = kind()
    first = ask(asker(tmp_path, model), "a", "b", "a")
    again = asker(tmp_path, kind(bad=["a", "b"]))
    assert values(first) == ["a!", "b!", "a!"] and [answer.text for answer in first] == ["A", "B", "A"]
    assert ask(again, "a", "b", "a") == first
    assert sorted(model.asked) == ["a", "b"]
    assert again.counts == counts(cached=3)


def test_only_what_is_missing_is_asked_in_order(tmp_path):
    ask(asker(tmp_path, Upper()), "b", "d")
    model = Upper()
    assert values(ask(asker(tmp_path, model), *"abcde")) == ["a!", "b!", "c!", "d!", "e!"]
    assert model.asked == ["a", "c", "e"]


@pytest.mark.parametrize("kind", KINDS)
def test_failed_and_refused_answers_are_not_kept_and_are_asked_again(tmp_path, kind):
    cached = asker(tmp_path, kind(bad=["a"], odd={"b": 9}))
    failed, refused, good = ask(cached, "a", "b", "c")
    assert (failed.text, failed.failure) == (None, "no answer")
    assert (refused.text, refused.said) == (None, "?") and "question mark" in refused.failure
    assert good.value == "c!" and (good.tokens_in, good.tokens_out) == (3, 1)
    assert cached.counts == counts(asked=3, failed=2, refused=1)
    mended = kind()
    assert values(ask(asker(tmp_path, mended), "a", "b", "c")) == ["a!", "b!", "c!"]
    assert sorted(mended.asked) == ["a", "b"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_refused_reply_is_asked_again_as_its_next_sample(tmp_path, kind):
    model = kind(odd={"b": 2, "c": 9})
    first = asker(tmp_path, model, retries=3)
    answers = ask(first, "a", "b", "c")
    assert values(answers) == ["a!", "b 2!", None]
    assert answers[2].said == "?"
    assert sorted(map(str, model.asked)) == sorted(map(str, ["a", "b", "c", *((x, n) for x, n in [
        ("b", 1), ("b", 2), ("c", 1), ("c", 2), ("c", 3)])]))  # fmt: skip
    assert first.counts == counts(asked=7 + 1, failed=1, refused=2 + 4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_later_run_comes_to_the_same_answer_without_asking_what_was_refused(tmp_path, kind):
    """Even of a model that would now answer what it was refused for: the manifest of a resumed run must not differ."""
    first = ask(asker(tmp_path, kind(odd={"b": 2, "c": 9}), retries=3), "b", "c")
    model = kind()
    again = asker(tmp_path, model, retries=3)
    answers = ask(again, "b", "c")
    assert answers[0] == first[0] and again.counts["cached"] == 1
    assert model.asked == [("c", 3)], "the last refusal is no answer: it is asked for again"
    assert values(answers) == ["b 2!", "c 3!"]


def test_a_retry_is_no_sample_that_is_wanted_for_itself(tmp_path):
    """Of three samples the second is refused: its next one is number 4, since number 2 is an answer of its own."""

    class SecondIsOdd(Upper):
        def answer(self, question):
            return Answer("?") if question.sample == 1 else super().answer(question)

    drawn = asker(tmp_path, SecondIsOdd(), retries=1, num_samples=3)
    answers = drawn.ask([Question("a", sample=sample) for sample in range(3)])
    assert values(answers) == ["a!", "a 4!", "a 2!"]


def test_a_failure_is_not_asked_again_in_the_same_run(tmp_path):
    model = Upper(bad=["a"])
    ask(asker(tmp_path, model, retries=3), "a")
    assert model.asked == ["a"], "the server has retried already"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 3, 100])
def test_items_come_in_order_with_all_their_answers(tmp_path, kind, size):
    def questions_of(item):
        return [Question(f"{item} {i}") for i in range(item % 3)]

    stream = asker(tmp_path, kind(), batch_size=size).stream(iter(range(30)), questions_of)
    found = [(item, values(answers)) for item, answers in stream]
    assert found == [(item, [f"{item} {i}!" for i in range(item % 3)]) for item in range(30)]


def test_later_items_are_asked_while_the_first_waits(tmp_path):
    """No barrier: with the first question held back, the model gets as many others as it can work on, and no more.

    A stream that waits for a batch, or for each item, would never open the second.
    """
    held = SimpleQueue()

    class Held(Upper):
        num_open, num_opened, num_answered, most = 4, 0, 0, 0

        def open(self, question):
            self.num_opened += 1
            self.most = max(self.most, self.num_opened - self.num_answered)
            future = Future()
            held.put((question, future))
            return future

    model, found = Held(), []
    stream = asker(tmp_path, model).stream(range(10), lambda item: [Question(str(item))])
    reader = threading.Thread(target=lambda: found.extend(item for item, _ in stream), daemon=True)
    reader.start()
    _, first = held.get(timeout=10)
    opened = [held.get(timeout=10) for _ in range(3)]  # one that is not opened is an Empty
    for number in range(9):
        question, future = opened.pop(0)
        model.num_answered += 1
        future.set_result(model.answer(question))
        opened += [held.get(timeout=10)] if number < 6 else []
    assert found == [] and model.most == 4
    model.num_answered += 1
    first.set_result(Answer("FIRST"))
    reader.join(30)
    assert found == list(range(10))


def test_an_answer_is_kept_when_it_comes_whatever_the_reader_does(tmp_path):
    """The reader of the stream stops after the first item; what the others said is on disk all the same."""
    model = AtOnce()
    first = asker(tmp_path, model)
    stream = first.stream(range(4), lambda item: [Question(str(item))])
    next(stream)
    model.pool.shutdown(wait=True)
    first.store.flush()
    store = asker(tmp_path, Upper()).store
    kept = [store.get(question_key(Question(str(item)))) is not None for item in range(4)]
    assert kept == [text in model.asked for text in "0123"] and kept[0]
    stream.close()


def test_what_stops_a_model_stops_the_stream(tmp_path):
    class Gone(AtOnce):
        def answer(self, question):
            raise UsageError("no connection")

    class GoneInBatches(Upper):
        def ask(self, questions):
            raise UsageError("no connection")

    for model in (Gone(), GoneInBatches()):
        with pytest.raises(UsageError, match="no connection"):
            ask(asker(tmp_path, model), "a", "b")


def test_a_model_that_drops_a_question_is_an_error(tmp_path):
    class Short(Upper):
        def ask(self, questions):
            return super().ask(questions)[1:]

    with pytest.raises(ValueError, match="shorter"):
        ask(asker(tmp_path, Short()), "a", "b")


def test_another_model_or_setting_is_another_store(tmp_path):
    ask(asker(tmp_path, Upper()), "a")
    other = Upper("upper, temperature 1")
    ask(asker(tmp_path, other), "a")
    assert other.asked == ["a"]
    assert sorted(json.loads(p.read_text())["model"] for p in tmp_path.glob("*/about.json")) == ["upper", other.model]


def test_a_sample_is_asked_for_once(tmp_path):
    questions = [Question("a", sample=sample) for sample in range(10)]
    ten = asker(tmp_path, Upper(), num_samples=10).ask(questions)
    assert values(ten)[:2] == ["a!", "a 1!"] and len(set(values(ten))) == 10
    model = Upper()
    assert asker(tmp_path, model, num_samples=10).ask([questions[3]]) == [ten[3]]
    assert model.asked == []


def test_a_sample_that_was_not_announced_is_an_error(tmp_path):
    """It could be another one's retry."""
    with pytest.raises(UsageError, match=r"from 0 to num_samples - 1 = 1, got 2"):
        asker(tmp_path, Upper(), num_samples=2).ask([Question("a", sample=2)])


def test_only_a_structured_model_gets_the_schema(tmp_path):
    class Seen(Upper):
        def answer(self, question):
            self.asked.append(question.schema)
            return Answer("yes")

    plain, structured = Seen(), Seen("structured")
    structured.structured = True
    for model in (plain, structured):
        ask(asker(tmp_path, model), "a")
    assert plain.asked == [None] and structured.asked == [{"type": "string"}]


def test_pictures_are_let_go_when_a_question_is_answered(tmp_path):
    pixels = [np.full((2, 2, 3), value, np.uint8) for value in range(3)]
    alive = [weakref.ref(array) for array in pixels]
    questions = [Question("see", (Picture(array),)) for array in pixels]
    stream = asker(tmp_path, Upper()).stream(range(3), lambda item: [questions.pop(0)])
    del pixels
    assert values(next(stream)[1]) == ["see 0!"]
    assert [reference() for reference in alive] == [None] * 3


class OldText:
    def fingerprint_fields(self):
        return {"model": "old"}

    def complete(self, prompts):
        return []


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("model", "settings", "reason"),
    [
        (OldText(), {}, r"about\(\) and ask\(questions\).*got OldText; complete is now ask.*fingerprint_fields is now"),
        ("upper", {}, "got str"),
        ("greedy", {"retries": 2}, r"retries=2 .* in one way only; set temperature, such as 0.7, or retries=0"),
        ("greedy", {"num_samples": 5}, "5 answers to one question need a model that samples"),
        ("blind", {"pictures": True}, "which takes no pictures"),
        ("sees", {"pictures": False}, "which needs a picture each time"),
        ("greedy", {"retries": -1}, "expected an integer of at least 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_told_before_anything_is(tmp_path, model, settings, reason):
    if model in ("greedy", "blind", "sees"):
        kind, model = model, Upper()
        model.draws = kind != "greedy"
        model.takes_pictures = {"blind": False, "sees": True}.get(kind)
    with pytest.raises(UsageError, match=reason):
        asker(tmp_path, model, **settings)
    assert not list(tmp_path.iterdir())


SCRIPT = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from capkit.llm.asker import Asker
from capkit.llm.base import Answer, Question
from capkit.llm.replies import Text

class Slow:
    num_open = 8
    pool = ThreadPoolExecutor(4)

    def about(self):
        return {"model": "slow"}

    def ask(self, questions):
        return [self.answer(question) for question in questions]

    def open(self, question):
        return self.pool.submit(self.answer, question)

    def answer(self, question):
        time.sleep(0.002)
        with open("asked.txt", "a") as file:
            file.write(question.text + "\\n")
        return Answer(question.text + " is said")

asker = Asker(Slow(), "answers", Text(9))
first, last = FIRST, LAST
texts = [f"number {i}" for i in range(first, last)]
found = [answer.value for _, (answer,) in asker.stream(texts, lambda text: [Question(text)])]
assert found == [text + " is said" for text in texts]
print(asker.counts["cached"], asker.counts["asked"])
"""


def script(first, last):
    return SCRIPT.replace("FIRST", str(first)).replace("LAST", str(last))


def asked_texts(folder):
    return (folder / "asked.txt").read_text().split("\n")[:-1] if (folder / "asked.txt").exists() else []


def finished(folder, *ranges):
    """Runs the script in processes of their own, at once; what each prints: cached and asked questions."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script(*each)], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
        )
        for each in ranges
    ]
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert all(process.returncode == 0 for process in processes)
    return [tuple(map(int, text.split())) for text in said]


def test_kill_9_loses_the_answers_in_flight_alone(tmp_path, monkeypatch):
    """The model writes down what it answers; of that, at most the eight open questions are not in the store."""
    monkeypatch.chdir(tmp_path)
    run_and_kill(script(0, 3000), tmp_path, lambda: len(asked_texts(tmp_path)) >= 250)
    before = len(asked_texts(tmp_path))
    assert 250 <= before < 3000
    ((cached, asked),) = finished(tmp_path, (0, before + 20))
    assert before - 8 <= cached <= before + 1 and cached + asked == before + 20
    assert finished(tmp_path, (0, before + 20)) == [(before + 20, 0)]


def test_two_processes_share_a_store(tmp_path):
    """They ask for half of it both, at the same time; afterwards everything is kept, whole."""
    (first, second) = finished(tmp_path, (0, 200), (100, 300))
    assert sum(first) == sum(second) == 200
    assert finished(tmp_path, (0, 300)) == [(300, 0)]
    assert set(asked_texts(tmp_path)) == {f"number {i}" for i in range(300)}


class _Length:
    """A text of so many letters."""

    def __init__(self, length):
        self.length = length

    def read(self, text):
        if len(text) != self.length:
            raise Unparsable(f"expected {self.length} letters")
        return self.length

    def schema(self):
        return {"length": self.length}

    def example(self):
        return self.length


def test_a_question_may_say_itself_how_its_reply_is_read(tmp_path):
    class Structured(Upper):
        structured = True

        def answer(self, question):
            return Answer(question.text[: question.schema["length"]])

    questions = [Question("aaaa", reply=_Length(2)), Question("bbbb", reply=_Length(3)), Question("cc")]
    asker = Asker(Structured(), tmp_path, _Length(1))
    assert [answer.value for answer in asker.ask(questions)] == [2, 3, 1]
    again = Asker(Structured(), tmp_path, _Length(1))
    assert [answer.value for answer in again.ask(questions)] == [2, 3, 1]
    assert again.counts["asked"] == 0 and again.counts["cached"] == 3
    assert Asker(Structured(), tmp_path, _Length(1)).ask([replace(questions[0], reply=_Length(5))])[0].text is None


def test_a_dry_run_goes_on_with_the_example_of_the_questions_own_reply(tmp_path):
    asker = Asker(Upper(), tmp_path, _Length(1))
    asker.account = Ledger(is_dry=True).account("test", asker.model)
    assert [answer.value for answer in asker.ask([Question("a", reply=_Length(7)), Question("b")])] == [7, 1]
