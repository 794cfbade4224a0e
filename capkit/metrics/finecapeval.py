"""FineCapEval (Cho et al. 2022): recall of the words of fine-grained human phrases."""

import csv
import io
import re
from collections import defaultdict
from typing import Any

from capkit.errors import UsageError
from capkit.metrics.text_metric import TextMetric
from capkit.text.porter import porter_stem
from capkit.text.ptb import ptb_tokenize
from capkit.utils.text_files import read_text

ASPECTS = ("background", "object", "relation")
_COLUMNS = ("image", "caption", *ASPECTS)
_PHRASE_END = "\\;"  # the file escapes the semicolon with a backslash
_ABSENT = {"", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "None", "NULL", "null", "<NA>"}  # missing values of pandas
_BRACKETS = {"-lrb-", "-rrb-", "-lsb-", "-rsb-", "-lcb-", "-rcb-"}  # PTB tokens of ( ) [ ] { }

Phrases = list[list[str]]  # stemmed words of each phrase


def stems(text: str) -> list[str]:
    """PTB tokens without punctuation, Porter-stemmed: the form of phrases, and of captions unless `legacy`."""
    tokens = (word for word in ptb_tokenize([text])[0].split() if word not in _BRACKETS)
    words = (re.sub(r"[^a-zA-Z0-9]", "", porter_stem(word)) for word in tokens)
    return [word for word in words if word]


def phrase_recall(caption: str, phrases: Phrases, legacy: bool = False) -> float:
    """Mean over phrases of the fraction of their words in the caption; 0 without phrases.

    A word counts if its stem is among the caption's stems. With `legacy`, as published, it counts if its stem is a
    substring of the raw caption: "car" is found in "a carpet", and a capital or another ending hides a word.
    """
    held: str | set[str] = caption if legacy else set(stems(caption))
    recalls = [sum(word in held for word in phrase) / len(phrase) if phrase else 0.0 for phrase in phrases]
    return sum(recalls) / len(recalls) if recalls else 0.0


def read_finecapeval(file: str) -> dict[str, dict[str, Phrases]]:
    """{image without its extension: {aspect: phrases}} from the data set's CSV. Rows with a missing column are skipped.

    Raises UsageError for a file that cannot be read or lacks a column.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(file, "file must be FineCapEval's CSV"), newline="")))
    except csv.Error as error:
        raise UsageError(f"file={file!r} must be FineCapEval's CSV: {error}") from error
    missing = [column for column in _COLUMNS if not rows or column not in rows[0]]
    if missing:
        raise UsageError(f"file={file!r}: expected columns {', '.join(_COLUMNS)}; it lacks {', '.join(missing)}")
    images: dict[str, dict[str, Phrases]] = defaultdict(lambda: {aspect: [] for aspect in ASPECTS})
    for row in rows:
        if any(row[column] is None or row[column] in _ABSENT for column in _COLUMNS):
            continue
        for aspect in ASPECTS:
            phrases = row[aspect].lower().split(_PHRASE_END)
            images[row["image"].split(".")[0]][aspect] += [stems(phrase) for phrase in phrases if len(phrase) > 1]
    return dict(images)


class FineCapEval(TextMetric):
    """`finecapeval_background`, `_object` and `_relation`: mean recall over captions, between 0 and 1.

    `file` is the data set's CSV (columns image, caption, background, object, relation). metadata "key" names the image
    as in the CSV, with or without extension; references are not used. `finecapeval_images` is the number of images
    scored (500 in the whole set). The published program multiplies by 100.
    """

    def __init__(self, file: str, legacy: bool = False) -> None:
        phrases = read_finecapeval(file)
        super().__init__()
        self.file, self.legacy, self.phrases = file, legacy, phrases

    def score(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> dict[str, float]:
        keys = [str(row.get("key")).split(".")[0] for row in metadata]
        captions = sorted(set(zip(keys, predictions, strict=True)))
        unknown = [key for key in keys if key not in self.phrases]
        if unknown:
            raise UsageError(
                f"{len(unknown)} captioned images are not in {self.file!r}, such as {unknown[0]!r}; metadata 'key' "
                f"must name the image as its column 'image' does, such as {next(iter(self.phrases), 'none')!r}"
            )
        numbers = {"finecapeval_images": float(len(set(keys)))}
        for aspect in ASPECTS:
            recalls = [phrase_recall(text, self.phrases[key][aspect], self.legacy) for key, text in captions]
            numbers[f"finecapeval_{aspect}"] = sum(recalls) / len(recalls)
        return numbers
