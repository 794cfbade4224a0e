"""Questions in the metadata of records, the replies that write and answer them, and the splits they belong to."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from capkit.data.records import Record
from capkit.errors import UsageError
from capkit.llm.json_replies import JSONObject, ObjectList
from capkit.llm.replies import Field, Text, Unparsable
from capkit.readers.base import LETTERS, check_choices
from capkit.readers.chat import OneLetter
from capkit.readers.question_rows import Item, item_from, plain

QUESTIONS, TO_REVIEW, DROPPED = "questions", "questions_to_review", "questions_dropped"
NO_OPTION = ""
_MARKER = re.compile(r"\(?([A-Z])[).:]\s+(?=\S)")
_NAMED = 3


def questions_of(record: Record) -> list[Item]:
    """The questions in the record's metadata. Raises UsageError, naming it, for what is none."""
    rows = record.metadata.get(QUESTIONS, [])
    where = f"record {record.key!r}: {QUESTIONS}"
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"{where}: expected a list of {{question, choices, answer, category}}, got {rows!r:.100}")
    return [item_from(row, record.key, f"{where}, {number}") for number, row in enumerate(rows, 1)]


def with_questions(record: Record, items: Iterable[Item], **others: Any) -> Record:
    """The record with these questions in its metadata, in place of those that it has."""
    return replace(record, metadata={**record.metadata, QUESTIONS: [*map(plain, items)], **others})


@dataclass(frozen=True)
class WrittenQuestions:
    """A reply of one JSON object {"questions": [{"question", "choices", "answer"}]}, at most `max_questions` of them.

    With `nothing` the word none is a reply too: an empty list. The values are dicts as they were written
    (`written_item` judges each by itself).
    """

    max_questions: int
    max_words: int
    nothing: bool = False

    def read(self, text: str) -> list[dict[str, Any]]:
        if self.nothing and text.strip().removesuffix(".").lower() == "none":
            return []
        found = self._object().read(text)["questions"]
        if not found and not self.nothing:
            raise Unparsable("expected questions, got none")
        return found

    def schema(self) -> dict[str, Any]:
        return self._object().schema()

    def example(self) -> list[dict[str, Any]]:
        text = Text(self.max_words).example()
        return [{"question": text, "choices": [f"{n} {text}" for n in range(4)], "answer": f"0 {text}"}] * (
            1 if self.nothing else self.max_questions
        )

    def _object(self) -> JSONObject:
        text = Text(self.max_words)
        row: dict[str, Field] = {"question": text, "choices": _Choices(self.max_words), "answer": text}
        return JSONObject({"questions": ObjectList(row, self.max_questions)})


@dataclass(frozen=True)
class _Choices:
    """In JSON: a list of texts, however many: a question with too few or too many is dropped, and the others stay."""

    max_words: int

    def take(self, value: Any) -> list[str]:
        if not isinstance(value, list):
            raise Unparsable(f"expected a list of options, got {value!r:.80}")
        return [Text(self.max_words).take(item) for item in value]

    def field_schema(self) -> dict[str, Any]:
        return {"type": "array", "items": {"type": "string"}}

    def example(self) -> list[str]:
        return [Text(self.max_words).example()]


def written_item(row: Mapping[str, Any], category: Sequence[str] = ()) -> Item | None:
    """The question that a model wrote; None where its options are unusable or its answer is none of them.

    Where all options begin with their letters in order, "A) red", these are taken off, and off an answer that repeats
    its option. An answer is an option's text before it is a letter: of the options "A) Blue" and "B) red", "Blue" is
    the first; "B" is the second, since the options had letters.
    """
    marks = [_MARKER.match(choice) for choice in row["choices"]]
    letters = [mark[1] for mark in marks if mark]
    has_letters = len(letters) == len(marks) and letters == list(LETTERS[: len(letters)])
    choices = list(row["choices"])
    if has_letters:
        choices = [choice[mark.end() :] for choice, mark in zip(choices, marks, strict=True) if mark]
    answer = row["answer"]
    if answer not in choices and has_letters:
        if answer in row["choices"]:
            answer = choices[row["choices"].index(answer)]
        else:
            letter = re.fullmatch(r"\(?([A-Z])[).]?", answer)
            place = letters.index(letter[1]) if letter and letter[1] in letters else None
            answer = answer if place is None else choices[place]
    try:
        check_choices(choices, "")
    except UsageError:
        return None
    is_whole = answer in choices and len(choices) < len(LETTERS)
    return Item(row["question"], tuple(choices), answer, tuple(category)) if is_whole else None


@dataclass(frozen=True)
class LetterOrNothing:
    """A reply of one letter of an option, or any other reply, also one that was cut: NO_OPTION.

    So a model that says it cannot tell has answered, with no option, and a call that failed has not. "Answer: B" and "A
    cat" are no letter.
    """

    letters: str
    reads_cut: ClassVar[bool] = True

    def read(self, text: str) -> str:
        try:
            return OneLetter(self.letters).read(text)
        except Unparsable:
            return NO_OPTION

    def schema(self) -> dict[str, Any]:
        return OneLetter(self.letters).schema()

    def example(self) -> str:
        return self.letters[0]


@dataclass(frozen=True)
class Split:
    """The split that is curated, and the pictures of each split of the data by key: a file, or the key where none is.

    `is_dry`: nothing is to be written.
    """

    name: str
    pictures: Callable[[str], Mapping[str, str]]
    is_dry: bool = False

    def refuse_test_pictures(self, step: str, keys: Iterable[str] | None = None) -> None:
        """Raises UsageError if the training split, or a set of questions for it, has pictures of the test split.

        Files are compared, and keys of pictures that are in none: two splits may call different files by one key, and
        one file by two. A set that has only keys has the training picture then.
        """
        if self.name != "train":
            return
        train, test = self.pictures("train"), self.pictures("test")
        if keys is None:
            test_pictures = set(test.values())
            shared = sorted(key for key, picture in train.items() if picture in test_pictures)
        else:
            shared = sorted(set(keys) & set(test) - set(train))
        if shared:
            named = ", ".join(map(repr, shared[:_NAMED])) + (" ..." if len(shared) > _NAMED else "")
            raise UsageError(
                f"{step}: expected questions about training pictures alone, got {len(shared)} pictures of the test "
                f"split ({named}); take them out of the training split, or give the questions of this split"
            )
