"""KnowAda: captions without the details that a student model cannot see (Yanuka et al. 2024, arXiv 2411.09018).

A captioner that is trained to say what it cannot see learns to make things up. The student is asked about each detail
of a caption, several times; a judge grades its answers; what it does not know leaves the caption. The paper's prompts
are in its released program; ours are `knowada_*` in `capkit/llm/prompts`.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import groupby
from pathlib import Path

from capkit.curation.base import Records
from capkit.curation.knowada_files import GRADES, Adapted, Asked, KnowAdaWriter, read_knowada
from capkit.curation.step_bases import AskingStep, PictureStep
from capkit.data.records import Caption, Record
from capkit.errors import UsageError
from capkit.llm.asker import Asker
from capkit.llm.base import Answer, ChatModel, Question
from capkit.llm.json_replies import JSONField
from capkit.llm.marked_replies import NumberedLines
from capkit.llm.prompts import Prompt, numbered
from capkit.llm.replies import Text, WholeNumber
from capkit.text.caption_text import clean_text
from capkit.utils.checksums import crc32_and_size
from capkit.utils.ranges import NonNegativeInt, PositiveFloat, PositiveInt, check_ranges

KNOWADA = "knowada"
_WRONG = 1  # a grade below 2
_MAX_QUESTION_WORDS, _MAX_ANSWER_WORDS = 60, 100
_COUNTED = ("captions_untouched", "captions_rewritten", "questions", "questions_unknown")


@dataclass(frozen=True)
class _Case:
    """A caption on its way, of the record at `number`. `unknown` and `text` come last; a failed one stays as it is."""

    number: int
    record: Record
    caption: Caption
    asked: tuple[Asked, ...] = ()
    unknown: tuple[str, ...] | None = None
    text: str | None = None
    is_failed: bool = False


@check_ranges
class AdaptToStudent(PictureStep, AskingStep):
    """Records whose captions say nothing that the student does not know.

    `text_lm` writes a question for each detail of a caption. `student`, which sees the picture, answers each question
    `num_answers` times, so it must sample. `judge` grades each answer by the caption: 3 right, 2 nearly, 1 wrong. A
    question is unknown if at least `threshold` of its answers are below 2; then `text_lm` rewrites the caption without
    the answers to its unknown questions. A caption without any stays as it is, byte for byte, with its source; a
    rewritten one has the source "knowada/<prompt>/<text_lm>/<student>", and its unknown questions stand in the
    metadata, `unknown_questions`, by the place of the caption.

    An answer or a grade that failed is left out, and the threshold applies to those that are left. A caption is left
    out, and reported, if its questions or its rewriting failed, its picture cannot be read, or nothing is left to judge
    one of its questions by.

    Args:
        text_lm, student, judge: Models; the judge may be another one than `text_lm`.
        num_answers: Answers of the student to each question.
        threshold: A share of the graded answers (0.8), or how many of `num_answers` (8), taken as a share.
        max_words: Longest rewritten caption.
        tables: A folder for the five tables of the released program (`capkit/curation/knowada_files.py`).
        start_from: One of these tables: what it holds is taken from it, and only what comes after is asked.
        question_retries, answer_retries, grade_retries, rewrite_retries, batch_size, cache_dir: of `Asker`.

    `tables` and `start_from` count pictures from 0, so they need all records, no shards, with one caption each.
    """

    name = "adapt_to_student"
    writes_source = f"{KNOWADA}/"

    def __init__(
        self,
        text_lm: ChatModel | None = None,
        student: ChatModel | None = None,
        judge: ChatModel | None = None,
        num_answers: PositiveInt = 10,
        threshold: PositiveFloat = 0.8,
        max_words: PositiveInt = 250,
        question_prompt: str = "knowada_questions_v1",
        answer_prompt: str = "knowada_answer_v1",
        grade_prompt: str = "knowada_grade_v1",
        rewrite_prompt: str = "knowada_rewrite_v1",
        tables: str | None = None,
        start_from: str | None = None,
        question_retries: NonNegativeInt = 0,
        answer_retries: NonNegativeInt = 0,
        grade_retries: NonNegativeInt = 0,
        rewrite_retries: NonNegativeInt = 0,
        batch_size: PositiveInt = 32,
        cache_dir: str = "data/answers",
    ) -> None:
        if text_lm is None or student is None or judge is None:
            raise UsageError(
                "adapt_to_student needs a language model, a student that sees, and a judge; add text_lm=... and "
                "vision_chat=..., each hf, server or scene (step.adapt_to_student.judge is text_lm if not given)"
            )
        self._threshold = threshold_share(threshold, num_answers)
        self._num_answers, self._tables = num_answers, tables
        self._table = None if start_from is None else read_knowada(start_from)
        if tables is not None and self._was_read("difficult_questions_list", "rewritten_captions"):
            raise UsageError(
                f"tables: {start_from} does not hold the answers that go into them; read judgments.csv instead"
            )
        self.scope = "record" if tables is None and start_from is None else "all"
        prompts = {
            "question": Prompt(question_prompt, ["caption"]),
            "answer": Prompt(answer_prompt, ["question"]),
            "grade": Prompt(grade_prompt, ["caption", "question", "answer"]),
            "rewrite": Prompt(rewrite_prompt, ["caption", "questions"]),
        }
        self._prompts = prompts
        lines = NumberedLines(_MAX_QUESTION_WORDS, nothing="none")
        said = Text(_MAX_ANSWER_WORDS)
        graded = WholeNumber(GRADES[0], GRADES[-1])
        text = JSONField("caption", Text(max_words))
        self.askers = {
            "question": Asker(text_lm, cache_dir, lines, question_retries, 1, batch_size, pictures=False),
            "answer": Asker(student, cache_dir, said, answer_retries, num_answers, batch_size, pictures=True),
            "grade": Asker(judge, cache_dir, graded, grade_retries, 1, batch_size, pictures=False),
            "rewrite": Asker(text_lm, cache_dir, text, rewrite_retries, 1, batch_size, pictures=False),
        }
        self._about = {
            "prompts": [prompt.fingerprint_fields() for prompt in prompts.values()],
            "text_lm": text_lm.about(),
            "student": student.about(),
            "judge": judge.about(),
            "num_answers": num_answers,
            "threshold": str(self._threshold),
            "max_words": max_words,
            "start_from": None if start_from is None else crc32_and_size(Path(start_from)),
            "retries": [question_retries, answer_retries, grade_retries, rewrite_retries],
        }
        models = f"{text_lm.about()['model']}/{student.about()['model']}"
        self._source = f"{KNOWADA}/{prompts['rewrite'].name}/{models}"
        self._numbers: dict[str, int] = dict.fromkeys(_COUNTED, 0)

    def __call__(self, records: Records) -> Iterator[Record]:
        cases = self._rewritten(self._compared(self._graded(self._answered(self._questioned(self._cases(records()))))))
        is_dry = self.askers["question"].account.ledger.is_dry
        with KnowAdaWriter(self._tables) if self._tables is not None and not is_dry else nullcontext() as writer:
            for number, group in groupby(cases, key=lambda case: case.number):
                done = list(group)
                if writer is not None:
                    (case,) = done
                    writer.add(number, Adapted(case.asked, case.unknown, case.text))
                if kept := [case for case in done if not case.is_failed]:
                    yield self._record(kept)

    def _record(self, cases: Sequence[_Case]) -> Record:
        captions = []
        for case in cases:
            self._numbers["captions_rewritten" if case.unknown else "captions_untouched"] += 1
            new = Caption(case.text or "", self._source, case.caption.language)
            captions.append(new if case.unknown else case.caption)
        metadata = cases[0].record.metadata
        if any(case.unknown for case in cases):
            metadata = {**metadata, "unknown_questions": [list(case.unknown or ()) for case in cases]}
        return replace(cases[0].record, captions=captions, metadata=metadata)

    def _cases(self, records: Iterable[Record]) -> Iterator[_Case]:
        for number, record in enumerate(records):
            if self.scope == "all" and len(record.captions) != 1:
                raise UsageError(
                    f"adapt_to_student: the tables hold one caption a picture, and record {record.key!r} has "
                    f"{len(record.captions)}; leave out tables and start_from, or merge first (blend_captions)"
                )
            if not record.captions:
                self._fail(record, "no caption")
            for caption in record.captions:
                case = _Case(number, record, caption)
                if not clean_text(caption.text):
                    yield self._failed(case, "an empty caption")
                elif self._table is None:
                    yield case
                else:
                    yield self._from_table(case)

    def _from_table(self, case: _Case) -> _Case:
        assert self._table is not None
        stage, pictures = self._table
        found = pictures.get(case.number)
        if found is None or (stage == "rewritten_captions" and found.caption is None):
            return self._failed(case, f"{stage}.csv has no row of picture {case.number}")
        return replace(case, asked=found.asked or (), unknown=found.unknown, text=found.caption)

    def _was_read(self, *stages: str) -> bool:
        return self._table is not None and self._table[0] in stages

    def _failed(self, case: _Case, reason: str, said: str | None = None) -> _Case:
        self._fail(case.record, reason, said)
        return replace(case, is_failed=True)

    # the five stages --------------------------------------------------------------------------------------------------

    def _questioned(self, cases: Iterable[_Case]) -> Iterator[_Case]:
        def questions(case: _Case) -> list[Question]:
            prompt = self._prompts["question"].fill(caption=case.caption.text)
            return [] if case.is_failed or self._table is not None else [Question(prompt)]

        for case, answers in self.askers["question"].stream(cases, questions):
            for answer in answers:
                if answer.text is None:
                    case = self._failed(case, f"questions: {answer.failure}", answer.said)
                else:
                    case = replace(case, asked=tuple(Asked(text) for text in dict.fromkeys(answer.value)))
            yield case

    def _answered(self, cases: Iterable[_Case]) -> Iterator[_Case]:
        was_read = self._was_read("answers", "judgments", "difficult_questions_list", "rewritten_captions")

        def questions(case: _Case) -> list[Question]:
            if case.is_failed or was_read or not case.asked:
                return []
            picture = self.picture(case.record)
            texts = [self._prompts["answer"].fill(question=item.question) for item in case.asked]
            samples = range(self._num_answers)
            return [] if picture is None else [Question(text, (picture,), sample=i) for text in texts for i in samples]

        for case, answers in self.askers["answer"].stream(cases, questions):
            if answers:
                texts = [answer.value if answer.text is not None else None for answer in answers]
                case = replace(case, asked=_with_answers(case.asked, texts))
            elif case.asked and not was_read:
                case = replace(case, is_failed=True)  # the picture was reported
            yield case

    def _graded(self, cases: Iterable[_Case]) -> Iterator[_Case]:
        was_read = self._was_read("judgments", "difficult_questions_list", "rewritten_captions")

        def questions(case: _Case) -> list[Question]:
            fill = self._prompts["grade"].fill
            return [
                Question(fill(caption=case.caption.text, question=item.question, answer=answer))
                for item in (() if case.is_failed or was_read else case.asked)
                for answer in item.answers
                if answer is not None
            ]

        for case, answers in self.askers["grade"].stream(cases, questions):
            if not was_read:
                case = replace(case, asked=tuple(_with_grades(case.asked, answers)))
            yield case

    def _compared(self, cases: Iterable[_Case]) -> Iterator[_Case]:
        was_read = self._was_read("difficult_questions_list", "rewritten_captions")
        for case in cases:
            if not case.is_failed and not was_read:
                verdicts = {item.question: is_unknown(item.grades, self._threshold) for item in case.asked}
                open_ones = [question for question, verdict in verdicts.items() if verdict is None]
                if open_ones:
                    yield self._failed(case, f"no usable answer or grade to judge by: {open_ones[0]}")
                    continue
                case = replace(case, unknown=tuple(question for question, verdict in verdicts.items() if verdict))
            if not case.is_failed:
                self._numbers["questions"] += len(case.asked)
                self._numbers["questions_unknown"] += len(case.unknown or ())
            yield case

    def _rewritten(self, cases: Iterable[_Case]) -> Iterator[_Case]:
        def questions(case: _Case) -> list[Question]:
            if case.is_failed or not case.unknown or case.text is not None:
                return []
            fill = self._prompts["rewrite"].fill
            return [Question(fill(caption=case.caption.text, questions=numbered(case.unknown)))]

        for case, answers in self.askers["rewrite"].stream(cases, questions):
            yield self._with_text(case, answers)

    def _with_text(self, case: _Case, answers: Sequence[Answer]) -> _Case:
        for answer in answers:
            if answer.text is None:
                return self._failed(case, f"rewriting: {answer.failure}", answer.said)
            return replace(case, text=answer.value)
        return case if case.is_failed or case.text is not None else replace(case, text=case.caption.text)


def threshold_share(threshold: float | int, num_answers: int) -> Fraction:
    """An exact share: of an integer, of `num_answers`. Raises UsageError for more than all."""
    share = Fraction(threshold, num_answers) if isinstance(threshold, int) else Fraction(str(threshold))
    if share > 1:
        raise UsageError(
            f"threshold is a share of the answers such as 0.8, or how many of num_answers={num_answers}; "
            f"got {threshold}"
        )
    return share


def is_unknown(grades: Iterable[int | None], threshold: Fraction) -> bool | None:
    """Whether at least `threshold` of the grades that there are lie below 2; None if there is none."""
    there = [grade for grade in grades if grade is not None]
    return sum(grade <= _WRONG for grade in there) >= threshold * len(there) if there else None


def _with_answers(asked: Sequence[Asked], texts: Sequence[str | None]) -> tuple[Asked, ...]:
    """The questions with their share of the answers, which are as many for each."""
    size = len(texts) // len(asked)
    return tuple(replace(item, answers=tuple(texts[i * size : (i + 1) * size])) for i, item in enumerate(asked))


def _with_grades(asked: Iterable[Asked], answers: Iterable[Answer]) -> Iterator[Asked]:
    """The questions with the grades of those of their answers that there are."""
    rest = iter(answers)
    for item in asked:
        grades = [None if text is None else next(rest, None) for text in item.answers]
        yield replace(item, grades=tuple(grade.value if grade and grade.text is not None else None for grade in grades))
