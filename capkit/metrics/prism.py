"""Prism (Qiao et al. 2024), as CapRL evaluates: a benchmark's questions, answered by a language model from captions."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from capkit.errors import UsageError
from capkit.llm.asker import Asker
from capkit.llm.base import ChatModel, Question
from capkit.llm.marked_replies import Boxed
from capkit.llm.prompts import Prompt
from capkit.metrics.judged import MAX_FAILED, Columns, Judged, JudgedMetric, ratio
from capkit.metrics.short_answers import Rule, agreement
from capkit.readers.base import ChoiceQuestion, Reader, check_choices
from capkit.readers.question_sets import Item, meeting_keys, shown_as
from capkit.utils.files import write_atomically
from capkit.utils.ranges import PositiveInt, Probability, Seed, check_ranges
from capkit.utils.rng import stable_hash
from capkit.utils.text_files import expect, member, read_json_or_lines

# What the released files put around a question for Qwen2.5-VL.
_TEMPLATE = ("<|im_start|>user\n", "<|vision_start|><|image_pad|><|vision_end|>", "<|im_end|>", "<|im_start|>assistant")


@dataclass(frozen=True)
class _Row:
    """A row of the benchmark: the question as it is asked, its answer, and its choices if it has some."""

    sample: Mapping[str, Any]
    question: str
    answer: str
    choices: tuple[str, ...]


@dataclass(frozen=True)
class _Said:
    """What was answered from one caption: the answer as it counts, the reply, its tokens; `answer` None: nothing."""

    answer: str | None
    reply: str
    num_tokens: int | None = None


@check_ranges
class Prism(JudgedMetric):
    r"""Questions of a benchmark about each picture, answered from each of its captions alone.

    Of a picture's n captions (the paper: 4, drawn at temperature 1) `prism` is the mean over questions of the mean over
    captions, `prism_best` that of the best caption. A row {image, prompt, answer} is an open question with a short
    answer, which the language model gives in \boxed{}; one with `choices` too is answered by the reader. An answer that
    cannot be read is a failure and in no mean, where the program gives 0.

    Args:
        questions: JSON or JSON lines of rows.
        reader, text_lm: Who answers questions with choices, and open ones.
        match: "exact", "number" (charts) or "anls" (documents and infographics): `agreement`.
        seed: Of the orders of choices.
        missing: of `CaptionQA`.
        prompt: With $caption and $question.
        max_failed: of `JudgedMetric`; cache_dir: of `Asker`.
    """

    def __init__(
        self,
        questions: str | None = None,
        reader: Reader | None = None,
        text_lm: ChatModel | None = None,
        match: Literal["exact", "number", "anls"] = "exact",
        seed: Seed = 0,
        missing: Literal["empty", "ignore"] = "empty",
        prompt: str = "prism_read_v1",
        max_words: PositiveInt = 100,
        max_failed: Probability = MAX_FAILED,
        cache_dir: str = "data/answers",
    ) -> None:
        super().__init__("prism", max_failed)
        if questions is None:
            raise UsageError("metric=prism needs questions; give metric.prism.questions=FILE")
        self.path, self.match, self.seed, self.missing, self.reader = questions, match, seed, missing, reader
        self.rows_of = _read_rows(questions)
        self._image_of = _names(self.rows_of)
        rows = [row for of_image in self.rows_of.values() for row in of_image]
        if reader is None and any(row.choices for row in rows):
            raise UsageError(f"{questions} has questions with choices; add reader=hf or server, who answers them")
        if text_lm is None and not all(row.choices for row in rows):
            raise UsageError(f"{questions} has open questions; add text_lm=hf or server, who answers them")
        self.prompt = Prompt(prompt, ["caption", "question"])
        self.asker = None if text_lm is None else Asker(text_lm, cache_dir, Boxed(max_words), pictures=False)

    @property
    def askers(self) -> Mapping[str, Asker]:
        return {**getattr(self.reader, "askers", {}), **({} if self.asker is None else {"text_lm": self.asker})}

    def describe(self) -> dict[str, Any]:
        samples = [[image, *(dict(row.sample) for row in rows)] for image, rows in self.rows_of.items()]
        described: dict[str, Any] = {
            "questions": Path(self.path).name,
            "num_questions": sum(map(len, self.rows_of.values())),
            "hash": f"{stable_hash(json.dumps(samples, sort_keys=True)):016x}",
            "match": self.match,
            "seed": self.seed,
        }
        if self.reader is not None:
            described["reader"] = self.reader.about()
        if self.asker is not None:
            described |= {"text_lm": self.asker.model.about(), "prompt": self.prompt.fingerprint_fields()}
        return described

    def complete(self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]) -> Columns:
        given = [self._image_of.get(str(row["key"]), str(row["key"])) for row in metadata]
        absent = meeting_keys(given, list(self.rows_of), "metric=prism")
        return self.with_empty(absent, predictions, references, metadata)

    def judge(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> list[Judged]:
        captions = [list(row.get("captions", [text])) for text, row in zip(predictions, metadata, strict=True)]
        images = [self._image_of[str(row["key"])] for row in metadata]
        rows = [self.rows_of[image] for image in images]
        chosen, opened = self._chosen(images, captions, rows), self._opened(captions, rows)
        judged = []
        for texts, of_picture in zip(captions, rows, strict=True):
            answers = [[next(chosen if row.choices else opened) for _ in texts] for row in of_picture]
            judged.append(self._judged(texts, of_picture, answers))
        return judged

    def _chosen(
        self, images: Sequence[str], captions: Sequence[Sequence[str]], rows: Sequence[Sequence[_Row]]
    ) -> Iterator[_Said]:
        """What the reader says to questions with choices: of each picture, each question and each caption."""
        texts: list[str] = []
        asked: list[list[ChoiceQuestion]] = []
        for image, of_picture, group in zip(images, captions, rows, strict=True):
            for row in group:
                if row.choices:
                    item = Item(row.question, row.choices, row.answer)
                    texts += of_picture
                    asked += [[shown_as(item, image, self.seed, abstain=False)] for _ in of_picture]
        if self.reader is None or not texts:
            return iter(())
        read = zip(asked, self.reader.read(texts, asked), strict=True)
        return iter(
            [
                _Said(None if reading.choice is None else question.choices[reading.choice], reading.said or "")
                for (question,), (reading,) in read
            ]
        )

    def _opened(self, captions: Sequence[Sequence[str]], rows: Sequence[Sequence[_Row]]) -> Iterator[_Said]:
        """What the language model says to open questions, likewise."""
        questions = [
            Question(self.prompt.fill(caption=text, question=row.question))
            for of_picture, group in zip(captions, rows, strict=True)
            for row in group
            if not row.choices
            for text in of_picture
        ]
        answers = [] if self.asker is None else self.asker.ask(questions)
        return iter([_Said(answer.value, answer.text or answer.said or "", answer.tokens_out) for answer in answers])

    def _judged(self, captions: Sequence[str], rows: Sequence[_Row], answers: Sequence[Sequence[_Said]]) -> Judged:
        values = dict.fromkeys(("mean", "best", "questions", "captions"), 0.0)
        details = []
        for row, said in zip(rows, answers, strict=True):
            rule: Rule = "exact" if row.choices else self.match
            scores = [None if one.answer is None else agreement(one.answer, row.answer, rule) for one in said]
            read = [score for score in scores if score is not None]
            if read:
                values["mean"] += sum(read) / len(read)
                values["best"] += max(read)
                values["questions"] += 1
                values["captions"] += len(captions)
            details.append(
                {
                    "sample": dict(row.sample),
                    "scores": scores,
                    "answers": [one.answer for one in said],
                    "tokens": [one.num_tokens for one in said],
                    "texts": [*captions, *(one.reply for one in said)],
                }
            )
        failed = sum(one.answer is None for said in answers for one in said)
        return Judged(values, len(rows) * len(captions), failed, {"questions": details})

    def numbers(self, sums: Mapping[str, Float[np.ndarray, " R"]]) -> dict[str, Float[np.ndarray, " R"]]:
        return {
            "prism": ratio(sums["mean"], sums["questions"]),
            "prism_best": ratio(sums["best"], sums["questions"]),
            "prism_captions": ratio(sums["captions"], sums["questions"]),
        }

    def write(self, folder: Path, rows: Columns) -> list[Path]:
        """Also `prism_details.json`, a list a question as the released program writes it; null: no answer was read."""
        judged = self.judged(*self.complete(*rows))
        details = [
            [row["sample"], row["scores"], row["answers"], row["tokens"], row["texts"]]
            for found in judged
            for row in found.detail["questions"]
        ]
        path = folder / "prism_details.json"
        write_atomically(path, json.dumps(details, indent=4, ensure_ascii=False) + "\n")
        return [*super().write(folder, rows), path]


def _read_rows(path: str) -> dict[str, list[_Row]]:
    """The rows of each image. Raises UsageError, naming the row, for an answer that is empty or no choice."""
    located = read_json_or_lines(path, "questions")
    values = [(where, value) for where, value in located]
    if len(values) == 1 and isinstance(values[0][1], list):
        values = [(f"{path}, row {number}", row) for number, row in enumerate(values[0][1], 1)]
    found: dict[str, list[_Row]] = {}
    for where, row in values:
        image = member(expect(row, "an object", where), "image", "text", where)
        answer = str(member(row, "answer", "text or a whole number", where)).strip()
        choices = tuple(str(choice).strip() for choice in row.get("choices") or ())
        if not answer:
            raise UsageError(f"{where}: expected an answer, got an empty one; take the row out")
        if choices:
            check_choices(choices, where)
            if answer not in choices:
                raise UsageError(f"{where}: expected an answer that is one of {', '.join(choices)}; got {answer!r}")
        question = member(row, "prompt", "text", where)
        for mark in _TEMPLATE:
            question = question.replace(mark, "")
        found.setdefault(image, []).append(_Row(row, question.strip(), answer, choices))
    if not found:
        raise UsageError(f"{path}: no rows in it; expected {{image, prompt, answer}}")
    return found


def _names(images: Mapping[str, Any]) -> dict[str, str]:
    """Images by their path, and by their file's name with and without its ending where that names one only."""
    found: dict[str, set[str]] = {}
    for image in images:
        for name in (PurePosixPath(image).name, PurePosixPath(image).stem):
            found.setdefault(name, set()).add(image)
    return {name: min(of) for name, of in found.items() if len(of) == 1} | {image: image for image in images}
