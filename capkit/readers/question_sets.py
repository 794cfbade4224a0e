"""Questions about pictures, with choices, answers and categories: from CaptionQA's files, and as they are shown."""

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from capkit.errors import UsageError
from capkit.readers.base import ChoiceQuestion
from capkit.readers.question_rows import ImageKey, Item, read_questions
from capkit.utils import rng

ABSTAIN = "Cannot answer from the caption"
# How the released program tells a question of yes or no (qa.py, is_yesno_question).
_RELEASED_STARTS = tuple(
    f"{word} "
    for word in (
        *("is", "are", "was", "were", "do", "does", "did", "have", "has", "had"),
        *("can", "could", "will", "would", "should", "shall", "may", "might", "must"),
    )
)
_NUM_NAMED = 3


@runtime_checkable
class QuestionSource(Protocol):
    """The questions about each picture."""

    def of(self, key: str, metadata: Mapping[str, Any]) -> Sequence[Item]:
        """Of a picture, by its key and metadata. Raises UsageError for a picture that it does not know."""
        ...

    def keys(self) -> list[str] | None:
        """All pictures that it asks about, None if it asks about any."""
        ...

    def about(self) -> dict[str, Any]:
        """What the questions are, as plain data."""
        ...


def shown_as(item: Item, key: str, seed: int, abstain: bool = True, shuffle: bool = True) -> ChoiceQuestion:
    """The question with its options in an order drawn by (seed, picture, question), the abstain option among them.

    A question that is answered by yes or no has no abstain option: its choices are exactly these two. `shuffle=False`
    leaves the order of the file.
    """
    order = rng.generator(seed, "options", key, item.question) if shuffle else None
    return in_drawn_order(item, abstain and not _is_yes_no(item), order)


def in_drawn_order(item: Item, abstain: bool, order: np.random.Generator | None) -> ChoiceQuestion:
    """The question with its options, the abstain option last of them if it is offered, in an order drawn from `order`.

    A question that has the abstain option itself has it once. None leaves the order of the file.
    """
    options = _options(item, abstain)
    return _in_order(item, options, range(len(options)) if order is None else order.permutation(len(options)).tolist())


def shown_as_released(source: QuestionSource, seed: int, abstain: bool = True) -> dict[str, list[ChoiceQuestion]]:
    """All questions of a file as CaptionQA's program shows them, by picture.

    Orders come from one stream of Python's random numbers over the whole file, so that they are the program's where
    every picture has a caption. There is no abstain option for questions that begin with "is", "are", "can" ..., and
    wherever an option has "yes" in it and another one "no" ("none", "north"). Raises UsageError for a source that asks
    about any picture.
    """
    keys = source.keys()
    if keys is None:
        raise UsageError(
            "legacy=true draws orders over a whole file of questions, and this source has none; leave it out"
        )
    stream = random.Random(seed)
    found: dict[str, list[ChoiceQuestion]] = {key: [] for key in keys}
    for key in keys:
        for item in source.of(key, {}):
            options = _options(item, abstain and not _is_yes_no_released(item))
            order = list(range(len(options)))
            stream.shuffle(order)
            found[key].append(_in_order(item, options, order))
    return found


def _options(item: Item, abstain: bool) -> list[str]:
    return [*item.choices, *([ABSTAIN] if abstain and ABSTAIN not in item.choices else [])]


def _in_order(item: Item, options: Sequence[str], order: Iterable[int]) -> ChoiceQuestion:
    choices = tuple(options[place] for place in order)
    return ChoiceQuestion(item.question, choices, choices.index(ABSTAIN) if ABSTAIN in choices else None)


def _is_yes_no(item: Item) -> bool:
    return sorted(choice.strip().lower() for choice in item.choices) == ["no", "yes"]


def _is_yes_no_released(item: Item) -> bool:
    choices = [choice.strip().lower() for choice in item.choices]
    has_both = all(any(word in choice for choice in choices) for word in ("yes", "no"))
    return has_both or item.question.strip().lower().startswith(_RELEASED_STARTS)


class QuestionFile:
    """A file of questions: CaptionQA's rows, CapRL's, or {id: [questions]} (`capkit/readers/question_rows.py`).

    `category` is a text or a list; the domain of a picture are the letters of its id before "_" ("nat" of "nat_001").
    `split` is what the rows say they belong to (train, val, test), None where they do not say.

    Args:
        path: JSON, JSON lines or parquet.
        image_key: What of CapRL's `image_path` is the key of the picture's record, where a row has no `id`.

    Raises UsageError, naming the row, for an answer that is none of the choices, equal choices, fewer than 2 or more
    than 26 (25 where an abstain option is added), for two rows of one picture, and for rows of two splits.
    """

    def __init__(self, path: str | Path, image_key: ImageKey = "path") -> None:
        self.path = str(path)
        self.split: str | None = None
        self._items: dict[str, Sequence[Item]] = {}
        for number, (where, row) in enumerate(read_questions(Path(path), image_key)):
            if row.key in self._items:
                raise UsageError(f"{where}: two rows of {row.key!r}; put its questions into one")
            if number and row.split != self.split:
                raise UsageError(
                    f"{where}: expected questions of one split, got some of {row.split or 'none'} behind those of "
                    f"{self.split or 'none'}; give a file for each split"
                )
            self.split, self._items[row.key] = row.split, row.items
        if not any(self._items.values()):
            raise UsageError(f"{path}: no questions in it; expected rows of id and questions")

    def of(self, key: str, metadata: Mapping[str, Any]) -> Sequence[Item]:
        if key not in self._items:
            raise UsageError(f"{self.path} has no questions about {key!r}")
        return self._items[key]

    def keys(self) -> list[str]:
        return list(self._items)

    def about(self) -> dict[str, Any]:
        rows = [[key, *map(list, map(_plain, items))] for key, items in self._items.items()]
        return {
            "questions": Path(self.path).name,
            "num_pictures": len(self._items),
            "num_questions": sum(map(len, self._items.values())),
            "hash": f"{rng.stable_hash(rows):016x}",
            **({} if self.split is None else {"split": self.split}),
        }


def meeting_keys(given: Iterable[str], known: Sequence[str] | None, what: str) -> list[str]:
    """The `known` pictures, which have questions, that are not `given`; none where any picture has questions.

    Raises UsageError for captions of pictures without questions.

    Both numbers and three of each are named; a set of which no picture has a caption is an error too.
    """
    if known is None:
        return []
    given = list(given)
    strangers = [key for key in given if key not in set(known)]
    absent = [key for key in known if key not in set(given)]
    if strangers or len(absent) == len(known):
        raise UsageError(
            f"{what}: expected captions of pictures that are asked about; {len(strangers)} of {len(given)} captions "
            f"have no questions ({some_of(strangers)}), and {len(absent)} of {len(known)} pictures with questions have "
            f"no caption ({some_of(absent)}); give both files the same ids"
        )
    return absent


def category_name(category: str) -> str:
    """A category in the name of a number: "Object Existence" is object_existence."""
    return re.sub(r"[\W_]+", "_", category.lower()).strip("_")


def some_of(names: Sequence[str]) -> str:
    """The first few names, for a message."""
    return ", ".join(map(repr, names[:_NUM_NAMED])) + (" ..." if len(names) > _NUM_NAMED else "") if names else "none"


def _plain(item: Item) -> tuple[Any, ...]:
    return item.question, list(item.choices), item.answer, list(item.groups)
