"""Open questions about pictures, answered by a language model from the captions that they asked for (PromptCap)."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from capkit.errors import UsageError
from capkit.llm.asker import Asker
from capkit.llm.base import ChatModel, Question
from capkit.llm.prompts import Prompt
from capkit.llm.replies import Text
from capkit.metrics.judged import MAX_FAILED, Columns, Judged, JudgedMetric, Shown, ratio
from capkit.metrics.vqa_score import hard_score, majority, soft_score
from capkit.readers.question_sets import meeting_keys
from capkit.text.vqa_files import vqa_rows
from capkit.utils.checksums import crc32_and_size
from capkit.utils.ranges import Probability, check_ranges
from capkit.utils.text_files import existing_file

_MAX_ANSWER_WORDS = 12
_RIGHT = 0.5  # of the soft score, from which a page shows an answer as right


@check_ranges
class OpenCaptionQA(JudgedMetric):
    """Open questions, each answered from one caption: that of the record `IMAGE<->QUESTION`, as `data=vqa asked=guided`
    has it, or of the picture, where captions are of pictures (`IMAGE`).

    Gives means over questions: `caption_qa_soft`, PromptCap's agreement by letters, and `caption_qa_hard`, VQA's
    accuracy (`capkit/metrics/vqa_score.py`; arXiv 2211.09699). Answers of people are read here and nowhere else: a
    captioner sees the records of data.test. An answer that cannot be read is a failure and in no mean.

    Args:
        questions: VQAv2's or OK-VQA's questions, or A-OKVQA's list, which has its answers.
        annotations: VQAv2's or OK-VQA's answers to them.
        text_lm: Who answers.
        missing: of `CaptionQA`; here of questions.
        prompt: With $caption and $question, and $examples, which stays empty.
        max_failed: of `JudgedMetric`; cache_dir: of `Asker`.

    Raises UsageError for questions without answers, and for captions of pictures or questions that are not in the file.
    """

    def __init__(
        self,
        questions: str | None = None,
        annotations: str | None = None,
        text_lm: ChatModel | None = None,
        missing: Literal["empty", "ignore"] = "empty",
        prompt: str = "answer_caption_v1",
        max_failed: Probability = MAX_FAILED,
        cache_dir: str = "data/answers",
    ) -> None:
        super().__init__("caption_qa", max_failed)
        if questions is None:
            raise UsageError("metric=caption_qa_open needs questions; give metric.caption_qa.questions=FILE")
        if text_lm is None:
            raise UsageError("metric=caption_qa_open needs a language model that answers; add text_lm=hf or server")
        self.missing = missing
        self._files = [existing_file(questions, "questions")]
        self._files += [] if annotations is None else [existing_file(annotations, "annotations")]
        rows = vqa_rows(self._files[0], self._files[1] if annotations is not None else None, needs_answers=True)
        self._of_question = {f"{image}<->{row['question_id']}": row for image, row in rows}
        self._of_picture: dict[str, list[str]] = {}
        for image, row in rows:
            self._of_picture.setdefault(str(image), []).append(f"{image}<->{row['question_id']}")
        self._prompt = Prompt(prompt, ["caption", "question"], ["examples"])
        self._asker = Asker(text_lm, cache_dir, Text(_MAX_ANSWER_WORDS), pictures=False)

    @property
    def askers(self) -> Mapping[str, Asker]:
        return {"text_lm": self._asker}

    def describe(self) -> dict[str, Any]:
        files = {file.name: crc32_and_size(file) for file in self._files}
        about = {"text_lm": self._asker.model.about(), "prompt": self._prompt.fingerprint_fields()}
        return {"questions": files, "num_questions": len(self._of_question), **about}

    def complete(self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]) -> Columns:
        keys = [str(row["key"]) for row in metadata]
        by_question = any(key in self._of_question for key in keys)
        known: Sequence[str] = list(self._of_question if by_question else self._of_picture)
        absent = meeting_keys(keys, known, "metric=caption_qa_open")
        return self.with_empty(absent, predictions, references, metadata)

    def judge(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> list[Judged]:
        asked = [self._questions_of(str(row["key"])) for row in metadata]
        filled = [
            Question(self._prompt.fill(examples="", caption=text, question=row["question"]))
            for text, rows in zip(predictions, asked, strict=True)
            for row in rows
        ]
        answers = iter(self._asker.ask(filled))
        return [_judged(rows, [next(answers) for _ in rows]) for rows in asked]

    def _questions_of(self, key: str) -> list[Mapping[str, Any]]:
        return [self._of_question[name] for name in self._of_picture.get(key, [key])]

    def numbers(self, sums: Mapping[str, Float[np.ndarray, " R"]]) -> dict[str, Float[np.ndarray, " R"]]:
        zero = np.zeros_like(sums["pictures"])
        read = sums.get("read", zero)
        return {f"{self.name}_{kind}": ratio(sums.get(kind, zero), read) for kind in ("soft", "hard")}

    def shown(self, found: Judged) -> Shown | None:
        if not found.values.get("read"):
            return None
        marks = [
            (
                f"{row['question']} {row['said'] or 'not read'} ({row['answer']})",
                "open" if row["soft"] is None else "right" if row["soft"] >= _RIGHT else "wrong",
            )
            for row in found.detail["questions"]
        ]
        return Shown(found.values["soft"] / found.values["read"], marks)  # type: ignore[arg-type]


def _judged(rows: Sequence[Mapping[str, Any]], answers: Sequence[Any]) -> Judged:
    values = dict.fromkeys(("read", "soft", "hard"), 0.0)
    details: list[dict[str, Any]] = []
    for row, answer in zip(rows, answers, strict=True):
        golds = row["answers"]
        detail = {"question": row["question"], "answer": majority(golds), "said": answer.value, "soft": None}
        if answer.text is None:
            detail |= {"failure": answer.failure, "said": answer.said}
        else:
            detail["soft"], hard = soft_score(answer.value, golds), hard_score(answer.value, golds)
            values["read"] += 1
            values["soft"] += detail["soft"]
            values["hard"] += hard
        details.append(detail)
    failed = sum(answer.text is None for answer in answers)
    return Judged(values, len(rows), failed, {"questions": details})
