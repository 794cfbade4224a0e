"""What the questions of a run cost and how many of them fail: counted as answers come, and stopped in time."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from capkit.errors import BudgetSpent, NoAnswers, UsageError
from capkit.llm.base import Answer, Question
from capkit.llm.cost import Price, guessed_tokens, tokens_of_text
from capkit.utils.ranges import PositiveFloat, Probability, check_ranges

NUM_FIRST = 50
NUM_SHOWN = 3


@check_ranges
class Ledger:
    """The accounts of a run, one for each step and model that it asks.

    Args:
        budget: Money that this process may spend; a question that could pass it is not asked. It is compared with the
            most that a question can cost: its tokens by `guessed_tokens`, or by the worst ratio of counted to guessed
            ones that the account has seen, and the longest answer.
        max_failed: Share of the first 50 questions of an account that may have no usable answer.
        is_dry: Ask nothing: count the questions and the most that they can cost.
    """

    def __init__(
        self,
        budget: PositiveFloat | None = None,
        max_failed: Probability = 1.0,
        is_dry: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.budget, self.max_failed, self.is_dry = budget, max_failed, is_dry
        self.accounts: list[Account] = []
        self.lock = threading.Lock()
        self.open_money, self.num_open = 0.0, 0
        self._clock, self._start = clock, clock()

    def account(self, name: str, model: Any) -> "Account":
        """A new account. Raises UsageError if the model has a price and no longest answer to reckon with."""
        found = Account(self, name, model)
        self.accounts.append(found)
        return found

    def check(self) -> None:
        """Raises UsageError for a budget where no model has a price."""
        if self.budget is not None and self.accounts and all(account.price is None for account in self.accounts):
            raise UsageError(
                f"budget={self.budget:g} needs the price of a model; give it for a million tokens of questions and "
                "of answers, such as text_lm.price=[0.15,0.60]"
            )

    @property
    def spent(self) -> float:
        return sum(account.money for account in self.accounts)

    def note(self) -> str:
        """Speed, share of failures and money, for the line that shows progress; "" before the first answer."""
        answered = sum(account.num_answered for account in self.accounts)
        if not answered:
            return ""
        failed = sum(account.num_failed for account in self.accounts)
        parts = [
            f"{answered / max(self._clock() - self._start, 1e-9):,.1f} questions/s",
            f"{failed / answered:.1%} failed",
        ]
        if any(account.price is not None for account in self.accounts):
            parts.append(f"{self.spent:,.2f} spent" + ("" if self.budget is None else f" of {self.budget:,.2f}"))
        return ", ".join(parts)


@dataclass(eq=False)
class Account:
    """The questions of one step to one model. `num_guessed` answers came without counts of tokens."""

    ledger: Ledger
    name: str
    model: Any
    tokens_in: int = 0
    tokens_out: int = 0
    num_answered: int = 0
    num_failed: int = 0
    num_guessed: int = 0
    num_expected: int = 0
    bytes_expected: int = 0
    price: Price | None = None
    _ratio: float = 1.0  # the worst of counted to guessed tokens of a question
    _failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.price = getattr(self.model, "price", None)
        self.max_tokens: int | None = getattr(self.model, "max_tokens", None)
        if self.price is not None and self.max_tokens is None:
            raise UsageError(
                f"{type(self.model).__name__} has a price, and needs max_tokens, its longest answer, for the most that "
                "a question can cost; give it this attribute"
            )

    @property
    def money(self) -> float:
        return 0.0 if self.price is None else self.price(self.tokens_in, self.tokens_out)

    def most(self, question: Question) -> float:
        """The most money that a question can cost."""
        if self.price is None or self.max_tokens is None:
            return 0.0
        return self.price(self._ratio * guessed_tokens(question), self.max_tokens)

    def reserve(self, question: Question) -> float | None:
        """Money for a question that is about to be asked, for `settle`; None: not before others are answered.

        Raises BudgetSpent if it could pass the budget although no other question is open.
        """
        most, ledger = self.most(question), self.ledger
        with ledger.lock:
            if ledger.budget is not None and ledger.spent + ledger.open_money + most > ledger.budget:
                if ledger.num_open:
                    return None
                raise BudgetSpent(
                    f"budget={ledger.budget:g}: {ledger.spent:.6g} are spent, and the next question ({self.name}) "
                    f"could cost {most:.6g}; all answers are kept: start the same command again, with a budget for "
                    "what is left, which dry_run=true shows"
                )
            ledger.open_money += most
            ledger.num_open += 1
        return most

    def release(self, reserved: float) -> None:
        """Give back what was reserved for a question that is not asked."""
        with self.ledger.lock:
            self.ledger.open_money -= reserved
            self.ledger.num_open -= 1

    def settle(self, reserved: float, question: Question, said: Answer) -> None:
        """Count what an answer cost, failed ones too."""
        guessed = guessed_tokens(question)
        with self.ledger.lock:
            self.ledger.open_money -= reserved
            self.ledger.num_open -= 1
            if said.tokens_in is not None and said.tokens_out is not None:
                self.tokens_in += said.tokens_in
                self.tokens_out += said.tokens_out
                self._ratio = max(self._ratio, said.tokens_in / guessed)
            elif (text := said.text or said.said) is not None:
                self.tokens_in += guessed
                self.tokens_out += tokens_of_text(text)
                self.num_guessed += 1

    def judge(self, question: Question, answer: Answer) -> None:
        """Count a question that was asked, by its answer as read. Raises NoAnswers for too many failures at first."""
        with self.ledger.lock:
            self.num_answered += 1
            if answer.text is not None:
                return
            self.num_failed += 1
            if self.num_answered > NUM_FIRST:
                return
            self._failures.append(
                f"  asked {_short(question.text)}: {answer.failure}"
                + ("" if answer.said is None else f"; it said {_short(answer.said)}")
            )
            if self.num_failed <= self.ledger.max_failed * NUM_FIRST:
                return
        raise NoAnswers(
            f"{self.name}: {self.num_failed} of the first {self.num_answered} questions have no usable answer, more "
            f"than max_failed={self.ledger.max_failed:g} of {NUM_FIRST} allows; choose another model or prompt, or "
            "raise max_failed; answers so far are kept; the first ones:\n" + "\n".join(self._failures[:NUM_SHOWN])
        )

    def expect(self, question: Question) -> None:
        """Count a question that a dry run does not ask, with the longest answer."""
        with self.ledger.lock:
            self.num_expected += 1
            self.bytes_expected += len((question.text + (question.system or "")).encode())
            self.tokens_in += guessed_tokens(question)
            self.tokens_out += self.max_tokens or 0

    def row(self) -> dict[str, float | int]:
        """Tokens and money, for the report."""
        row: dict[str, float | int] = {"tokens_in": self.tokens_in, "tokens_out": self.tokens_out}
        if self.num_guessed:
            row["tokens_guessed"] = self.num_guessed
        if self.price is not None:
            row["money"] = self.money
        return row


def _short(text: str) -> str:
    """The end of a text, which differs more between prompts than its start."""
    line = " ".join(text.split())
    return repr(line if len(line) <= 160 else f"{line[:60]} ... {line[-90:]}")
