"""What a report shows of a reward that asks questions: pictures, what is asked, and answers from captions."""

from collections.abc import Mapping, Sequence
from typing import Literal

from capkit.readers.base import ReadBack
from capkit.scorers.reward import Reward
from capkit.types import CaptionBatch, Row, Samples

NUM_ASKED = 6  # pictures


def asked_split(reward: Reward, rows: Sequence[Row]) -> Literal["test", "train"] | None:
    """Whose pictures are shown: test's if the reward asks about the first of `rows`, which are test's; else training's.

    None where the reward asks no questions. A reader that cannot be asked raises its UsageError here, before training.
    """
    found = _answers(reward, rows[:NUM_ASKED], [row["caption"] for row in rows[:NUM_ASKED]])
    if found is None:
        return None
    return "test" if any(found) else "train"


def with_answers(reward: Reward, rows: Sequence[Row], before: Mapping[str, str]) -> list[Row]:
    """The first rows that are asked about, with `before`, the caption at the start, and `answers`.

    An answer is {question, answer, before, now}; of the last two each is {said, abstained, right}.
    """
    rows = rows[:NUM_ASKED]
    now = _answers(reward, rows, [row["caption"] for row in rows]) or []
    then = _answers(reward, rows, [before.get(row["key"], "") for row in rows]) or []
    return [
        {
            **row,
            "before": before.get(row["key"], ""),
            "answers": [
                {"question": new.question, "answer": new.answer, "before": _said(old), "now": _said(new)}
                for old, new in zip(olds, news, strict=True)
            ],
        }
        for row, olds, news in zip(rows, then, now, strict=True)
        if news
    ]


def _answers(reward: Reward, rows: Sequence[Row], captions: Sequence[str]) -> list[list[ReadBack]] | None:
    """Of each row's picture, from its caption."""
    keys, references, metadata = ([row[name] for row in rows] for name in ("key", "references", "metadata"))
    batch = CaptionBatch(keys=keys, references=references, metadata=metadata)
    found = reward.read_back(batch, Samples.from_texts([[text] for text in captions])) if rows else []
    return [of_picture[0] for of_picture in found] or None


def _said(read: ReadBack) -> dict[str, object]:
    return {"said": read.said, "abstained": read.abstained, "right": read.said == read.answer}
