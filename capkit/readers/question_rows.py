"""Questions about pictures as files have them: CaptionQA's rows, and CapRL's with options and letters in the text."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from capkit.errors import UsageError
from capkit.readers.base import LETTERS, check_choices
from capkit.utils.files import atomic_path
from capkit.utils.text_files import Located, expect, member, read_json_or_lines, shown, split_name

ImageKey = Literal["path", "name", "stem"]
_KEY_OF: dict[str, Callable[[str], str]] = {
    "path": lambda path: path,
    "name": lambda path: Path(path).name,
    "stem": lambda path: Path(path).stem,
}
_CAPRL_OPTION = re.compile(r"\s*-\s*([A-Z])\)\s*(.*\S)\s*")
_ANSWER_LETTER = re.compile(r"\s*\(?([A-Z])[).]?\s*")
_AOKVQA = ("direct_answers", "correct_choice_idx")
_PARQUET_COLUMNS = {"id", "questions", "split", "image_path", "qa_list"} | {
    *("image_id", "question_id", "question", "choices", *_AOKVQA)
}


@dataclass(frozen=True)
class Item:
    """A question about a picture; `answer` is one of the `choices`, `category` a path of its `domain` ("" is none)."""

    question: str
    choices: tuple[str, ...]
    answer: str
    category: tuple[str, ...] = ()
    domain: str = ""

    @property
    def groups(self) -> tuple[str, ...]:
        """What its answer counts in, each once: the domain and the steps of the category."""
        return tuple(dict.fromkeys(name for name in (self.domain, *self.category) if name))


@dataclass(frozen=True)
class PictureRow:
    """The questions about a picture, and the split that they belong to if the file says so."""

    key: str
    items: tuple[Item, ...]
    split: str | None = None


def read_questions(path: Path, image_key: ImageKey = "path") -> Iterator[tuple[str, PictureRow]]:
    """Where a row stands, and what it holds.

    Rows are CaptionQA's {id, images, questions: [{question, choices, answer, category}]}, CapRL's {image_path, qa_list:
    [{question, answer}]}, A-OKVQA's {image_id, question_id, question, choices, correct_choice_idx}, or one object {id:
    [questions]}; of any kind `split` may say what they belong to, and `id` is the picture's key where there is one. A
    question of A-OKVQA is a row by itself, of key IMAGE<->QUESTION, as `data=vqa` puts it. JSON, JSON lines or parquet.

    Raises UsageError, naming the row, for an answer that is none of the choices, equal choices, or fewer than 2 or more
    than 25 (an abstain option needs a letter too).
    """
    for where, key, questions, read, split in _rows(path, image_key):
        items = [
            read(expect(question, "an object", at), key, at)
            for number, question in enumerate(questions, 1)
            for at in [f"{where}, question {number}"]
        ]
        yield where, PictureRow(key, tuple(items), split)


def write_caption_qa(path: str | Path, rows: Iterable[tuple[PictureRow, str | None]]) -> None:
    """Write rows, each with its picture's path, as CaptionQA's, one a line."""
    _write_lines(
        path,
        ({"id": row.key, "images": [image] if image else [], "questions": [*map(plain, row.items)]} | _split(row)
         for row, image in rows),
    )  # fmt: skip


def write_caprl(path: str | Path, rows: Iterable[tuple[PictureRow, str | None]]) -> None:
    """Write rows, each with its picture's path, as CapRL's list; `id` is the picture's key. Categories are left out.

    Raises UsageError for a question that would not be read back as it is, such as one with an option on a line of its
    own.
    """
    whole = [
        {
            "id": row.key,
            "image_path": image or row.key,
            "qa_list": [_caprl_row(item, f"question {item.question!r} of {row.key!r}") for item in row.items],
        }
        | _split(row)
        for row, image in rows
    ]
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(whole, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def plain(item: Item) -> dict[str, Any]:
    """An item as CaptionQA's rows have it."""
    return {
        "question": item.question,
        "choices": list(item.choices),
        "answer": item.answer,
        "category": list(item.category),
    }


def item_from(row: Mapping[str, Any], key: str, where: str) -> Item:
    """An item of CaptionQA's form. The domain are the letters of the picture's key before "_"."""
    question = member(dict(row), "question", "text", where)
    choices = tuple(
        str(choice).strip() for choice in member(dict(row), "choices", "a list", where) if choice is not None
    )
    answer = str(member(dict(row), "answer", "text or a whole number", where)).strip()
    category = row.get("category") or ()
    path = (category,) if isinstance(category, str) else tuple(map(str, category))
    domain, separator, _ = key.partition("_")
    return _checked(Item(question, choices, answer, path, domain if separator else ""), where)


def _caprl_item(row: Mapping[str, Any], key: str, where: str) -> Item:
    """An item of CapRL's form: the question, its options "- A) red" a line each, and the letter of the right one."""
    lines = member(dict(row), "question", "text", where).strip().splitlines()
    found = [_CAPRL_OPTION.fullmatch(line) for line in lines]
    start = next((place for place, option in enumerate(found) if option), len(lines))
    options = [option for option in found[start:] if option]
    letters = [option[1] for option in options]
    if len(options) < len(lines) - start or letters != list(LETTERS[: len(letters)]) or not start or not letters:
        raise UsageError(
            f"{where}: expected a question, and behind it options '- A) ...', '- B) ...' in order, each on a line "
            f"of its own; got {row['question'][:200]!r}"
        )
    answer = member(dict(row), "answer", "text", where)
    letter = _ANSWER_LETTER.fullmatch(answer)
    if letter is None or letter[1] not in letters:
        raise UsageError(f"{where}: expected the letter of an option ({', '.join(letters)}) as answer, got {answer!r}")
    choices = tuple(option[2] for option in options)
    text = "\n".join(lines[:start]).strip()
    return _checked(Item(text, choices, choices[letters.index(letter[1])]), where)


def _aokvqa_item(row: Mapping[str, Any], key: str, where: str) -> Item:
    """An item of A-OKVQA's form, whose answer is the place of a choice."""
    choices = tuple(expect(choice, "text", where).strip() for choice in member(dict(row), "choices", "a list", where))
    place = member(dict(row), "correct_choice_idx", "a whole number", where)
    if not 0 <= place < len(choices):
        raise UsageError(f"{where}: expected correct_choice_idx from 0 to {len(choices) - 1}, got {place}")
    return _checked(Item(member(dict(row), "question", "text", where), choices, choices[place]), where)


def _caprl_row(item: Item, where: str) -> dict[str, str]:
    options = [f"\n   - {letter}) {choice}" for letter, choice in zip(LETTERS, item.choices, strict=False)]
    row = {"question": item.question + "".join(options), "answer": LETTERS[item.choices.index(item.answer)]}
    if _caprl_item(row, "", where) != Item(item.question, item.choices, item.answer):
        raise UsageError(
            f"{where}: expected texts without line breaks and spaces at their ends, as CapRL's form has them"
        )
    return row


def _checked(item: Item, where: str) -> Item:
    check_choices(item.choices, where)
    if item.answer not in item.choices:
        raise UsageError(
            f"{where}: expected an answer that is one of {', '.join(map(repr, item.choices))}; got {item.answer!r}"
        )
    if len(item.choices) == len(LETTERS):
        raise UsageError(f"{where}: {len(item.choices)} choices leave no letter for the abstain option; take one out")
    return item


_Read = Callable[[Mapping[str, Any], str, str], Item]


def _rows(path: Path, image_key: ImageKey) -> Iterator[tuple[str, str, Sequence[Any], _Read, str | None]]:
    """Where, key, questions, what reads one, and split of each picture."""
    located = _parquet_rows(path) if path.suffix == ".parquet" else read_json_or_lines(path, "questions")
    if len(located) == 1 and isinstance(located[0].value, list):
        located = [Located(f"{path}, row {number}", row) for number, row in enumerate(located[0].value, 1)]
    elif (
        len(located) == 1
        and isinstance(located[0].value, dict)
        and not {"questions", "qa_list", *_AOKVQA} & set(located[0].value)
    ):
        for key, questions in located[0].value.items():
            where = f"{path}, {shown(key)}"
            yield where, key, expect(questions, "a list", where), item_from, None
        return
    for where, row in located:
        is_caprl = "qa_list" in expect(row, "an object", where)
        if any(name in row for name in _AOKVQA):
            ids = [str(member(row, name, "text or a whole number", where)) for name in ("image_id", "question_id")]
            split = None if row.get("split") is None else split_name(row["split"], where)
            yield where, "<->".join(ids), [row], _aokvqa_item, split
            continue
        if is_caprl and "id" not in row:
            key = _KEY_OF[image_key](member(row, "image_path", "text", where))
        else:
            key = str(member(row, "id", "text or a whole number", where))
        at = f"{where} ({key})"
        split = None if row.get("split") is None else split_name(row["split"], at)
        read = _caprl_item if is_caprl else item_from
        yield at, key, member(row, "qa_list" if is_caprl else "questions", "a list", at), read, split


def _parquet_rows(path: Path) -> list[Located]:
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise UsageError(f"{path}: parquet needs pyarrow; pip install 'capkit[parquet]'") from error
    if not path.is_file():
        raise UsageError(f"questions: no file {str(path)!r}; give its path")
    known = [name for name in pq.read_schema(path).names if name in _PARQUET_COLUMNS]  # not the pictures
    rows = pq.read_table(path, columns=known).to_pylist()
    return [Located(f"{path}, row {number}", row) for number, row in enumerate(rows, 1)]


def _split(row: PictureRow) -> dict[str, str]:
    return {} if row.split is None else {"split": row.split}


def _write_lines(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
