"""Questions about pictures with answers by several people, in records' metadata, and PromptCap's released rows."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from capkit.data.records import Record
from capkit.errors import UsageError
from capkit.utils.files import atomic_path
from capkit.utils.text_files import expect, member, read_json

VQA = "vqa"


@dataclass(frozen=True)
class OpenQuestion:
    """A question with the answers of several people, equal ones as often as they were given."""

    id: str
    question: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class GuidedRow:
    """A row of PromptCap's released file. Scores are those of all captions, the plain ones first."""

    question_id: str | int
    image_id: str | int
    question: str
    answer: str
    coco_captions: list[str]
    prompt_guided_captions: list[str]
    soft_scores: list[float]
    hard_scores: list[float]


def open_questions(record: Record) -> list[OpenQuestion]:
    """Those in the record's metadata, `vqa`: [{question_id, question, answers}]. Raises UsageError for others."""
    found = []
    where = f"record {record.key!r}: {VQA}"
    for number, row in enumerate(expect(record.metadata.get(VQA, []), "a list", where), 1):
        at = f"{where}, {number}"
        answers = tuple(str(answer) for answer in member(expect(row, "an object", at), "answers", "a list", at))
        if not answers:
            raise UsageError(f"{at}: expected an answer at least, got none; take the question out")
        identity = str(member(row, "question_id", "text or a whole number", at))
        found.append(OpenQuestion(identity, member(row, "question", "text", at), answers))
    return found


def write_guided(path: str | Path, rows: Iterable[GuidedRow]) -> None:
    """Write rows as PromptCap's list."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps([asdict(row) for row in rows], ensure_ascii=False) + "\n", encoding="utf-8")


def read_guided(path: str | Path) -> list[GuidedRow]:
    """The rows of PromptCap's list. Raises UsageError, naming the row, for another form."""
    kinds = {
        "question_id": "text or a whole number",
        "image_id": "text or a whole number",
        "question": "text",
        "answer": "text",
        "coco_captions": "a list",
        "prompt_guided_captions": "a list",
        "soft_scores": "a list",
        "hard_scores": "a list",
    }
    found = []
    for number, row in enumerate(expect(read_json(path, "guided captions"), "a list", str(path)), 1):
        where = f"{path}, row {number}"
        fields = {name: member(expect(row, "an object", where), name, kind, where) for name, kind in kinds.items()}
        _check_lists(fields, where)
        found.append(GuidedRow(**fields))
    return found


def _check_lists(fields: Mapping[str, Any], where: str) -> None:
    num_captions = len(fields["coco_captions"]) + len(fields["prompt_guided_captions"])
    for name in ("coco_captions", "prompt_guided_captions"):
        for caption in fields[name]:
            expect(caption, "text", where, name)
    for name in ("soft_scores", "hard_scores"):
        for score in fields[name]:
            expect(score, "a number", where, name)
        if len(fields[name]) != num_captions:
            raise UsageError(
                f"{where}: expected a number of {name} for each of {num_captions} captions, got {len(fields[name])}"
            )
