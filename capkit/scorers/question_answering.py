"""CapRL's reward: the share of questions about the picture that a reader answers rightly from the caption alone.

B images, K samples per image.
"""

import math
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from capkit.distributed.collectives import gather_objects
from capkit.errors import ReaderAway, RunFailure, UsageError
from capkit.readers.base import ChoiceQuestion, ReadBack, Reader, Reading
from capkit.readers.question_sets import Item, QuestionFile, QuestionSource, category_name, in_drawn_order, some_of
from capkit.scorers.base import BaseScorer
from capkit.scorers.flatten import unflatten_scores
from capkit.scorers.reader_calls import ReaderCalls, away_alone
from capkit.types import CaptionBatch, Samples
from capkit.utils import rng
from capkit.utils.ranges import PositiveInt, Probability, Seed, check_ranges

Drawn = tuple[Item, ChoiceQuestion]
Answered = tuple[Item, ChoiceQuestion, Reading]


@check_ranges
class QuestionAnswering(BaseScorer):
    """The share of a picture's drawn questions that a frozen reader answers rightly from the caption, 0 to 1.

    CapRL (Xing et al. 2025, arXiv 2509.22647, section 3.2): questions are drawn with replacement, their options stand
    in a drawn order with an abstain option among them, and accuracy alone is the reward. What is drawn depends on
    (seed, step, picture), and outside of training on (seed, picture), so that one process or four, and a resumed run,
    ask the same. Equal questions about equal captions of a batch are read once.

    Deliberate differences: (1) all samples of a picture, whose rewards are compared, are asked the same, which takes
    the luck of the draw out of advantages; `draw="caption"` draws for each caption, as published; (2) an answer that
    cannot be read is left out of the share, where the published program counts it as wrong; (3) a caption of which
    less than `min_read` was read has no score (NaN), where the program's service gives 0 to whatever fails.

    A picture with fewer than `min_questions` questions has no score. A step none of whose pictures has questions is a
    RunFailure, and so, on all ranks, is a reader that cannot be asked at all, such as a server that is away, none of
    whose answers of a step can be read, or whose model is silent about all that is new to it (ReaderAway).

    Args:
        reader: Who answers; never the policy.
        questions: A file (`QuestionFile`), or a QuestionSource.
        num_questions: Drawn for each caption.
        all_questions: Ask each question of the picture once instead.
        draw: "picture" or "caption".
        abstain: Whether questions have the abstain option; those of yes and no have it too.
        shuffle: false: options in the order of the file, the abstain option last.
        subtract_chance: A wrong answer counts -1 / (choices - 1) and an abstention 0, so that guessing is worth 0.
        min_questions: Of a picture, to have a score.
        min_read: Share of the answers to a caption that must be readable.
    """

    def __init__(
        self,
        reader: Reader | None = None,
        questions: str | QuestionSource | None = None,
        num_questions: PositiveInt = 8,
        all_questions: bool = False,
        draw: Literal["picture", "caption"] = "picture",
        abstain: bool = True,
        shuffle: bool = True,
        subtract_chance: bool = False,
        min_questions: PositiveInt = 1,
        min_read: Probability = 0.5,
        seed: Seed = 0,
    ) -> None:
        if reader is None:
            raise UsageError("reward=question_answering needs a reader; add reader=hf, server, caprl or scene")
        if questions is None:
            raise UsageError(
                "reward=question_answering needs questions; give reward.question_answering.scorer.questions=FILE, or "
                "question_set=scene or file"
            )
        self.reader = reader
        self.questions = QuestionFile(questions) if isinstance(questions, str) else questions
        self.num_questions, self.all_questions, self.draw = num_questions, all_questions, draw
        self.abstain, self.shuffle, self.subtract_chance = abstain, shuffle, subtract_chance
        self.min_questions, self.min_read, self.seed = min_questions, min_read, seed
        known = self.questions.keys()
        self._known = None if known is None else frozenset(known)
        self._step: int | None = None
        self._calls = ReaderCalls(reader)
        self._logs: dict[str, float] = {}

    def at_step(self, step: int | None) -> None:
        self._step = step

    def meet(self, keys: Callable[[str], Sequence[str]]) -> None:
        """Warns if some training pictures, or all validation pictures, have no questions, or too few.

        Raises UsageError where all have, and for questions of another split, about test pictures, about no training
        picture, or that the reader cannot put.
        """
        if (split := getattr(self.questions, "split", None)) not in (None, "train"):
            raise UsageError(
                f"reward question_answering: expected questions of the training split, got a set that says it belongs "
                f"to {split}; give the questions of split train"
            )
        if self._known is None:
            return
        training = keys("train")
        if leaked := sorted(self._known & set(keys("test")) - set(training)):
            raise UsageError(
                f"reward question_answering: expected questions about training pictures, got some about {len(leaked)} "
                f"pictures of the test split ({some_of(leaked)}); give a set that belongs to the training split"
            )
        unknown = [key for key in training if key not in self._known]
        if len(unknown) == len(training):
            raise UsageError(
                f"reward question_answering: expected questions about training pictures, got none about any of "
                f"{len(training)} ({some_of(unknown)}), but about {some_of(sorted(self._known))}; give the questions "
                "of this data, with the same ids"
            )
        without = [key for key in training if not self._items(key, {})]
        few = "no questions" if self.min_questions == 1 else f"fewer questions than min_questions={self.min_questions}"
        if len(without) == len(training):
            raise UsageError(
                f"reward question_answering: all {len(training)} training pictures have {few} ({some_of(without)}); "
                "lower min_questions"
            )
        if without:
            warnings.warn(
                f"reward question_answering: {len(without)} of {len(training)} training pictures have {few} "
                f"({some_of(without)}); their captions get no reward",
                stacklevel=2,
            )
        validated = keys("val")
        if validated and not any(self._items(key, {}) for key in validated):
            warnings.warn(
                f"reward question_answering: all {len(validated)} validation pictures have {few} "
                f"({some_of(validated)}): val/reward/question_answering, and val/reward, will be NaN; give their "
                "questions too, or choose checkpoints by a metric",
                stacklevel=2,
            )
        if (check := getattr(self.reader, "check", None)) is not None:
            items = (item for key in sorted(self._known & set(training)) for item in self.questions.of(key, {}))
            check(in_drawn_order(item, self.abstain, None) for item in items)

    def __call__(self, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K"]:
        asked = self._asked(batch, samples)
        wanted = _pairs(samples, asked)
        self._calls.begin()
        start = time.perf_counter()
        read = self._read_alone(wanted) if self._step is None else self._read_on_all_ranks(wanted)
        seconds = time.perf_counter() - start
        rows, calls = _answered(asked, read), self._calls.end(wanted, read)
        if self._step is None:
            self._calls.heed_alone(calls)
        else:
            without = [key for key, row in zip(batch.keys, asked, strict=True) if not any(row)]
            self._count(without, len(set(wanted)), [one for row in rows for one in row], seconds)
            self._calls.heed(gather_objects(calls))
        return unflatten_scores([self._share(row) for row in rows], samples)

    def read_back(self, batch: CaptionBatch, samples: Samples) -> list[list[list[ReadBack]]]:
        """Each question once, of those that `__call__` asks, in the order of options in which it was drawn first.

        None of a picture without questions.
        """
        asked = self._asked(batch, samples)
        rows = iter(_answered(asked, self._read(_pairs(samples, asked))))
        return [[_each_once(next(rows)) for _ in row] for row in asked]

    def logs(self) -> dict[str, float]:
        """Of the last training step, over all ranks; KIND is the first word of a question's category.

        `questions` asked, the shares of them that were read once for several (`repeated`), could not be read (`unread`)
        and were abstained from (`abstained`), pictures without questions (`unasked`), and `right_KIND`, accuracy.
        `read_seconds` that reading took, on the rank that took longest, and `answers_per_second`, of all ranks.
        """
        return self._logs

    def provenance(self) -> dict[str, Any]:
        drawn = {"num_questions": None if self.all_questions else self.num_questions, "draw": self.draw}
        shown = {"abstain": self.abstain, "shuffle": self.shuffle, "subtract_chance": self.subtract_chance}
        return {"reader": self.reader.about(), **self.state_dict(), "seed": self.seed, **drawn, **shown}

    def state_dict(self) -> dict[str, Any]:
        return {"questions": self.questions.about()}

    def load_state_dict(self, state: Any) -> None:
        """Raises UsageError where the questions are not those that the checkpoint was trained by."""
        if state["questions"] != self.questions.about():
            raise UsageError(
                f"reward question_answering: expected the questions that the checkpoint was trained by, "
                f"{state['questions']}, got {self.questions.about()}; give that file, or start a run by "
                "init_from=CHECKPOINT instead of resume"
            )

    def _asked(self, batch: CaptionBatch, samples: Samples) -> list[list[list[Drawn]]]:
        """The questions of each caption of each picture."""
        items = map(self._items, batch.keys, batch.metadata or [{} for _ in batch.keys])
        return [self._drawn(*row) for row in zip(batch.keys, items, map(len, samples.texts), strict=True)]

    def _items(self, key: str, metadata: Any) -> Sequence[Item]:
        if self._known is not None and key not in self._known:
            return []
        items = self.questions.of(key, metadata)
        return items if len(items) >= self.min_questions else []

    def _drawn(self, key: str, items: Sequence[Item], num_captions: int) -> list[list[Drawn]]:
        """The questions of each caption of a picture."""
        if not items:
            return [[]] * num_captions
        if self.draw == "picture":
            return [self._draw(key, items, "all")] * num_captions
        return [self._draw(key, items, number) for number in range(num_captions)]

    def _draw(self, key: str, items: Sequence[Item], caption: int | str) -> list[Drawn]:
        draw = rng.generator(self.seed, "asked", self._step, key, caption)
        places = range(len(items)) if self.all_questions else draw.integers(len(items), size=self.num_questions)
        order = draw if self.shuffle else None
        return [(items[place], in_drawn_order(items[place], self.abstain, order)) for place in places]

    def _read(self, wanted: Sequence[tuple[str, ChoiceQuestion]]) -> list[Reading]:
        """The reader's answers, in order; of equal pairs of caption and question one is read."""
        by_text: dict[str, dict[ChoiceQuestion, Reading | None]] = {}
        for text, question in wanted:
            by_text.setdefault(text, {})[question] = None
        if by_text:
            answers = self.reader.read(list(by_text), [list(questions) for questions in by_text.values()])
            for questions, found in zip(by_text.values(), answers, strict=True):
                questions.update(zip(questions, found, strict=True))
        return [reading for text, question in wanted if (reading := by_text[text][question]) is not None]

    def _read_alone(self, wanted: Sequence[tuple[str, ChoiceQuestion]]) -> list[Reading]:
        """`_read` outside of training."""
        try:
            return self._read(wanted)
        except UsageError as error:
            raise away_alone(_cannot_be_asked(str(error))) from error

    def _read_on_all_ranks(self, wanted: Sequence[tuple[str, ChoiceQuestion]]) -> list[Reading]:
        """`_read` in a training step. Raises ReaderAway on every rank if the reader of one cannot be asked."""
        read, problem = [], None
        try:
            read = self._read(wanted)
        except UsageError as error:
            problem = str(error)
        if problems := [found for found in gather_objects(problem) if found is not None]:
            raise ReaderAway(_cannot_be_asked(problems[0]))
        return read

    def _share(self, answers: Sequence[Answered]) -> float:
        points = [self._points(*answer) for answer in answers if answer[-1].choice is not None]
        return sum(points) / len(points) if points and len(points) >= self.min_read * len(answers) else math.nan

    def _points(self, item: Item, question: ChoiceQuestion, reading: Reading) -> float:
        if _is_right(item, question, reading):
            return 1.0
        is_charged = self.subtract_chance and reading.choice != question.abstain
        return -1 / (len(item.choices) - 1) if is_charged else 0.0

    def _count(self, without: Sequence[str], num_distinct: int, answers: Sequence[Answered], seconds: float) -> None:
        """Numbers to log, of all ranks. Raises RunFailure where no picture has questions, or no answer can be read."""
        counts: Counter[str] = Counter(distinct=num_distinct, asked=len(answers))
        for item, question, reading in answers:
            counts["unread" if reading.choice is None else f"read/{_kind(item)}"] += 1
            counts["abstained"] += reading.choice is not None and reading.choice == question.abstain
            counts[f"right/{_kind(item)}"] += _is_right(item, question, reading)
        failures = [reading.failure for _, _, reading in answers if reading.choice is None][:1]
        shares = gather_objects((counts, list(without), failures, seconds))
        total: Counter[str] = Counter()
        for share, *_ in shares:
            total.update(share)
        missing = [key for _, keys, *_ in shares for key in keys]
        longest = max(taken for *_, taken in shares)
        if not total["asked"]:
            raise RunFailure(
                f"reward question_answering: expected questions about the pictures of each step, got none about any of "
                f"step {self._step} ({some_of(missing)}); give questions about more of the training pictures, or lower "
                "min_questions"
            )
        asked = total["asked"]
        if total["unread"] == asked:
            why = next(failure for _, _, found, _ in shares for failure in found)
            raise ReaderAway(
                f"reward question_answering: expected answers that can be read, got none to the {asked:,} questions of "
                f"step {self._step} ({why}); check the reader, and its server's log"
            )
        self._logs = {
            "questions": float(asked),
            "unasked": float(len(missing)),
            "repeated": 1 - total["distinct"] / asked,
            "read_seconds": longest,
            "answers_per_second": asked / longest,
        }
        self._logs |= {name: total[name] / asked for name in ("unread", "abstained")}
        kinds = sorted(name.partition("/")[2] for name in total if name.startswith("read/"))
        self._logs |= {f"right_{kind}": total[f"right/{kind}"] / total[f"read/{kind}"] for kind in kinds}


def _cannot_be_asked(problem: str) -> str:
    return f"reward question_answering: the reader cannot be asked: {problem}"


def _pairs(samples: Samples, asked: Sequence[Sequence[Sequence[Drawn]]]) -> list[tuple[str, ChoiceQuestion]]:
    """Each caption with each of its questions, in order."""
    return [
        (text, question)
        for texts, row in zip(samples.texts, asked, strict=True)
        for text, drawn in zip(texts, row, strict=True)
        for _, question in drawn
    ]


def _answered(asked: Sequence[Sequence[Sequence[Drawn]]], read: Sequence[Reading]) -> list[list[Answered]]:
    """The questions of each caption with their answers, picture by picture."""
    answers = iter(read)
    return [[(*one, next(answers)) for one in drawn] for row in asked for drawn in row]


def _each_once(answers: Sequence[Answered]) -> list[ReadBack]:
    found: dict[Item, ReadBack] = {}
    for item, question, reading in answers:
        found.setdefault(item, _read_back(item, question, reading))
    return list(found.values())


def _read_back(item: Item, question: ChoiceQuestion, reading: Reading) -> ReadBack:
    said = None if reading.choice is None else question.choices[reading.choice]
    abstained = reading.choice is not None and reading.choice == question.abstain
    return ReadBack(item.question, item.answer, said, abstained)


def _is_right(item: Item, question: ChoiceQuestion, reading: Reading) -> bool:
    return reading.choice is not None and question.choices[reading.choice] == item.answer


def _kind(item: Item) -> str:
    return category_name(item.category[0]) if item.category else "any"
