"""Asks a model what its store lacks, reads the replies strictly, and keeps them as they come."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Condition, RLock
from typing import Any, Generic, TypeVar

from capkit.errors import UsageError
from capkit.llm.base import Answer, BatchedModel, ChatModel, ConcurrentModel, Question
from capkit.llm.cache import AnswerStore, question_key
from capkit.llm.json_replies import JSONField, JSONObject
from capkit.llm.ledger import Ledger
from capkit.llm.replies import Reply, Unparsable, example_of
from capkit.utils.ranges import NonNegativeInt, PositiveInt, check_ranges

Item = TypeVar("Item")

# Items that may wait for one before them, for each question that is worked on at once.
_AHEAD = 32
# Where a budget is nearly spent, questions wait for the answers to others, which say what is left.
_BUDGET_WAIT_S = 0.05
_OLD_NAMES = {
    "complete": "ask(questions)",
    "answer": "ask(questions)",
    "fingerprint_fields": "about()",
    "sample": "the attribute draws = True, and Question.sample in ask(questions)",
}


@dataclass(eq=False)
class _Pending:
    """A question with the sample and key of its next attempt, and its answer once there is one.

    `reserved` is the money for the attempt that is open.
    """

    question: Question
    key: str
    first_key: str
    attempt: int = 0
    reserved: float = 0.0
    answer: Answer | None = None

    def settle(self, answer: Answer) -> None:
        self.answer, self.question = answer, Question("")  # lets go of its pictures


@check_ranges
class Asker:
    """A model whose replies are read by `reply` and kept, if they can be read, in `cache_dir`.

    Answers have in `value` what `reply` took from their text; where it refuses, they have a failure and no text.

    A refused reply is asked again as its next sample, `retries` times. The samples of one question that a caller asks
    for are 0 to `num_samples` - 1, so the next one of sample k is k + `num_samples`. Refused replies that were asked
    again are kept too, so that a later run comes to the same answer; the last one, and failed questions, are not, and
    are asked again in a later run.

    `counts` counts questions answered from the store (`cached`), put to the model (`asked`, with those asked again),
    replies that were refused (`refused`), and questions that have no answer in the end (`failed`). `account` counts
    tokens and money; a task replaces it by one in its own ledger, which may end the run, or have nothing asked.

    Args:
        model: A ChatModel.
        cache_dir: Folder of stores, one for each `about()`.
        reply: What a reply must be, where its question does not say so itself.
        retries: Times a refused reply is asked again; needs a model that draws.
        num_samples: Answers wanted to each question; 2 and more need a model that draws.
        batch_size: Questions given at once to a model that answers in batches.
        pictures: Whether the questions have pictures; None if some have.

    Raises UsageError, before anything is asked, for a model that cannot do this.
    """

    def __init__(
        self,
        model: ChatModel,
        cache_dir: str | Path,
        reply: Reply,
        retries: NonNegativeInt = 0,
        num_samples: PositiveInt = 1,
        batch_size: PositiveInt = 32,
        pictures: bool | None = None,
    ) -> None:
        check_model(model, retries, num_samples, pictures)
        can_write = getattr(model, "can_write", None)
        if isinstance(reply, JSONObject | JSONField) and can_write is not None and not can_write("{}"):
            raise UsageError(
                f"expected a model that can write JSON, got {model.about()['model']}, whose tokenizer has no braces, "
                "such as T5's; choose another model, or have a step that can do so ask for text "
                "(step.fuse_findings.prompt=fuse_text_v1 step.fuse_findings.reply=text)"
            )
        self.model, self.reply = model, reply
        self.retries, self.num_samples, self.batch_size = retries, num_samples, batch_size
        self._is_structured = bool(getattr(model, "structured", False))
        self._schema = self._schema_of(reply)
        self.store = AnswerStore(cache_dir, model.about())
        self.counts = Counter(cached=0, asked=0, failed=0, refused=0)
        self.account = Ledger().account(type(model).__name__, model)
        self.lock = RLock()

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer a question, in order. Of equal questions one is asked."""
        return [answer for _, (answer,) in self.stream(questions, lambda question: [question])]

    def stream(
        self, items: Iterable[Item], questions_of: Callable[[Item], Iterable[Question]]
    ) -> Iterator[tuple[Item, list[Answer]]]:
        """Each item with the answers to its questions (possibly none), in order of the items.

        Later items' questions are worked on while earlier ones wait for theirs, as many as the model takes at once.
        Keep pictures out of items: a question, and with it its pictures, is let go when it is answered.
        """
        return _Stream(self, questions_of).run(iter(items))

    def begin(self, question: Question) -> _Pending:
        """A question, with its answer if the store has it."""
        if not 0 <= question.sample < self.num_samples:
            raise UsageError(
                f"expected a sample from 0 to num_samples - 1 = {self.num_samples - 1}, got {question.sample}; give "
                "the Asker the number of samples that are wanted"
            )
        schema = self._schema if question.reply is None else self._schema_of(question.reply)
        question = replace(question, schema=schema)
        key = question_key(question)
        pending = _Pending(question, key, key)
        if self._find(pending):
            self.counts["cached"] += 1
        elif self.account.ledger.is_dry:
            self.account.expect(question)
            pending.settle(Answer("(not asked)", value=example_of(question.reply or self.reply)))
        return pending

    def take(self, pending: _Pending, said: Answer) -> bool:
        """Read and keep what a model said; False if the question must be asked again, as its next sample."""
        self.counts["asked"] += 1
        self.account.settle(pending.reserved, pending.question, said)
        answer = self._read(said, pending.question)
        is_refused = answer.text is None and answer.said is not None
        self.counts["refused"] += is_refused
        if is_refused and pending.attempt < self.retries:
            self.store.add(pending.key, said)
            self._to_next_sample(pending)
            return self._find(pending)
        if answer.text is None:
            self.counts["failed"] += 1
        else:
            self.store.add(pending.key, said, pending.question)
        question = pending.question
        pending.settle(answer)
        self.account.judge(question, answer)
        return True

    def _find(self, pending: _Pending) -> bool:
        """Whether the store has the answer. A kept refusal counts as an attempt, unless it would be the last one."""
        while (kept := self.store.get(pending.key)) is not None:
            answer = self._read(kept, pending.question)
            if answer.text is not None:
                pending.settle(answer)
                return True
            if pending.attempt == self.retries:
                return False
            self._to_next_sample(pending)
        return False

    def _to_next_sample(self, pending: _Pending) -> None:
        pending.attempt += 1
        pending.question = replace(pending.question, sample=pending.question.sample + self.num_samples)
        pending.key = question_key(pending.question)

    def _schema_of(self, reply: Reply) -> dict[str, Any] | None:
        return reply.schema() if self._is_structured else None

    def _read(self, answer: Answer, question: Question) -> Answer:
        reply = question.reply or self.reply
        if answer.text is None and answer.said is not None and getattr(reply, "reads_cut", False):
            answer = replace(answer, text=answer.said, failure=None, said=None)
        if answer.text is None:
            return answer
        try:
            return replace(answer, value=reply.read(answer.text))
        except Unparsable as problem:
            return replace(answer, text=None, failure=f"unparsable answer: {problem}", said=answer.text)


def check_model(model: Any, retries: int = 0, num_samples: int = 1, pictures: bool | None = None) -> None:
    """Raises UsageError if something is no ChatModel, or none that can be asked so."""
    name = type(model).__name__
    if not isinstance(model, ChatModel):
        moved = "".join(f"; {old} is now {new}" for old, new in _OLD_NAMES.items() if hasattr(model, old))
        raise UsageError(f"expected a model with about() and ask(questions) (capkit/llm/base.py), got {name}{moved}")
    draws = getattr(model, "draws", False)
    if num_samples > 1 and not draws:
        raise UsageError(
            f"{num_samples} answers to one question need a model that samples, got {name}, which answers in one way "
            "only; set temperature, such as 0.7 (of SceneVision omitted, such as 0.5)"
        )
    if retries and not draws:
        raise UsageError(
            f"retries={retries} asks a refused question again for another answer, and {name} answers in one way only; "
            "set temperature, such as 0.7, or retries=0"
        )
    takes = getattr(model, "takes_pictures", None)
    if takes is False and pictures:
        raise UsageError(f"expected a model that sees, got {name}, which takes no pictures; choose another model")
    if takes and pictures is False:
        raise UsageError(
            f"expected a language model, got {name}, which needs a picture each time; choose another model"
        )


class _Stream(Generic[Item]):
    """One pass over items: those that were begun, in order, each with its questions."""

    def __init__(self, asker: Asker, questions_of: Callable[[Item], Iterable[Question]]) -> None:
        self._asker, self._questions_of = asker, questions_of
        self._rows: deque[tuple[Item, list[_Pending]]] = deque()
        self._unanswered: dict[str, _Pending] = {}  # by the key of the first attempt
        self._waiting: deque[_Pending] = deque()  # for a batch
        self._open: set[Future[Answer]] = set()
        self._error: BaseException | None = None
        self._is_over = self._is_closed = False
        self._changed = Condition(asker.lock)
        model = asker.model
        self._concurrent = model if isinstance(model, ConcurrentModel) else None
        self._size = model.num_open if isinstance(model, ConcurrentModel) else asker.batch_size

    def run(self, items: Iterator[Item]) -> Iterator[tuple[Item, list[Answer]]]:
        try:
            while self._rows or not self._is_over:
                while (answers := self._first_answers()) is not None:
                    yield self._rows.popleft()[0], answers
                if self._has_room():
                    self._begin(items)
                elif self._rows:
                    self._work()
        finally:
            with self._changed:
                self._is_closed = True
            for future in tuple(self._open):
                future.cancel()
            self._asker.store.flush()

    def _first_answers(self) -> list[Answer] | None:
        """The first item's answers, if all are there."""
        with self._changed:
            if self._error is not None:
                raise self._error
            if not self._rows:
                return None
            found = [pending.answer for pending in self._rows[0][1] if pending.answer is not None]
            return found if len(found) == len(self._rows[0][1]) else None

    def _has_room(self) -> bool:
        has_few = len(self._unanswered) < self._size and len(self._rows) < _AHEAD * self._size
        return has_few and not self._is_over

    def _begin(self, items: Iterator[Item]) -> None:
        for item in items:
            self._rows.append((item, [self._start(question) for question in self._questions_of(item)]))
            return
        self._is_over = True

    def _start(self, question: Question) -> _Pending:
        with self._changed:
            pending = self._asker.begin(question)
            if pending.answer is not None:
                return pending
            same = self._unanswered.setdefault(pending.first_key, pending)
        if same is pending:
            self._put(pending)
        return same

    def _put(self, pending: _Pending) -> None:
        """Without the lock, which the model's threads need to hand over answers."""
        if self._concurrent is None:
            self._waiting.append(pending)
            return
        while not self._reserve(pending):
            with self._changed:
                if self._error is not None:
                    raise self._error
                self._changed.wait(_BUDGET_WAIT_S)
        future = self._concurrent.open(pending.question)
        with self._changed:
            self._open.add(future)
        future.add_done_callback(partial(self._on_done, pending))

    def _on_done(self, pending: _Pending, future: "Future[Answer]") -> None:
        """Keep an answer at once, whatever the reader of the stream is busy with. Runs in the model's thread."""
        try:
            with self._changed:
                self._open.discard(future)
                if future.cancelled():
                    self._asker.account.release(pending.reserved)
                if future.cancelled() or self._take(pending, future.result()) or self._is_closed:
                    self._changed.notify_all()
                    return
            self._put(pending)
        except BaseException as error:  # raised where the stream is read: a future would only log it
            with self._changed:
                self._error = self._error or error
                self._changed.notify_all()

    def _take(self, pending: _Pending, said: Answer) -> bool:
        is_done = self._asker.take(pending, said)
        if is_done:
            del self._unanswered[pending.first_key]
        return is_done

    def _work(self) -> None:
        """Wait until something can go on; or have a batch answered."""
        if self._concurrent is not None:
            with self._changed:
                self._changed.wait_for(
                    lambda: (
                        self._error is not None
                        or self._has_room()
                        or all(pending.answer is not None for pending in self._rows[0][1])
                    )
                )
            return
        assert self._waiting, "an item waits for a question that is asked by nobody"
        batch: list[_Pending] = []
        while self._waiting and len(batch) < self._size and self._reserve(self._waiting[0]):
            batch.append(self._waiting.popleft())
        if not batch:  # another asker's questions are open, which say what is left
            time.sleep(_BUDGET_WAIT_S)
        for place, said in self._each([pending.question for pending in batch]):
            if not self._take(batch[place], said):
                self._waiting.append(batch[place])

    def _reserve(self, pending: _Pending) -> bool:
        """Whether the budget has room for the next attempt. Raises BudgetSpent if it will have none."""
        reserved = self._asker.account.reserve(pending.question)
        pending.reserved = reserved or 0.0
        return reserved is not None

    def _each(self, questions: list[Question]) -> Iterator[tuple[int, Answer]]:
        model = self._asker.model
        if isinstance(model, BatchedModel):
            yield from model.ask_each(questions)
        else:
            for (place, _), answer in zip(enumerate(questions), model.ask(questions), strict=True):
                yield place, answer
