"""OpenCHAIR (Ben-Kish et al. 2023, arXiv 2312.03631): hallucinated objects among the concrete nouns of captions."""

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from capkit.errors import UsageError
from capkit.llm.asker import Asker
from capkit.llm.base import ChatModel, Question
from capkit.llm.prompts import Prompt
from capkit.llm.replies import Choice, Reply, Unparsable
from capkit.metrics.judged import MAX_FAILED, Columns, Judged, JudgedMetric, Shown, ratio
from capkit.text.nouns import Nouns
from capkit.utils.checksums import crc32_and_size
from capkit.utils.files import write_atomically
from capkit.utils.ranges import FiniteFloat, NonNegativeInt, PositiveInt, Probability, check_ranges
from capkit.utils.text_files import read_text

IGNORED = frozenset({"painting", "drawing", "photo", "picture", "portrait", "photograph"})
ANSWERS = ("yes", "no", "unsure")
_WORD, _RATING = "Word", "Conc.M"  # columns of the published list
_COLUMNS = ("image", "object", "answer", "caption", "reference")


class LegacyAnswer:
    """As the released program reads a reply: yes if the word is in it, else no if no or not is, else unsure.

    Also of a reply that was cut.
    """

    reads_cut = True

    def read(self, text: str) -> str:
        words = re.sub("[,.;]", "", text.lower()).split()
        if "yes" in words:
            return "yes"
        if "no" in words or "not" in words:
            return "no"
        if "unsure" in words:
            return "unsure"
        raise Unparsable(f"expected a reply with yes, no or unsure, got {text[:80]!r}")

    def schema(self) -> None:
        return None

    def example(self) -> str:
        return "unsure"


def read_concreteness(file: str) -> dict[str, float]:
    """{word in small letters: rating} from lines of a word and a number, or a table with the published list's columns.

    Between them stand tabs, commas, semicolons or spaces. Raises UsageError for anything else, or a word that has two
    ratings.
    """
    lines = [line for line in read_text(file, "concreteness").splitlines() if line.strip()]
    if not lines:
        raise UsageError(f"concreteness={file!r}: expected a word and a number a line, got an empty file")
    mark = next((mark for mark in "\t,;" if mark in lines[0]), None)
    rows = [line.split() for line in lines] if mark is None else list(csv.reader(lines, delimiter=mark))
    word, rating = 0, 1
    if len(rows[0]) < 2 or _number(rows[0][1]) is None:
        header = [cell.strip() for cell in rows.pop(0)]
        missing = [name for name in (_WORD, _RATING) if name not in header]
        if missing:
            raise UsageError(
                f"concreteness={file!r}: expected lines of a word and a number, or the columns {_WORD} and {_RATING}, "
                f"got the columns {', '.join(header[:8])}; {' and '.join(missing)} missing; save the published list as "
                "text with tabs or commas"
            )
        word, rating = header.index(_WORD), header.index(_RATING)
    found: dict[str, float] = {}
    for number, row in enumerate(rows, len(lines) - len(rows) + 1):
        value = _number(row[rating]) if len(row) > max(word, rating) else None
        if value is None:
            raise UsageError(f"concreteness={file!r} line {number}: expected a word and a number, got {row[:4]}")
        name = row[word].strip().lower()
        if found.setdefault(name, value) != value:
            raise UsageError(f"concreteness={file!r} line {number}: {name!r} is rated twice, {found[name]} and {value}")
    return found


@check_ranges
class OpenCHAIR(JudgedMetric):
    """`open_chair`: of the concrete nouns of captions that a language model finds in the reference text or does not,
    the share that it does not, no / (yes + no); lower is better.

    A noun counts once a caption. Beside it stand the shares `open_chair_unsure` of those asked for, and
    `open_chair_unreadable`, which has no usable answer, and the numbers `open_chair_mentions` of nouns and
    `open_chair_pictures` of pictures with any. A caption without a concrete noun changes no number but that of such
    captions, `open_chair_without_nouns`. The reference is the first one of each picture.

    Args:
        concreteness: A file of ratings (`read_concreteness`); null: all nouns count.
        threshold: Nouns rated above it are concrete; those without a rating are not.
        legacy: A reply is read as the released program does (`LegacyAnswer`).
        retries, batch_size, cache_dir: of `Asker`.
    """

    higher_is_better = False
    needs_references = True

    def __init__(
        self,
        model: ChatModel | None = None,
        nouns: Nouns | None = None,
        concreteness: str | None = None,
        threshold: FiniteFloat = 4.5,
        prompt: str = "open_chair_v1",
        legacy: bool = False,
        name: str = "open_chair",
        max_failed: Probability = MAX_FAILED,
        retries: NonNegativeInt = 0,
        batch_size: PositiveInt = 32,
        cache_dir: str = "data/answers",
    ) -> None:
        if model is None or nouns is None:
            raise UsageError(
                "metric=open_chair needs a language model and who finds nouns; add text_lm=hf, server or scene, and "
                "nouns=spacy or scene"
            )
        self._prompt = Prompt(prompt, ["reference", "object"])
        ratings = None if concreteness is None else read_concreteness(concreteness)
        super().__init__(name, max_failed)
        self.nouns, self.legacy = nouns, legacy
        self._concrete = None if ratings is None else {word for word, rating in ratings.items() if rating > threshold}
        reply: Reply = LegacyAnswer() if legacy else Choice(ANSWERS)
        self._asker = Asker(model, cache_dir, reply, retries, batch_size=batch_size, pictures=False)
        ratings_file = None if concreteness is None else [concreteness, crc32_and_size(Path(concreteness))]
        self._about = {
            "model": model.about(), "prompt": self._prompt.fingerprint_fields(), "concreteness": ratings_file,
            "threshold": None if concreteness is None else threshold, "legacy": legacy, "retries": retries,
        }  # fmt: skip

    @property
    def askers(self) -> Mapping[str, Asker]:
        return {"objects": self._asker}

    def describe(self) -> dict[str, Any]:
        return {**self._about, "nouns": self.nouns.about()}

    def judge(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> list[Judged]:
        rows = zip(self.objects(predictions), [refs[0] for refs in references], strict=True)

        def questions(row: tuple[list[str], str]) -> Iterator[Question]:
            return (Question(self._prompt.fill(reference=row[1], object=name)) for name in row[0])

        found = []
        for (objects, _), answers in self._asker.stream(rows, questions):
            said = [answer.value if answer.text is not None else "unreadable" for answer in answers]
            counts = Counter(said)
            values = {name: float(count) for name, count in counts.items()}
            values |= {"mentions": float(len(objects)), "with_mention": float(bool(objects))}
            detail = {"mentions": [{"object": name, "answer": word} for name, word in zip(objects, said, strict=True)]}
            found.append(Judged(values, len(objects), counts["unreadable"], detail))
        return found

    def objects(self, captions: Sequence[str]) -> list[list[str]]:
        """The concrete nouns of each caption, each once, in order."""
        return [
            [noun for noun in dict.fromkeys(nouns) if noun not in IGNORED and self._is_concrete(noun)]
            for nouns in self.nouns.nouns(captions)
        ]

    def numbers(self, sums: Mapping[str, Float[np.ndarray, " R"]]) -> dict[str, Float[np.ndarray, " R"]]:
        zeros = np.zeros_like(sums["pictures"])
        yes, no, unsure, unreadable, mentions, pictures = (
            sums.get(name, zeros) for name in (*ANSWERS, "unreadable", "mentions", "with_mention")
        )
        return {
            self.name: ratio(no, yes + no),
            f"{self.name}_unsure": ratio(unsure, mentions),
            f"{self.name}_unreadable": ratio(unreadable, mentions),
            f"{self.name}_mentions": mentions,
            f"{self.name}_pictures": pictures,
            f"{self.name}_without_nouns": sums["pictures"] - pictures,
        }

    def shown(self, found: Judged) -> Shown | None:
        kinds = {"yes": "right", "no": "wrong"}
        marks: Any = [(row["object"], kinds.get(row["answer"], "open")) for row in found.detail["mentions"]]
        return Shown(-found.values.get("no", 0.0), marks) if marks else None

    def write(self, folder: Path, rows: Columns) -> list[Path]:
        """Beside the usual file `NAME_mentions.csv`, a row a noun that was asked for."""
        predictions, references, metadata = self.complete(*rows)
        file = io.StringIO(newline="")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        judged = self.judged(predictions, references, metadata)
        for caption, refs, row, found in zip(predictions, references, metadata, judged, strict=True):
            for mention in found.detail["mentions"]:
                writer.writerow([row["key"], mention["object"], mention["answer"], caption, refs[0]])
        paths = super().write(folder, rows)
        write_atomically(folder / f"{self.name}_mentions.csv", file.getvalue())
        return [*paths, folder / f"{self.name}_mentions.csv"]

    def _is_concrete(self, noun: str) -> bool:
        return self._concrete is None or noun in self._concrete


def _number(text: str) -> float | None:
    """A finite number; None for other text."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
