"""An Asker within a run's ledger: of a model that answers lists, and of one that works on many questions at once."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from capkit.errors import BudgetSpent, NoAnswers
from capkit.llm.asker import Asker
from capkit.llm.base import Answer, Question
from capkit.llm.cost import Price
from capkit.llm.ledger import Ledger
from capkit.llm.replies import Text

NUM_QUESTIONS = 40
REPLY = Text(5)


class Lists:
    """Answers with the question in capitals, of 10 tokens in and 10 out: 30e-6 of money, and at most 145e-6."""

    price, max_tokens = Price(1.0, 2.0), 64

    def __init__(self, bad=()):
        self.asked, self.bad = [], set(bad)

    def about(self):
        return {"model": "upper"}

    def ask(self, questions):
        return [self.answer(question) for question in questions]

    def answer(self, question):
        self.asked.append(question.text)
        text = "one word too many for this" if question.text in self.bad else question.text.upper()
        return Answer(text, tokens_in=10, tokens_out=10)


class AtOnce(Lists):
    """The same from four threads."""

    num_open = 4

    def __init__(self, bad=()):
        super().__init__(bad)
        self.pool = ThreadPoolExecutor(4)

    def open(self, question) -> "Future[Answer]":
        return self.pool.submit(self.answer, question)


class OnceAll(AtOnce):
    """The same, where no answer comes before four questions are open: who waits for one alone waits for ever."""

    def __init__(self, bad=()):
        super().__init__(bad)
        self.barrier = threading.Barrier(4)

    def answer(self, question):
        self.barrier.wait(30)
        return super().answer(question)


def asker(model, folder, ledger, name="step/text"):
    found = Asker(model, folder, REPLY, batch_size=8)
    found.account = ledger.account(name, model)
    return found


def questions(count=NUM_QUESTIONS):
    return [Question(f"q{number:02d}") for number in range(count)]


@pytest.mark.parametrize("kind", [Lists, AtOnce])
def test_a_budget_is_spent_as_far_as_it_goes_and_never_passed(kind, tmp_path):
    """Of 600e-6 the 17th question could take 145e-6 when 480e-6 are spent: it is not asked, nor any after it."""
    model, ledger = kind(), Ledger(budget=600e-6)
    with pytest.raises(BudgetSpent):
        asker(model, tmp_path, ledger).ask(questions())
    assert len(model.asked) == 16 and ledger.spent == pytest.approx(480e-6)
    assert ledger.num_open == 0 and ledger.open_money == pytest.approx(0.0, abs=1e-12)
    again = kind()
    assert [answer.value for answer in asker(again, tmp_path, Ledger()).ask(questions())] == [
        question.text.upper() for question in questions()
    ]
    assert not set(again.asked) & set(model.asked)


def test_where_there_is_money_questions_are_open_together(tmp_path):
    model = OnceAll()
    answers = asker(model, tmp_path, Ledger(budget=1.0)).ask(questions())
    assert all(answer.text for answer in answers)


@pytest.mark.parametrize("kinds", [(Lists, AtOnce), (AtOnce, Lists), (AtOnce, AtOnce), (Lists, Lists)])
def test_two_models_share_one_budget(kinds, tmp_path):
    """One stream feeds the other, as the steps of a run do; neither waits for money that the other holds for ever."""
    ledger = Ledger(budget=1500e-6)
    first, second = (kind() for kind in kinds)
    inner, outer = asker(first, tmp_path / "1", ledger, "1"), asker(second, tmp_path / "2", ledger, "2")
    described = (answer.value for _, (answer,) in inner.stream(questions(), lambda question: [question]))
    with pytest.raises(BudgetSpent):
        for _ in outer.stream(described, lambda text: [Question(text)]):
            pass
    assert len(first.asked) + len(second.asked) == 46 and ledger.spent == pytest.approx(1380e-6)


@pytest.mark.parametrize("kind", [Lists, AtOnce])
def test_too_many_failures_end_the_run_and_good_answers_are_kept(kind, tmp_path):
    bad = {question.text for question in questions()[10:]}
    with pytest.raises(NoAnswers, match=r"step/text: 6 of the first \d+ questions"):
        asker(kind(bad), tmp_path, Ledger(max_failed=0.1)).ask(questions())
    again = asker(kind(), tmp_path, Ledger())
    again.ask(questions()[:10])
    assert again.counts == {"cached": 10, "asked": 0, "failed": 0, "refused": 0}


@pytest.mark.parametrize("kind", [Lists, AtOnce])
def test_a_dry_run_asks_what_is_kept_and_nothing_else(kind, tmp_path):
    asker(kind(), tmp_path, Ledger()).ask(questions()[:5])
    model, ledger = kind(), Ledger(is_dry=True)
    dry = asker(model, tmp_path, ledger)
    answers = dry.ask(questions())
    assert [answer.value for answer in answers[:5]] == ["Q00", "Q01", "Q02", "Q03", "Q04"]
    assert {answer.value for answer in answers[5:]} == {REPLY.example()}
    assert model.asked == [] and dry.account.num_expected == 35 and dry.counts["cached"] == 5
    assert dry.account.row()["tokens_out"] == 35 * 64
    assert dry.account.money == pytest.approx(35 * dry.account.most(questions()[0]))
    after = asker(kind(), tmp_path, Ledger())
    after.ask(questions())
    assert after.counts["asked"] == 35
