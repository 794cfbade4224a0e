"""CaptionQA (Yang et al. 2025): what a caption is worth to a reader who answers questions about the picture from it."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from capkit.errors import UsageError
from capkit.llm.asker import Asker
from capkit.llm.base import ChatModel, Picture
from capkit.metrics.embedding_metric import picture_of
from capkit.metrics.judged import MAX_FAILED, Columns, Judged, JudgedMetric, Shown, ratio
from capkit.readers.base import ChoiceQuestion, Reader, Reading
from capkit.readers.chat import ChatReader
from capkit.readers.question_sets import (
    Item,
    QuestionFile,
    QuestionSource,
    category_name,
    meeting_keys,
    shown_as,
    shown_as_released,
)
from capkit.utils.files import write_atomically
from capkit.utils.ranges import Probability, Seed, check_ranges

ABSTAIN_BONUS = 0.05


@check_ranges
class CaptionQA(JudgedMetric):
    """Multiple-choice questions about each picture, answered from its caption alone.

    A right answer gives 1, a wrong one 0, "cannot answer from the caption" 1 / (choices without this one) + .05
    (qa.py of the released program; arXiv 2511.21025). An answer that cannot be read is a failure: it is in no mean,
    and its share is told (the program counts it as wrong).

    Gives the mean over questions as `caption_qa`, that over pictures of their means as `caption_qa_by_picture`,
    `caption_qa_accuracy` (share of right answers), the shares `caption_qa_abstained` and `caption_qa_unreadable`, and
    `caption_qa/CATEGORY` for each category and domain (`category_name`). With `vision_chat` the same questions are
    answered from the picture too: `caption_qa_seen`, and `caption_qa_gap`, how much less the caption gave on the
    same questions.

    Args:
        reader: Who answers.
        questions: A file (`QuestionFile`), or a QuestionSource.
        seed: Of the orders of options.
        abstain: Whether questions have the abstain option, but for those of yes and no.
        legacy: As the released program: which questions are of yes and no, and the orders of options
            (`shown_as_released`); what a reply is taken for (`ReleasedLetter`), of readers that generate one; and 0 for
            a reply that cannot be read. With missing=ignore, the released number.
        shuffle: false: options in the order of the file, the abstain option last.
        missing: "empty": pictures with questions and without a caption count as with an empty one, and are named;
            "ignore": they do not count, as in the program.
        vision_chat: A model that sees, for the upper bound.
        max_failed: of `JudgedMetric`.
    """

    def __init__(
        self,
        reader: Reader | None = None,
        questions: str | QuestionSource | None = None,
        seed: Seed = 0,
        abstain: bool = True,
        legacy: bool = False,
        shuffle: bool = True,
        missing: Literal["empty", "ignore"] = "empty",
        vision_chat: ChatModel | None = None,
        max_failed: Probability = MAX_FAILED,
    ) -> None:
        super().__init__("caption_qa", max_failed)
        if reader is None:
            raise UsageError("metric=caption_qa needs a reader; add reader=hf, server or scene")
        if questions is None:
            raise UsageError(
                "metric=caption_qa needs questions; give metric.caption_qa.questions=FILE, or question_set=scene or "
                "file"
            )
        self.reader: Reader = reader.as_released() if legacy and isinstance(reader, ChatReader) else reader
        self.seed, self.abstain, self.legacy, self.shuffle, self.missing = seed, abstain, legacy, shuffle, missing
        self.questions = QuestionFile(questions) if isinstance(questions, str) else questions
        if legacy and not shuffle:
            raise UsageError("legacy=true shuffles the options as the released program does; leave out shuffle=false")
        if legacy:
            _ = self._released  # a source without a file is told before anything is asked
        self.viewer = None if vision_chat is None else ChatReader(vision_chat)

    @property
    def askers(self) -> Mapping[str, Asker]:
        seen = {} if self.viewer is None else {"viewer": self.viewer.asker}
        return {**getattr(self.reader, "askers", {}), **seen}

    def describe(self) -> dict[str, Any]:
        order = {"seed": self.seed, "shuffle": self.shuffle, "abstain": self.abstain, "legacy": self.legacy}
        seen = {} if self.viewer is None else {"viewer": self.viewer.about()}
        return {"reader": self.reader.about(), "questions": self.questions.about(), **order, **seen}

    def complete(self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]) -> Columns:
        absent = meeting_keys([str(row["key"]) for row in metadata], self.questions.keys(), "metric=caption_qa")
        return self.with_empty(absent, predictions, references, metadata)

    def judge(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> list[Judged]:
        keys = [str(row["key"]) for row in metadata]
        items = [self.questions.of(key, row) for key, row in zip(keys, metadata, strict=True)]
        shown = [
            self._released[key]
            if self.legacy
            else [shown_as(item, key, self.seed, self.abstain, self.shuffle) for item in asked]
            for key, asked in zip(keys, items, strict=True)
        ]
        read = self.reader.read(predictions, shown)
        seen = self._seen(metadata, shown)
        return [self._judged(*row) for row in zip(items, shown, read, seen, strict=True)]

    @cached_property
    def _released(self) -> dict[str, list[ChoiceQuestion]]:
        return shown_as_released(self.questions, self.seed, self.abstain)

    def _seen(
        self, metadata: Sequence[Mapping[str, Any]], shown: Sequence[Sequence[ChoiceQuestion]]
    ) -> list[list[Reading]]:
        """The answers from the pictures, none of a picture that has no caption."""
        found: list[list[Reading]] = [[] for _ in metadata]
        if self.viewer is not None:
            places = [place for place, row in enumerate(metadata) if "image" in row]
            plain = [{name: value for name, value in row.items() if name != "image"} for row in metadata]
            pictures = [Picture(picture_of(metadata[place]["image"]), plain[place]) for place in places]
            answers = self.viewer.view(pictures, [shown[place] for place in places])
            for place, of_picture in zip(places, answers, strict=True):
                found[place] = of_picture
        return found

    def _judged(
        self, items: Sequence[Item], shown: Sequence[ChoiceQuestion], read: Sequence[Reading], seen: Sequence[Reading]
    ) -> Judged:
        values: dict[str, float] = defaultdict(float, questions=float(len(items)))
        details, scores = [], []
        for number, (item, question, reading) in enumerate(zip(items, shown, read, strict=True)):
            score = points(item, question, reading)
            details.append(_detail(item, question, reading, score))
            values["unreadable"] += score is None
            if score is None and self.legacy:
                score = 0.0
            if score is not None:
                scores.append(score)
                right, abstained = details[-1]["is_correct"], details[-1]["is_cannot_answer"]
                _add(values, score=score, read=1, right=right, abstained=abstained)
                for category in dict.fromkeys(map(category_name, item.groups)):
                    _add(values, **{f"score/{category}": score, f"read/{category}": 1})
            if seen and score is not None and (with_picture := points(item, question, seen[number])) is not None:
                _add(values, seen_score=with_picture, seen=1, unseen_score=score)
        if scores:
            _add(values, mean=sum(scores) / len(scores), pictures_read=1)
        failed = sum(reading.choice is None for reading in (*read, *seen))
        return Judged(dict(values), len(read) + len(seen), failed, {"questions": details})

    def numbers(self, sums: Mapping[str, Float[np.ndarray, " R"]]) -> dict[str, Float[np.ndarray, " R"]]:
        zero = np.zeros_like(sums["pictures"])
        read, asked = sums.get("read", zero), sums.get("questions", zero)
        found = {
            "": ratio(sums.get("score", zero), read),
            "_by_picture": ratio(sums.get("mean", zero), sums.get("pictures_read", zero)),
            "_accuracy": ratio(sums.get("right", zero), read),
            "_abstained": ratio(sums.get("abstained", zero), read),
            "_unreadable": ratio(sums.get("unreadable", zero), asked),
        }
        for name in sums:
            if name.startswith("read/"):
                category = name.partition("/")[2]
                found[f"/{category}"] = ratio(sums[f"score/{category}"], sums[name])
        if "seen" in sums:
            found["_seen"] = ratio(sums["seen_score"], sums["seen"])
            found["_gap"] = found["_seen"] - ratio(sums["unseen_score"], sums["seen"])
        return {f"{self.name}{name}": value for name, value in found.items()}

    def shown(self, found: Judged) -> Shown | None:
        """Each question with its answer; what was abstained from is open."""
        if not found.values.get("pictures_read"):
            return None
        marks: list[tuple[str, Literal["right", "wrong", "open"]]] = []
        for row in found.detail["questions"]:
            answer = row["model_answer"]
            is_open = answer is None or row["is_cannot_answer"]
            text = f"{row['question']} {'(unreadable)' if answer is None else answer}"
            marks.append((text, "open" if is_open else "right" if row["is_correct"] else "wrong"))
        return Shown(found.values["mean"], marks)

    def write(self, folder: Path, rows: Columns) -> list[Path]:
        """Also `caption_qa_results.json`, as the released program writes its results."""
        predictions, references, metadata = self.complete(*rows)
        judged = self.judged(predictions, references, metadata)
        results = {str(row["key"]): found.detail["questions"] for row, found in zip(metadata, judged, strict=True)}
        path = folder / "caption_qa_results.json"
        write_atomically(path, json.dumps(results, indent=2, ensure_ascii=False) + "\n")
        return [*super().write(folder, rows), path]


def points(item: Item, question: ChoiceQuestion, reading: Reading) -> float | None:
    """1, 0, or 1 / (choices without the abstain option) + .05 for abstaining; None for an answer that is none."""
    if reading.choice is None:
        return None
    if reading.choice == question.abstain:
        return 1 / len(item.choices) + ABSTAIN_BONUS
    return float(question.choices[reading.choice] == item.answer)


def _detail(item: Item, question: ChoiceQuestion, reading: Reading, score: float | None) -> dict[str, Any]:
    """A result under the names of the released program."""
    chosen = None if reading.choice is None else question.choices[reading.choice]
    more = {} if reading.probabilities is None else {"probabilities": list(reading.probabilities)}
    return {
        "question": item.question,
        "choices": list(item.choices),
        "ground_truth": item.answer,
        "model_answer": chosen,
        "model_response": reading.said if chosen is None else chosen,
        "is_correct": chosen == item.answer,
        "is_cannot_answer": reading.choice is not None and reading.choice == question.abstain,
        "score": 0.0 if score is None else round(score, 4),
        "category": item.category[0] if item.category else "",
        **({} if reading.failure is None else {"failure": reading.failure}),
        **more,
    }


def _add(values: dict[str, float], **terms: float | int) -> None:
    for name, term in terms.items():
        values[name] += float(term)
