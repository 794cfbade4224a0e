"""Writes the questions of records into a file that rewards and metrics read, and those that a person must look at."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from capkit.curation.base import Records
from capkit.curation.questions import TO_REVIEW, Split, questions_of, with_questions
from capkit.data.records import Record
from capkit.errors import UsageError
from capkit.readers.question_rows import Item, PictureRow, item_from, write_caprl, write_caption_qa
from capkit.readers.question_sets import QuestionFile
from capkit.utils.checksums import crc32_and_size
from capkit.utils.files import atomic_path
from capkit.utils.text_files import expect, member, read_json_or_lines

_WRITERS = {"caption_qa": write_caption_qa, "caprl": write_caprl}
_DROP = "drop"


class WriteQuestions:
    """Records as they are. Their questions go into the file `path`, with the split that they belong to.

    `review` gets the questions on which two models did not agree (`filter_questions`), one a line: {id, image,
    question, choices, answer, category, first, second, verdict}. A person fills in `verdict`, the right option or
    "drop", and gives the file as `reviewed`: what has a right option joins the others, with that as its answer.

    Files appear when all records have passed; a dry run writes none.

    Args:
        path: The file of questions.
        form: "caption_qa": JSON lines of CaptionQA's rows. "caprl": CapRL's list, without categories.
        review: Where the questions to look at go; null: nowhere.
        reviewed: Such a file with its verdicts.

    Raises UsageError for test pictures in the training split, a `path` that holds another split's questions, a verdict
    that is missing or no option, questions of `reviewed` that no record has, and where no question is left to write.
    """

    name = "write_questions"
    scope = "all"
    writes_source = ""

    def __init__(
        self,
        path: str | None = None,
        form: Literal["caption_qa", "caprl"] = "caption_qa",
        review: str | None = None,
        reviewed: str | None = None,
    ) -> None:
        if path is None:
            raise UsageError("write_questions needs a file to write; give step.write_questions.path=questions.jsonl")
        if review is not None and reviewed is not None and Path(review).resolve() == Path(reviewed).resolve():
            raise UsageError(f"write_questions: review and reviewed are both {review}; give the new one another name")
        self._path, self._form, self._review = path, form, review
        self._verdicts = {} if reviewed is None else _read_verdicts(Path(reviewed))
        self._about = {
            "path": path,
            "form": form,
            "review": review,
            "reviewed": None if reviewed is None else crc32_and_size(Path(reviewed)),
        }
        self._split: Split | None = None
        self.counts = {"questions": 0, "pictures": 0, "to_review": 0}

    def fingerprint_fields(self) -> dict[str, Any]:
        return self._about

    def attach_split(self, split: Split) -> None:
        split.refuse_test_pictures(self.name)
        there = QuestionFile(self._path).split if Path(self._path).is_file() else None
        if there not in (None, split.name):
            raise UsageError(
                f"{self.name}: expected a file for the questions of split {split.name}, got {self._path}, which holds "
                f"those of {there}; give each split a path and a command of its own"
            )
        self._split = split

    def __call__(self, records: Records) -> Iterator[Record]:
        rows: list[tuple[PictureRow, str | None]] = []
        open_rows: list[dict[str, Any]] = []
        verdicts = dict(self._verdicts)
        for record in records():
            items, waiting = questions_of(record), []
            for row in record.metadata.get(TO_REVIEW, []):
                item = item_from(row, record.key, f"record {record.key!r}: {TO_REVIEW}")
                verdict = verdicts.pop((record.key, item.question), None)
                if verdict is None:
                    waiting.append(row)
                elif verdict != _DROP:
                    items.append(_answered(item, verdict, record.key))
            open_rows += [{"id": record.key, "image": record.image, **row, "verdict": None} for row in waiting]
            if items:
                split = None if self._split is None else self._split.name
                rows.append((PictureRow(record.key, tuple(items), split), record.image))
            yield with_questions(record, items, **{TO_REVIEW: waiting})
        self._write(rows, open_rows, verdicts)

    def _write(
        self,
        rows: list[tuple[PictureRow, str | None]],
        waiting: list[dict[str, Any]],
        unused: dict[tuple[str, str], str],
    ) -> None:
        if self._split is not None and self._split.is_dry:
            return
        if unused:
            key, question = next(iter(unused))
            raise UsageError(
                f"write_questions: {len(unused)} verdicts are on questions that no record has to be looked at, such as "
                f"{question!r} of {key!r}; give the file that belongs to these records"
            )
        if not rows:
            raise UsageError("write_questions: no record has a question left; nothing was written")
        _WRITERS[self._form](self._path, rows)
        if self._review is not None:
            with atomic_path(self._review) as temporary, temporary.open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in waiting)
        self.counts["pictures"] = len(rows)
        self.counts["questions"] = sum(len(row.items) for row, _ in rows)
        self.counts["to_review"] = len(waiting)


def _read_verdicts(path: Path) -> dict[tuple[str, str], str]:
    """The verdict on each picture's question."""
    found = {}
    for where, row in read_json_or_lines(path, "reviewed"):
        key = str(member(expect(row, "an object", where), "id", "text or a whole number", where))
        question = member(row, "question", "text", where)
        found[key, question] = str(member(row, "verdict", "text", where)).strip()
        if found[key, question] not in (_DROP, *member(row, "choices", "a list", where)):
            raise UsageError(
                f"{where}: expected as verdict one of the choices, or {_DROP!r}, got {found[key, question]!r}"
            )
    return found


def _answered(item: Item, verdict: str, key: str) -> Item:
    if verdict not in item.choices:
        raise UsageError(
            f"write_questions: verdict {verdict!r} on {item.question!r} of {key!r} is none of {item.choices}; give the "
            "file that belongs to these records"
        )
    return replace(item, answer=verdict)
