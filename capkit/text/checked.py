"""Validate the inputs of text metrics: captions as a list of texts, references as a list of lists of texts.

A wrong structure rarely fails by itself: a text instead of a list is iterated by letter and still gets a score.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from capkit.errors import UsageError


class ScoreWarning(UserWarning):
    """A score is correct but of little meaning, since the metric was not designed for this input."""


def checked_texts(texts: Iterable[str], name: str) -> list[str]:
    """The texts, e.g. one caption per image, as a list. Raises UsageError naming the wrong entry for anything else."""
    listed = _listed(texts, name, "a list of texts")
    if set(map(type, listed)) - {str}:  # the set of types first: isinstance on each text is noticeably slower
        for index, text in enumerate(listed):
            checked_text(text, f"{name}[{index}]")
    return listed


def checked_references(references: Iterable[Iterable[str]], name: str = "references") -> list[list[str]]:
    """The references of each image, as a list of lists. Raises UsageError naming the wrong entry for anything else."""
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
    """Raise UsageError if a caption is not split into words, since letters would be counted as words."""
    if isinstance(words, str):
        raise _unexpected(name, "a caption as a list of words", words, "cut it, such as ptb_words(caption)")


def _listed(values: Any, name: str, expected: str) -> list[Any]:
    """Any ordered collection, including numpy's and pandas', as a list."""
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
    """Validate the arguments of a metric's `update`. Raises UsageError for wrong types and unequal lengths.

    An image may have no references, since not every metric needs them.
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
