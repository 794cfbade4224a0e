"""ALIGN's minimal filter of noisy image and alt-text pairs (Jia et al. 2021, section 3.1).

Each rule is a predicate of one image or one text, and of what is known of all records. So it takes two passes: one
counts, one filters.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Annotated, Any

from capkit.curation.base import Records
from capkit.curation.mining.neighbors import Neighbors
from capkit.curation.mining.overlap import near_duplicates
from capkit.curation.step_bases import ReportingStep
from capkit.data.records import Record
from capkit.errors import UsageError
from capkit.text.caption_text import clean_text
from capkit.utils.ranges import PositiveInt, Range, check_ranges
from capkit.utils.rng import stable_hash

IMAGE_RULES = ("small", "aspect", "texts_per_image", "evaluation_duplicate", "not_mined")
TEXT_RULES = ("images_per_text", "words", "rare")

_WORD = re.compile(r"\w+(?:['’-]\w+)*")


def words_of(text: str) -> list[str]:
    """Unigrams: lower-cased words; punctuation is left out."""
    return _WORD.findall(clean_text(text).casefold())


def ngrams_of(text: str) -> list[str]:
    """Unigrams, and bigrams as two words with a space between."""
    words = words_of(text)
    return words + [f"{first} {second}" for first, second in pairwise(words)]


def is_large_enough(width: int, height: int, min_side: int) -> bool:
    """The shorter side has `min_side` pixels or more."""
    return min(width, height) >= min_side


def is_well_proportioned(width: int, height: int, max_aspect: float) -> bool:
    """The longer side is at most `max_aspect` times the shorter one."""
    return max(width, height) <= max_aspect * min(width, height)


def has_length(text: str, min_words: int, max_words: int) -> bool:
    return min_words <= len(words_of(text)) <= max_words


def is_made_of_common_words(text: str, common: set[str]) -> bool:
    """No unigram and no bigram of the text is rare."""
    return all(ngram in common for ngram in ngrams_of(text))


@dataclass
class Counts:
    """What the first pass finds. Images are known by `Record.image` (or the key, where there is none).

    `texts_of_image`: alt-texts of each image. `images_of_text`: different images with each text, compared word by word.
    `common`: the most frequent unigrams and bigrams. `mined`: keys of images that were mined; `duplicates`: of
    near-duplicates of evaluation images.
    """

    texts_of_image: Counter[str] = field(default_factory=Counter)
    images_of_text: Counter[str] = field(default_factory=Counter)
    common: set[str] = field(default_factory=set)
    mined: set[str] = field(default_factory=set)
    duplicates: set[str] = field(default_factory=set)


@check_ranges
class AlignFilter(ReportingStep):
    """Records without the images and alt-texts that break a rule; a record without a text left is reported and dropped.

    Metadata of each record hold `width` and `height` in pixels, which the step `image_size` writes. `counts` has how
    many images and texts each rule took out (the first one that applied), and the texts `kept`.

    An image goes where its shorter side is below `min_side`, its aspect above `max_aspect`, it has more than
    `max_texts_per_image` alt-texts, or it is a near-duplicate of an image that is evaluated on. A text goes where more
    than `max_images_per_text` images share it, where it has fewer than `min_words` or more than `max_words` words, or a
    word or pair of words that is not among the `num_common` most frequent ones of all records. The defaults are the
    paper's.

    Near-duplicates are looked for where `neighbors` and `evaluation_sets` are given: run folders of
    `capkit mine by=image`, the first of the records' own images, the others of evaluation sets, all embedded by one
    encoder. An image with a cosine above `duplicate_threshold` to any of theirs goes, and so does one that was not
    mined, since nothing is known of it.

    Two passes are made over the records, of which the first counts. All n-grams are counted in memory: some 100 bytes
    for each different one.

    Raises UsageError for records without sizes, and where not one record was mined.
    """

    name = "align_filter"
    writes_source = ""

    def __init__(
        self,
        min_side: PositiveInt = 200,
        max_aspect: Annotated[float | int, Range(1)] = 3.0,
        max_texts_per_image: PositiveInt = 1000,
        max_images_per_text: PositiveInt = 10,
        min_words: PositiveInt = 3,
        max_words: PositiveInt = 20,
        num_common: PositiveInt = 100_000_000,
        neighbors: str | None = None,
        evaluation_sets: Sequence[str] = (),
        duplicate_threshold: Annotated[float | int, Range(-1, 1)] = 0.98,
    ) -> None:
        if max_words < min_words:
            raise UsageError(f"max_words must not be below min_words={min_words}; got {max_words}")
        if (neighbors is None) != (not evaluation_sets):
            raise UsageError(
                "align_filter: expected both neighbors (run folder of `capkit mine` on these images) and "
                f"evaluation_sets (those of the sets evaluated on), or neither; got {neighbors=}, {evaluation_sets=}"
            )
        self.min_side, self.max_aspect, self.max_texts_per_image = min_side, max_aspect, max_texts_per_image
        self.max_images_per_text, self.num_common = max_images_per_text, num_common
        self.min_words, self.max_words = min_words, max_words
        self.duplicate_threshold = duplicate_threshold
        self._neighbors = None if neighbors is None else Neighbors(neighbors)
        self._evaluation_sets = [Neighbors(path) for path in evaluation_sets]
        self.counts = dict.fromkeys((*IMAGE_RULES, *TEXT_RULES, "kept"), 0)

    def fingerprint_fields(self) -> dict[str, Any]:
        numbers = {name: value for name, value in vars(self).items() if name[0] != "_" and name != "counts"}
        mined = [self._neighbors, *self._evaluation_sets] if self._neighbors is not None else []
        about = [{name: found.about[name] for name in ("keys_hash", "fingerprints")} for found in mined]
        return {**numbers, "mined": about}

    def __call__(self, records: Records) -> Iterator[Record]:
        counts = self.count(records())
        self.counts = dict.fromkeys(self.counts, 0)
        for record in records():
            reason = self.image_fault(record, counts)
            if reason is not None:
                self.counts[reason] += 1
                self._fail(record, reason)
                continue
            faults = [self.text_fault(caption.text, counts) for caption in record.captions]
            for fault in faults:
                self.counts[fault or "kept"] += 1
            kept = [caption for caption, fault in zip(record.captions, faults, strict=True) if fault is None]
            if kept:
                yield replace(record, captions=kept)
            else:
                found = ", ".join(sorted({fault for fault in faults if fault})) or "it has none"
                self._fail(record, f"no text stays: {found}")

    def count(self, records: Iterable[Record]) -> Counts:
        """The first pass."""
        counts = Counts()
        ngrams: Counter[str] = Counter()
        seen: set[int] = set()
        mined = set() if self._neighbors is None else set(self._neighbors.keys)
        for record in records:
            name = _name(record)
            if record.key in mined:
                counts.mined.add(record.key)
            for caption in record.captions:
                counts.texts_of_image[name] += 1
                ngrams.update(ngrams_of(caption.text))
                text = _text_key(caption.text)
                if (pair := stable_hash(name, text)) not in seen:
                    seen.add(pair)
                    counts.images_of_text[text] += 1
        counts.common = set(_most_frequent(ngrams, self.num_common))
        if self._neighbors is not None:
            if not counts.mined:
                raise UsageError(
                    f"align_filter: {self._neighbors.folder} has not one of these records' images; give neighbors=RUN "
                    "of `capkit mine` on the same data"
                )
            counts.duplicates = near_duplicates(self._neighbors, self._evaluation_sets, self.duplicate_threshold)
        return counts

    def image_fault(self, record: Record, counts: Counts) -> str | None:
        """The first of IMAGE_RULES that the image breaks."""
        width, height = _size(record)
        if not is_large_enough(width, height, self.min_side):
            return "small"
        if not is_well_proportioned(width, height, self.max_aspect):
            return "aspect"
        if counts.texts_of_image[_name(record)] > self.max_texts_per_image:
            return "texts_per_image"
        if record.key in counts.duplicates:
            return "evaluation_duplicate"
        return "not_mined" if self._neighbors is not None and record.key not in counts.mined else None

    def text_fault(self, text: str, counts: Counts) -> str | None:
        """The first of TEXT_RULES that the text breaks."""
        if counts.images_of_text[_text_key(text)] > self.max_images_per_text:
            return "images_per_text"
        if not has_length(text, self.min_words, self.max_words):
            return "words"
        return None if is_made_of_common_words(text, counts.common) else "rare"


def _most_frequent(ngrams: Counter[str], number: int) -> Sequence[str]:
    """Of equally frequent ones the first in the order of the alphabet."""
    if len(ngrams) <= number:
        return list(ngrams)
    return sorted(ngrams, key=lambda ngram: (-ngrams[ngram], ngram))[:number]


def _name(record: Record) -> str:
    return record.image or record.key


def _text_key(text: str) -> str:
    return " ".join(words_of(text))


def _size(record: Record) -> tuple[int, int]:
    values = [record.metadata.get(name) for name in ("width", "height")]
    if not all(isinstance(value, int) and not isinstance(value, bool) and value > 0 for value in values):
        raise UsageError(
            f"align_filter: expected width and height in pixels in the metadata of {record.key!r}, got "
            f"width={values[0]!r}, height={values[1]!r}; fill them in first: step=[image_size,align_filter]"
        )
    return values[0], values[1]  # type: ignore[return-value]
