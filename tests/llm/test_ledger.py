import numpy as np
import pytest

from capkit.errors import BudgetSpent, NoAnswers, UsageError
from capkit.llm.base import Answer, Picture, Question
from capkit.llm.cost import Price, guessed_tokens
from capkit.llm.ledger import Ledger

WORDS = Question("x" * 300)  # 100 tokens and 16 of the template


class Model:
    def __init__(self, price=None, max_tokens=50):
        self.price, self.max_tokens = price, max_tokens


def priced(ledger, **usual):
    """2 for a million tokens of questions, 10 of answers: 116 of the one and at most 50 of the other cost 732e-6."""
    return ledger.account("step/text", Model(Price(2.0, 10.0), **usual))


def test_money_by_hand():
    account = priced(Ledger())
    for tokens_in, tokens_out in ((1000, 100), (500, 0)):
        account.settle(account.reserve(WORDS), WORDS, Answer("yes", tokens_in=tokens_in, tokens_out=tokens_out))
    assert account.money == pytest.approx((1500 * 2 + 100 * 10) / 1e6)
    assert account.row() == {"tokens_in": 1500, "tokens_out": 100, "money": pytest.approx(0.004)}
    assert Ledger().account("step/text", Model()).row() == {"tokens_in": 0, "tokens_out": 0}


def test_tokens_are_guessed_where_nobody_counted_them():
    account = priced(Ledger())
    account.settle(account.reserve(WORDS), WORDS, Answer("a dog"))  # 5 bytes: 2 tokens
    account.settle(account.reserve(WORDS), WORDS, Answer(None, "status 500"))  # nothing came: nothing to pay
    assert account.row() == {"tokens_in": 116, "tokens_out": 2, "tokens_guessed": 1, "money": pytest.approx(252e-6)}
    picture = Picture(np.zeros((56, 60, 3), np.uint8))  # 3,360 of 784 pixels: 5 tokens
    assert guessed_tokens(Question("é", (picture, picture), system="be short")) == 1 + 3 + 16 + 10


def test_an_answer_that_failed_costs_what_it_took():
    account = priced(Ledger())
    account.settle(account.reserve(WORDS), WORDS, Answer(None, "truncated", "a do", tokens_in=10, tokens_out=50))
    assert account.money == pytest.approx(520e-6)


def test_the_question_that_would_pass_the_budget_is_not_asked():
    """Each question costs at most 732e-6 and, as answered, 332e-6: four of them, then there are 672e-6 left."""
    ledger = Ledger(budget=0.002)
    account = priced(ledger)
    for _ in range(4):
        account.settle(account.reserve(WORDS), WORDS, Answer("yes", tokens_in=116, tokens_out=10))
    with pytest.raises(
        BudgetSpent, match=r"budget=0.002: 0.001328 are spent.*\(step/text\) could cost 0.000732"
    ) as ended:
        account.reserve(WORDS)
    assert ended.value.status == 85 and ledger.spent <= 0.002


def test_open_questions_count_with_the_most_that_they_can_cost():
    ledger = Ledger(budget=0.002)
    first, second = priced(ledger), priced(ledger)
    reserved = [first.reserve(WORDS), second.reserve(WORDS)]
    assert None not in reserved and first.reserve(WORDS) is None  # 3 x 732e-6 > 0.002, and an answer may make room
    first.settle(reserved[0], WORDS, Answer("yes", tokens_in=116, tokens_out=10))
    assert first.reserve(WORDS) == pytest.approx(732e-6)
    second.release(reserved[1])
    assert second.reserve(WORDS) == pytest.approx(732e-6)


def test_a_question_is_expected_to_cost_as_much_as_the_worst_so_far():
    account = priced(Ledger())
    account.settle(account.reserve(WORDS), WORDS, Answer("yes", tokens_in=232, tokens_out=10))
    account.settle(account.reserve(WORDS), WORDS, Answer("yes", tokens_in=58, tokens_out=10))
    assert account.most(WORDS) == pytest.approx((232 * 2 + 50 * 10) / 1e6)


def test_a_budget_needs_a_price_and_a_price_the_longest_answer():
    ledger = Ledger(budget=5.0)
    ledger.check()  # nobody is asked at all
    ledger.account("step/text", Model())
    with pytest.raises(UsageError, match=r"budget=5 needs the price of a model.*price=\[0.15,0.60\]"):
        ledger.check()
    priced(ledger)
    ledger.check()
    with pytest.raises(UsageError, match="needs max_tokens"):
        priced(ledger, max_tokens=None)


def judged(account, outcomes):
    for place, is_good in enumerate(outcomes):
        answer = Answer("yes") if is_good else Answer(None, f"reason {place}", said=f"said {place}")
        account.judge(Question(f"question {place}"), answer)


def test_too_many_failures_at_the_start_end_the_run_and_show_three():
    account = Ledger(max_failed=0.1).account("step/text", Model())
    judged(account, [True] * 40 + [False] * 5)
    with pytest.raises(NoAnswers, match="6 of the first 46 questions have no usable answer") as ended:
        account.judge(Question("question 45"), Answer(None, "reason 45"))
    message = str(ended.value)
    assert ended.value.status == 86
    assert "asked 'question 40': reason 40; it said 'said 40'" in message and "reason 42" in message
    assert "reason 43" not in message


def test_failures_after_the_first_questions_do_not():
    account = Ledger(max_failed=0.1).account("step/text", Model())
    judged(account, [False] * 5 + [True] * 45 + [False] * 100)
    assert account.num_failed == 105
    judged(Ledger(max_failed=1.0).account("step/text", Model()), [False] * 200)


def test_each_step_and_model_has_a_start_of_its_own():
    ledger = Ledger(max_failed=0.1)
    judged(ledger.account("one/text", Model()), [True] * 60)
    with pytest.raises(NoAnswers, match="two/text"):
        judged(ledger.account("two/text", Model()), [False] * 6)


def test_progress_tells_speed_failures_and_money():
    now = [0.0]
    ledger = Ledger(budget=5.0, clock=lambda: now[0])
    account = priced(ledger)
    assert ledger.note() == ""
    for answer in (Answer("yes", tokens_in=500_000, tokens_out=25_000), Answer(None, "no")):
        account.settle(account.reserve(WORDS), WORDS, answer)
        account.judge(WORDS, answer)
    now[0] = 0.5
    assert ledger.note() == "4.0 questions/s, 50.0% failed, 1.25 spent of 5.00"
    free = Ledger(clock=lambda: now[0])
    judged(free.account("step/text", Model()), [True])
    now[0] = 2.5
    assert free.note() == "0.5 questions/s, 0.0% failed"
