"""PromptCap: captions that help to answer a question, written by a language model and checked by a reader.

Hu et al. 2022, arXiv 2211.09699, section 3: a language model is shown an image's captions, a question and its answer; a
reader that sees the new caption alone must come to that answer. The answer is for writing the training captions: at
test a captioner reads the question and nothing more.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from capkit.curation.base import Records
from capkit.curation.questions import Split
from capkit.curation.step_bases import AskingStep, TextEncoder
from capkit.data.records import Caption, Record
from capkit.data.vqa import GuidedRow, OpenQuestion, open_questions, read_guided, write_guided
from capkit.errors import UsageError
from capkit.llm.asker import Asker
from capkit.llm.base import ChatModel, Question
from capkit.llm.prompts import Prompt
from capkit.llm.replies import Text
from capkit.metrics.vqa_score import hard_score, majority, soft_score
from capkit.text.asked import GENERIC, GUIDED, guided_prompt
from capkit.utils.checksums import crc32_and_size
from capkit.utils.ranges import NonNegativeInt, PositiveInt, Probability, check_ranges

PROMPTCAP = "promptcap"
_MAX_CAPTION_WORDS, _MAX_ANSWER_WORDS = 60, 12


@dataclass(frozen=True)
class _Asked:
    """A question with its candidate captions, the plain ones first, and the scores of those that were answered from."""

    question: OpenQuestion
    written: tuple[str, ...] = ()
    soft: tuple[float | None, ...] = ()
    hard: tuple[float, ...] = ()


@dataclass(frozen=True)
class _Case:
    record: Record
    asked: tuple[_Asked, ...]

    @property
    def plain(self) -> list[str]:
        return [caption.text for caption in self.record.captions]


@check_ranges
class GuideCaptions(AskingStep):
    """Records whose captions have prompts: their own ask for any caption, new ones for what answers a question.

    Questions with answers stand in the metadata, `vqa` (data=vqa). `text_lm` writes a candidate for each from the
    captions, the question and the most frequent answer; `sampler` another `num_samples`. `reader` answers the question
    from each candidate and each plain caption alone, behind up to `num_examples` solved ones, the most like it last and
    none of the same picture. A candidate stays if its soft score (`capkit/metrics/vqa_score.py`) is at least
    `min_score` and the best of all captions, the plain ones too; equal ones stay once, and one may say what a plain
    caption says. It is a caption with the prompt of its question, the score, and the source
    "promptcap/<prompt>/<model>".

    A candidate, or an answer, that failed is reported, and the question does with the others, in the released file too.

    Args:
        sampler: A model that samples; null: the greedy candidate alone.
        examples: A released file of solved questions, such as `released_file` of an earlier run: each is told with its
            best guided caption, if that has `min_score`. null: none.
        encoder: What questions are compared by, for `examples`.
        template: The prompt of guided captions, with $question.
        generic: The prompt of plain captions; null: these are left out.
        released_file: Writes PromptCap's rows there; needs all records, so no shards.
        batch_size, cache_dir: of `Asker`.

    Deliberate differences from PromptCap: (1) prompts and their examples are our own; (2) solved questions are likened
    by their texts, not by picture and text; (3) the program scores captions and leaves the choice out; (4) equal
    candidates are asked about once, in the order in which they were written.
    """

    name = "guide_captions"
    writes_source = f"{PROMPTCAP}/"

    def __init__(
        self,
        text_lm: ChatModel | None = None,
        reader: ChatModel | None = None,
        sampler: ChatModel | None = None,
        num_samples: PositiveInt = 4,
        examples: str | None = None,
        encoder: TextEncoder | None = None,
        num_examples: NonNegativeInt = 16,
        min_score: Probability = 0.6,
        template: str = GUIDED,
        generic: str | None = GENERIC,
        write_prompt: str = "guide_caption_v1",
        read_prompt: str = "answer_caption_v1",
        released_file: str | None = None,
        batch_size: PositiveInt = 32,
        cache_dir: str = "data/answers",
    ) -> None:
        if text_lm is None or reader is None:
            raise UsageError("guide_captions needs a model that writes and one that reads; add text_lm=hf or server")
        if examples is not None and encoder is None:
            raise UsageError(
                "guide_captions: examples are chosen by likeness; add 'step.guide_captions.encoder={_target_: "
                "capkit.models.dual_encoders.sentence_encoder.SentenceEncoder}'"
            )
        guided_prompt("", template)  # raises for another template
        self.scope = "record" if released_file is None else "all"
        self._template, self._generic, self._released = template, generic, released_file
        self._num_samples, self._min_score = num_samples, min_score
        self._write = Prompt(write_prompt, ["captions", "question", "answer"])
        self._read = Prompt(read_prompt, ["caption", "question"], ["examples"])
        self._examples = _Examples(examples, encoder, num_examples, float(min_score))
        text, answer = Text(_MAX_CAPTION_WORDS), Text(_MAX_ANSWER_WORDS)
        self.askers = {"write": Asker(text_lm, cache_dir, text, batch_size=batch_size, pictures=False)}
        if sampler is not None:
            self.askers["sample"] = Asker(sampler, cache_dir, text, 0, num_samples, batch_size, pictures=False)
        self.askers["read"] = Asker(reader, cache_dir, answer, batch_size=batch_size, pictures=False)
        self._about = {
            "models": {kind: asker.model.about() for kind, asker in self.askers.items()},
            "prompts": [self._write.fingerprint_fields(), self._read.fingerprint_fields(), template, generic],
            "num_samples": num_samples,
            "min_score": float(min_score),
            "examples": self._examples.about(),
            "released_file": released_file,
        }
        self._source = f"{PROMPTCAP}/{self._write.name}/{text_lm.about()['model']}"
        self._numbers: dict[str, int] = dict.fromkeys(("questions", "candidates", "kept", "questions_without"), 0)
        self._is_dry = False

    def attach_split(self, split: Split) -> None:
        split.refuse_test_pictures(self.name)
        self._is_dry = split.is_dry
        if self._released is not None and Path(self._released).is_file():
            own = set(split.pictures(split.name))
            if strangers := [row.image_id for row in read_guided(self._released) if str(row.image_id) not in own]:
                raise UsageError(
                    f"{self.name}: expected a released_file for the pictures of split {split.name}, got "
                    f"{self._released}, which holds captions of others (such as {strangers[0]}); give each split a "
                    "file and a command of its own"
                )

    def __call__(self, records: Records) -> Iterator[Record]:
        rows: list[GuidedRow] = []
        for case in self._answered(self._written(records())):
            rows += [_row(case, asked) for asked in case.asked if any(score is not None for score in asked.soft)]
            yield self._record(case)
        if self._released is not None and not self._is_dry:
            write_guided(self._released, rows)

    def _written(self, records: Iterable[Record]) -> Iterator[_Case]:
        def cases() -> Iterator[_Case]:
            for record in records:
                asked = tuple(map(_Asked, open_questions(record)))
                if not record.captions or not asked:
                    self._fail(record, "no caption" if asked else "no question with answers; take data=vqa")
                    continue
                self._numbers["questions"] += len(asked)
                yield _Case(record, asked)

        found: Iterator[_Case] = cases()
        for kind, numbers in (("write", (0,)), ("sample", tuple(range(self._num_samples)))):
            if kind in self.askers:
                found = self._candidates(found, kind, numbers)
        return found

    def _candidates(self, cases: Iterable[_Case], kind: str, numbers: Sequence[int]) -> Iterator[_Case]:
        def questions(case: _Case) -> list[Question]:
            captions = "\n".join(case.plain)
            fill = self._write.fill
            texts = [
                fill(captions=captions, question=a.question.question, answer=majority(a.question.answers))
                for a in case.asked
            ]
            return [Question(text, sample=number) for text in texts for number in numbers]

        for case, answers in self.askers[kind].stream(cases, questions):
            rest, done = iter(answers), []
            for asked in case.asked:
                found = [next(rest) for _ in numbers]
                for answer in found:
                    if answer.text is None:
                        self._fail(case.record, f"{kind}: {asked.question.question}: {answer.failure}", answer.said)
                new = [answer.value for answer in found if answer.text is not None]
                distinct = dict.fromkeys([*asked.written, *new])
                done.append(replace(asked, written=tuple(distinct)))
            yield replace(case, asked=tuple(done))

    def _answered(self, cases: Iterable[_Case]) -> Iterator[_Case]:
        def questions(case: _Case) -> list[Question]:
            asked = []
            for one in case.asked:
                solved = self._examples.like(one.question.question, case.record)
                for text in [*case.plain, *one.written]:
                    asked.append(
                        Question(self._read.fill(examples=solved, caption=text, question=one.question.question))
                    )
            return asked

        for case, answers in self.askers["read"].stream(cases, questions):
            rest, done = iter(answers), []
            for one in case.asked:
                found = [next(rest) for _ in [*case.plain, *one.written]]
                for answer in found:
                    if answer.text is None:
                        self._fail(case.record, f"read: {one.question.question}: {answer.failure}", answer.said)
                golds = one.question.answers
                soft = tuple(None if a.text is None else soft_score(a.value, golds) for a in found)
                hard = tuple(0.0 if a.text is None else hard_score(a.value, golds) for a in found)
                done.append(replace(one, soft=soft, hard=hard))
            yield replace(case, asked=tuple(done))

    def _record(self, case: _Case) -> Record:
        guided = []
        for one in case.asked:
            own = one.soft[len(case.plain) :]
            best = max((score for score in one.soft if score is not None), default=1.0)
            stays = [
                (text, score)
                for text, score in zip(one.written, own, strict=True)
                if score is not None and score >= max(self._min_score, best)
            ]
            self._numbers["candidates"] += len(own)
            self._numbers["kept"] += len(stays)
            self._numbers["questions_without"] += not stays
            prompt, language = guided_prompt(one.question.question, self._template), case.record.captions[0].language
            guided += [Caption(text, self._source, language, score, prompt=prompt) for text, score in stays]
        plain = [replace(caption, prompt=self._generic) for caption in case.record.captions]
        return replace(case.record, captions=[*(plain if self._generic is not None else ()), *guided])


class _Examples:
    """Solved questions of a released file, told by likeness to a question; none without a file.

    Raises UsageError for a file in which no question is solved: none has a guided caption of `min_score`.
    """

    def __init__(self, path: str | None, encoder: TextEncoder | None, number: int, min_score: float) -> None:
        self._path, self._encoder, self._number = path, encoder, number
        self._rows = [row for row in ([] if path is None else read_guided(path)) if _best_guided(row)[0] >= min_score]
        if path is not None and not self._rows:
            raise UsageError(
                f"guide_captions: {path}: expected rows with a guided caption whose soft score is {min_score} at "
                "least, got none; give another file as examples, or leave it out"
            )
        self._vectors = self._unit([row.question for row in self._rows]) if self._rows else None

    def about(self) -> list[Any] | None:
        """The file by its content, what questions are compared by, and how many are told."""
        if self._path is None or self._encoder is None:
            return None
        return [crc32_and_size(Path(self._path)), self._encoder.fingerprint_fields("text"), self._number]

    def like(self, question: str, record: Record) -> str:
        """Up to `number` of them, the most like it last, none of the record's picture."""
        if self._vectors is None:
            return ""
        own = {record.key, str(record.metadata.get("image_id", record.key))}
        cosines = self._vectors @ self._unit([question])[0]
        others = [place for place in np.argsort(-cosines, kind="stable") if str(self._rows[place].image_id) not in own]
        return "\n".join(map(self._told, [self._rows[place] for place in others[: self._number]][::-1])) + "\n"

    def _told(self, row: GuidedRow) -> str:
        return f"Caption: {_best_guided(row)[1]}\nQuestion: {row.question}\nAnswer: {row.answer}\n"

    def _unit(self, texts: list[str]) -> Float[np.ndarray, "N D"]:
        assert self._encoder is not None
        rows = self._encoder.encode_text(texts).cpu().double().numpy()
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _best_guided(row: GuidedRow) -> tuple[float, str]:
    """Its score and the first caption that has it; below any score where there is none."""
    scores = row.soft_scores[len(row.coco_captions) :]
    best = max(scores, default=-1.0)
    return best, row.prompt_guided_captions[scores.index(best)] if scores else ""


def _row(case: _Case, asked: _Asked) -> GuidedRow:
    """Of the captions from which the question was answered."""
    is_read = [score is not None for score in asked.soft]
    num_plain = len(case.plain)
    return GuidedRow(
        asked.question.id,
        case.record.metadata.get("image_id", case.record.key),
        asked.question.question,
        majority(asked.question.answers),
        list(compress(case.plain, is_read)),
        list(compress(asked.written, is_read[num_plain:])),
        [score for score in asked.soft if score is not None],
        list(compress(asked.hard, is_read)),
    )
