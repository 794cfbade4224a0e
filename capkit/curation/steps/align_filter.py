"""ALIGN's minimal filter of noisy image and alt-text pairs (Jia et al. 2021, section 3.1).

Each rule is a predicate of one image or one text, and of counts over all records. So it takes two passes: one counts,
one filters.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from capkit.data.records import Record
from capkit.errors import UsageError
from capkit.text.caption_text import clean_text
from capkit.utils.rng import stable_hash

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
    `common`: the most frequent unigrams and bigrams.
    """

    texts_of_image: Counter[str] = field(default_factory=Counter)
    images_of_text: Counter[str] = field(default_factory=Counter)
    common: set[str] = field(default_factory=set)


class AlignFilter:
    """Records without the images and alt-texts that break a rule; a record without a text left is dropped.

    `AlignFilter()(lambda: read_manifest(path))`: the argument gives all records anew each time it is called, which is
    twice. Metadata of each record holds `width` and `height` in pixels. `dropped` counts what was taken out by the
    first rule that applied: small, aspect, texts_per_image; images_per_text, words, rare.

    An image goes where its shorter side is below `min_side`, its aspect above `max_aspect`, or it has more than
    `max_texts_per_image` alt-texts. A text goes where more than `max_images_per_text` images share it, where it has
    fewer than `min_words` or more than `max_words` words, or a word or pair of words that is not among the `num_common`
    most frequent ones of all records. The defaults are the paper's; its removal of near-duplicates of test images is
    not part of this.

    All n-grams are counted in memory: some 100 bytes for each different one.
    """

    def __init__(
        self,
        min_side: int = 200,
        max_aspect: float = 3.0,
        max_texts_per_image: int = 1000,
        max_images_per_text: int = 10,
        min_words: int = 3,
        max_words: int = 20,
        num_common: int = 100_000_000,
    ) -> None:
        counts = (min_side, max_texts_per_image, max_images_per_text, min_words, num_common)
        if min(counts) < 1 or max_aspect < 1:
            raise UsageError(
                "min_side, max_aspect, max_texts_per_image, max_images_per_text, min_words and num_common must be 1 or "
                f"more; got {min_side}, {max_aspect}, {max_texts_per_image}, {max_images_per_text}, {min_words}, "
                f"{num_common}"
            )
        if max_words < min_words:
            raise UsageError(f"max_words must not be below min_words={min_words}; got {max_words}")
        self.min_side, self.max_aspect, self.max_texts_per_image = min_side, max_aspect, max_texts_per_image
        self.max_images_per_text, self.num_common = max_images_per_text, num_common
        self.min_words, self.max_words = min_words, max_words
        self.dropped: Counter[str] = Counter()

    def __call__(self, records: Callable[[], Iterable[Record]]) -> Iterator[Record]:
        counts = self.count(records())
        self.dropped = Counter()
        for record in records():
            reason = self.image_fault(record, counts)
            if reason is not None:
                self.dropped[reason] += 1
                continue
            kept = [caption for caption in record.captions if self._keeps(caption.text, counts)]
            if kept:
                yield replace(record, captions=kept)

    def count(self, records: Iterable[Record]) -> Counts:
        """The first pass."""
        counts = Counts()
        ngrams: Counter[str] = Counter()
        seen: set[int] = set()
        for record in records:
            name = _name(record)
            for caption in record.captions:
                counts.texts_of_image[name] += 1
                ngrams.update(ngrams_of(caption.text))
                text = _text_key(caption.text)
                if (pair := stable_hash(name, text)) not in seen:
                    seen.add(pair)
                    counts.images_of_text[text] += 1
        counts.common = set(_most_frequent(ngrams, self.num_common))
        return counts

    def image_fault(self, record: Record, counts: Counts) -> str | None:
        """The first rule that the image breaks."""
        width, height = _size(record)
        if not is_large_enough(width, height, self.min_side):
            return "small"
        if not is_well_proportioned(width, height, self.max_aspect):
            return "aspect"
        return "texts_per_image" if counts.texts_of_image[_name(record)] > self.max_texts_per_image else None

    def text_fault(self, text: str, counts: Counts) -> str | None:
        """The first rule that the text breaks."""
        if counts.images_of_text[_text_key(text)] > self.max_images_per_text:
            return "images_per_text"
        if not has_length(text, self.min_words, self.max_words):
            return "words"
        return None if is_made_of_common_words(text, counts.common) else "rare"

    def _keeps(self, text: str, counts: Counts) -> bool:
        reason = self.text_fault(text, counts)
        if reason is not None:
            self.dropped[reason] += 1
        return reason is None


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
    try:
        return int(record.metadata["width"]), int(record.metadata["height"])
    except KeyError as error:
        raise UsageError(
            f"align_filter: metadata of {record.key!r} has no {error.args[0]!r}; give width and height in pixels"
        ) from error
