"""What every metric over texts takes, checked at its door: captions as a list of texts, references as a list of such.

A wrong shape rarely fails by itself: a text in place of a list is read letter by letter, and gets a number.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from capkit.errors import UsageError


class ScoreWarning(UserWarning):
    """A number is correct and still says little: what was scored is not what the metric was made for."""


def checked_texts(texts: Iterable[str], name: str) -> list[str]:
    """The texts as a list, such as captions, one per image. Raises UsageError, with the entry, for anything else."""
    listed = _listed(texts, name, "a list of texts")
    if set(map(type, listed)) - {str}:  # by type first: an isinstance of each would be felt
        for index, text in enumerate(listed):
            checked_text(text, f"{name}[{index}]")
    return listed


def checked_references(references: Iterable[Iterable[str]], name: str = "references") -> list[list[str]]:
    """References as a list of lists: those of each image. Raises UsageError, with the entry, for anything else."""
    listed = _listed(references, name, "a list of lists of texts")
    return [checked_texts(captions, f"{name}[{index}]") for index, captions in enumerate(listed)]


def checked_text(text: Any, name: str) -> str:
    """One text. Raises UsageError for anything else."""
    if isinstance(text, str):
        return text
    if isinstance(text, Mapping):
        fix = "give its caption alone, such as row['caption']"
    elif isinstance(text, Sequence) and not isinstance(text, bytes):
        fix = "give one text, such as captions[0]"
    else:
        fix = "an empty caption is ''"
    raise _unexpected(name, "a text", text, fix)


def require_words(words: Sequence[str], name: str) -> None:
    """Raises UsageError where a caption's words are not cut apart: letters would be counted as words."""
    if isinstance(words, str):
        raise _unexpected(name, "a caption as a list of words", words, "cut it, such as ptb_words(caption)")


def _listed(values: Any, name: str, expected: str) -> list[Any]:
    """Any collection that has an order, numpy's and pandas' among them, as a list."""
    if isinstance(values, str):
        raise _unexpected(name, expected, values, "put it in a list")
    if isinstance(values, Mapping):
        fix = (
            "of pycocoevalcap's dicts gts and res make lists, image by image: predictions = [res[i][0] for i in gts], "
            "references = [gts[i] for i in gts]"
        )
        raise _unexpected(name, expected, values, fix)
    if isinstance(values, bytes | set | frozenset) or not isinstance(values, Collection):
        raise _unexpected(name, expected, values, "make it a list")
    return list(values)


def _unexpected(name: str, expected: str, got: Any, fix: str) -> UsageError:
    shown = repr(got)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    return UsageError(f"{name}: expected {expected}, got {type(got).__name__} {shown}; {fix}")


def checked_rows(
    metric: str,
    predictions: Iterable[str],
    references: Iterable[Iterable[str]],
    metadata: Iterable[dict[str, Any]],
) -> tuple[list[str], list[list[str]], list[dict[str, Any]]]:
    """What a metric's `update` takes. Raises UsageError for other shapes, and for lists of unequal length.

    An image may have no references here: not every metric reads them.
    """
    captions = checked_texts(predictions, f"{metric} predictions")
    targets = checked_references(references, f"{metric} references")
    rows = _listed(metadata, f"{metric} metadata", "a list of dicts")
    if not len(captions) == len(targets) == len(rows):
        raise UsageError(
            f"{metric}: expected one list of references and one metadata dict per prediction, got {len(captions)} "
            f"predictions, {len(targets)} references, {len(rows)} metadata; give those of the same images"
        )
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise _unexpected(f"{metric} metadata[{index}]", "a dict", row, "an image without any has {}")
    return captions, targets, rows
