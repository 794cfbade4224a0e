"""What a data source holds: how many pictures and captions, how long, how often the same, and what cannot be read.

N captions.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import xxhash
from jaxtyping import Int

from capkit.data.alike import small_copy
from capkit.data.files import FileSource
from capkit.data.images import BadImage
from capkit.data.sources.base import DataSource, clean_captions
from capkit.text.caption_text import clean_text
from capkit.utils.console import phase

CountTokens = Callable[[Sequence[str]], Int[np.ndarray, " N"]]
NUM_SAMPLED = 5000  # captions, evenly spaced, whose script and language are looked at
MOST_COMPARED = 20_000  # opened pictures of a split, to be compared with each other
_CHUNK = 20_000  # records whose captions are counted at once


@dataclass(frozen=True)
class Texts:
    """The captions of one split. `words` and `tokens` are of each caption, empty ones left out.

    `sampled` has evenly spaced ones with their tags: at least `NUM_SAMPLED` where there are so many pictures.
    """

    keys: list[str]
    references: list[str | None]
    num_without: int
    num_empty: int
    per_image: Int[np.ndarray, " images"]
    words: Int[np.ndarray, " N"]
    tokens: Int[np.ndarray, " N"]
    counts: Counter[str]
    languages: Counter[str]
    sampled: list[tuple[str, str]]

    @property
    def num_captions(self) -> int:
        return len(self.words)

    @property
    def num_repeated(self) -> int:
        """Captions that another one of the split is equal to, case aside, but for the first of each."""
        return self.num_captions - len(self.counts)


@dataclass(frozen=True)
class Pictures:
    """The pictures of one split that were opened: places among the records, width and height, a hash of the pixels, and
    each in small (`small_copy`), unless they are more than `MOST_COMPARED`.

    `broken` has the key and the reason of those that cannot be used.
    """

    places: list[int]
    sizes: list[tuple[int, int]]
    hashes: list[str]
    broken: list[tuple[str, str]]
    copies: list[np.ndarray]


def look_at_texts(source: DataSource, count_tokens: CountTokens, split: str) -> Texts:
    """Read every record once; no picture is opened. `count_tokens` counts those of each of many captions."""
    keys, references, per_image = [], [], []
    words, tokens = [], []
    counts: Counter[str] = Counter()
    languages: Counter[str] = Counter()
    num_empty, size = 0, len(source)
    chunk: list[str] = []
    sampled: list[tuple[str, str]] = []
    every = max(1, size // NUM_SAMPLED)

    def count() -> None:
        words.append(np.array([len(text.split()) for text in chunk], dtype=np.int64))
        tokens.append(count_tokens(chunk))
        counts.update(text.casefold() for text in chunk)
        chunk.clear()

    with phase(f"reading the captions of {split}", size) as told:
        for place in range(size):
            record = source.record(place)
            texts = clean_captions(record.captions)
            keys.append(record.key)
            references.append(record.image)
            per_image.append(len(texts))
            num_empty += len(record.captions) - len(texts)
            chunk += texts
            languages.update([caption.language for caption in record.captions])
            if texts and place % every == 0:
                tagged = [(text, own.language) for own in record.captions if (text := clean_text(own.text))]
                sampled.append(tagged[place // every % len(tagged)])
            if place % _CHUNK == _CHUNK - 1:
                count()
                told.update(place + 1)
        count()
    return Texts(
        keys,
        references,
        per_image.count(0),
        num_empty,
        np.array(per_image, dtype=np.int64),
        np.concatenate(words),
        np.concatenate(tokens),
        counts,
        languages,
        sampled,
    )


def look_at_pictures(
    source: DataSource, keys: Sequence[str], most: int | None, num_threads: int, split: str
) -> Pictures:
    """Open `most` evenly spaced pictures, or all of them; files by several threads."""
    total = len(keys)
    places = (
        list(range(total))
        if most is None
        else np.unique(np.linspace(0, total - 1, min(most, total)).astype(int)).tolist()
    )

    is_compared = len(places) <= MOST_COMPARED

    def look(place: int) -> tuple[tuple[int, int] | None, str, np.ndarray | None]:
        try:
            pixels = source.image(place)
        except BadImage as error:
            return None, str(error), None
        height, width = pixels.shape[:2]
        hashed = xxhash.xxh3_128_hexdigest(np.ascontiguousarray(pixels).data) + f" {width}x{height}"
        return (width, height), hashed, small_copy(pixels) if is_compared else None

    good, sizes, hashes, broken, copies = [], [], [], [], []
    threads = num_threads if isinstance(source, FileSource) else 1  # others may hold an open file
    with phase(f"opening pictures of {split}", len(places)) as told, ThreadPoolExecutor(threads) as pool:
        for place, (size, found, copy) in zip(places, pool.map(look, places), strict=True):
            if size is None:
                broken.append((keys[place], found))
            else:
                good.append(place)
                sizes.append(size)
                hashes.append(found)
                if copy is not None:
                    copies.append(copy)
            told.advance()
    return Pictures(good, sizes, hashes, broken, copies)


def same_in_both(first: Sequence[str | None], second: Sequence[str | None]) -> list[str]:
    """What stands in both lists, in the order of the first."""
    others = {name for name in second if name is not None}
    return list(dict.fromkeys(name for name in first if name in others and name is not None))
