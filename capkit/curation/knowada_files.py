"""The tables of KnowAda's released program (moranyanuka/KnowAda), read and written.

    questions.csv                 questions, num_questions, image_idx, question_idx       a row a question
    answers.csv                   the same, vlm_answers                                   a row an answer
    judgments.csv                 the same, judgments                                     a row an answer
    difficult_questions_list.csv  num_questions, image_idx, question_idx, questions       a row a picture
    rewritten_captions.csv        the same, rewritten_caption                             a row a picture

`image_idx` counts the pictures from 0, in the order of the data. The lists of difficult questions are Python's, and
empty where there are none. What failed is an empty cell: the program's -1, and any other grade outside 1 to 3, which
its reading of the first number of a reply leaves behind, are read as that. Of questions that a picture has twice, the
first counts, with its own answers: the program adds both up.
"""

import ast
import csv
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from capkit.errors import UsageError
from capkit.utils.files import atomic_path
from capkit.utils.text_files import existing_file

Stage = Literal["questions", "answers", "judgments", "difficult_questions_list", "rewritten_captions"]

_PICTURE = ["num_questions", "image_idx", "question_idx"]
_COLUMNS: dict[Stage, list[str]] = {
    "questions": ["questions", *_PICTURE],
    "answers": ["questions", *_PICTURE, "vlm_answers"],
    "judgments": ["questions", *_PICTURE, "vlm_answers", "judgments"],
    "difficult_questions_list": ["", *_PICTURE, "questions"],
    "rewritten_captions": ["Unnamed: 0", *_PICTURE, "questions", "rewritten_caption"],
}
GRADES = (1, 2, 3)


@dataclass(frozen=True)
class Asked:
    """A question, the student's answers to it, and a grade of each; None where one failed."""

    question: str
    answers: tuple[str | None, ...] = ()
    grades: tuple[int | None, ...] = ()


@dataclass(frozen=True)
class Adapted:
    """What became of a picture's caption: its questions, those that the student cannot answer, the new caption.

    The parts that a table does not hold are None.
    """

    asked: tuple[Asked, ...] | None = None
    unknown: tuple[str, ...] | None = None
    caption: str | None = None


class KnowAdaWriter:
    """Writes the five tables into `folder`; they appear when the `with` ends without an error.

    `asked` of a picture that is added must not be None. One whose `unknown` or `caption` is None, since it failed, has
    no row in the tables of these.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder, self._stack, self._count = Path(folder), ExitStack(), 0
        self._tables: dict[Stage, Any] = {}

    def __enter__(self) -> "KnowAdaWriter":
        self._folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            for stage, columns in _COLUMNS.items():
                path = stack.enter_context(atomic_path(self._folder / f"{stage}.csv"))
                file = stack.enter_context(path.open("w", encoding="utf-8", newline=""))
                self._tables[stage] = csv.writer(file, lineterminator="\n")
                self._tables[stage].writerow(columns)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def add(self, image_idx: int, adapted: Adapted) -> None:
        assert adapted.asked is not None
        if not adapted.asked:
            return  # the program's tables hold no picture without questions
        number = len(adapted.asked)
        for place, asked in enumerate(adapted.asked):
            row = [asked.question, number, image_idx, place]
            self._tables["questions"].writerow(row)
            for answer, grade in zip(asked.answers, asked.grades, strict=True):
                self._tables["answers"].writerow([*row, answer])
                self._tables["judgments"].writerow([*row, answer, grade])
        if adapted.unknown is None:
            return
        row = [self._count, number, image_idx, 0, list(adapted.unknown) or None]
        self._count += 1
        self._tables["difficult_questions_list"].writerow(row)
        if adapted.caption is not None:
            self._tables["rewritten_captions"].writerow([*row, adapted.caption])


def read_knowada(path: str | Path) -> tuple[Stage, dict[int, Adapted]]:
    """The stage that a table's name says, and its pictures by `image_idx`. Raises UsageError with file and line."""
    path = existing_file(path, "start_from")
    stage = next((name for name in _COLUMNS if name == path.stem), None)
    if stage is None or path.suffix != ".csv":
        raise UsageError(
            f"start_from: expected one of {', '.join(f'{name}.csv' for name in _COLUMNS)}, got {path.name}"
        )
    asked: dict[int, dict[str, Asked]] = {}  # by picture, and by the number of the question
    pictures: dict[int, Adapted] = {}
    for where, row in _rows(path, [name for name in _COLUMNS[stage] if name not in ("", "Unnamed: 0")]):
        image_idx = _whole(row["image_idx"], "image_idx", where)
        if stage in ("questions", "answers", "judgments"):
            numbered = asked.setdefault(image_idx, {})
            before = numbered.get(row["question_idx"], Asked(row["questions"]))
            numbered[row["question_idx"]] = _with_row(before, stage, row, where)
        else:
            pictures[image_idx] = Adapted(None, _list(row["questions"], where), row.get("rewritten_caption") or None)
    return stage, pictures | {image_idx: Adapted(_each_once(items)) for image_idx, items in asked.items()}


def _with_row(item: Asked, stage: Stage, row: dict[str, str], where: str) -> Asked:
    """The question with the answer and the grade of one more row."""
    if stage == "questions":
        return item
    answers = (*item.answers, row["vlm_answers"] or None)
    return replace(
        item, answers=answers, grades=(*item.grades, _grade(row["judgments"], where) if stage == "judgments" else None)
    )


def _each_once(items: dict[str, Asked]) -> tuple[Asked, ...]:
    """Of equal questions the first, with the answers to that one alone."""
    found: dict[str, Asked] = {}
    for item in items.values():
        found.setdefault(item.question, item)
    return tuple(found.values())


def _rows(path: Path, columns: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    csv.field_size_limit(1 << 24)
    with path.open(encoding="utf-8", newline="") as file:
        table = csv.DictReader(file, strict=True)
        missing = [name for name in columns if name not in (table.fieldnames or ())]
        if missing:
            raise UsageError(f"{path} line 1: expected the columns {', '.join(columns)}; {', '.join(missing)} missing")
        try:
            for row in table:
                where = f"{path} line {table.line_num}"
                if None in row or None in row.values():
                    raise UsageError(f"{where}: expected {len(table.fieldnames or ())} cells")
                yield where, row
        except csv.Error as error:
            raise UsageError(f"{path} line {table.line_num}: not CSV ({error})") from error


def _whole(cell: str, name: str, where: str) -> int:
    if not cell.strip().isdecimal():
        raise UsageError(f"{where}: {name} must be a whole number, got {cell!r}")
    return int(cell)


def _grade(cell: str, where: str) -> int | None:
    """A grade; None for one that failed. pandas writes 3.0 where a column has empty cells."""
    if not cell:
        return None
    try:
        number = float(cell)
    except ValueError as error:
        raise UsageError(f"{where}: judgments must be numbers, got {cell!r}") from error
    return int(number) if number in GRADES else None


def _list(cell: str, where: str) -> tuple[str, ...]:
    if not cell:
        return ()
    try:
        found = ast.literal_eval(cell)
    except (ValueError, SyntaxError) as error:
        raise UsageError(f"{where}: questions must be a list such as ['what color is it?'], got {cell!r}") from error
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise UsageError(f"{where}: questions must be a list such as ['what color is it?'], got {cell!r}")
    return tuple(dict.fromkeys(found))
