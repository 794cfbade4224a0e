"""CIDEr-D with dictionaries of n-grams, as pycocoevalcap's scorer and the loops around it compute it, EOS as a word."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

Grams = Counter[tuple[str, ...]]
Vectors = tuple[list[dict[tuple[str, ...], float]], list[float], int]  # tf-idf by order, norms, number of bigrams


def grams_of(caption: str) -> Grams:
    words = [*caption.split(), "<eos>"]
    return Counter(tuple(words[i : i + n]) for n in range(1, 5) for i in range(len(words) - n + 1))


class PlainCiderD:
    """`frequencies[gram]`: images of the corpus with the n-gram in a reference."""

    def __init__(self, corpus: Iterable[Sequence[str]]) -> None:
        self.frequencies: dict[tuple[str, ...], float] = defaultdict(float)
        num_images = 0
        for references in corpus:
            num_images += 1
            for gram in {gram for caption in references for gram in grams_of(caption)}:
                self.frequencies[gram] += 1
        self.log_images = math.log(num_images)

    def score(self, caption: str, references: Sequence[str]) -> float:
        own = self._vectors(grams_of(caption))
        total = sum(self._similarity(own, self._vectors(grams_of(reference))) for reference in references)
        return 10 / 4 * total / len(references)

    def _vectors(self, counts: Grams) -> Vectors:
        vectors: list[dict[tuple[str, ...], float]] = [{} for _ in range(4)]
        norms, length = [0.0] * 4, 0
        for gram, count in counts.items():
            order = len(gram) - 1
            vectors[order][gram] = count * (self.log_images - math.log(max(1.0, self.frequencies.get(gram, 0.0))))
            norms[order] += vectors[order][gram] ** 2
            length += count if order == 1 else 0
        return vectors, [math.sqrt(norm) for norm in norms], length

    @staticmethod
    def _similarity(own: Vectors, other: Vectors) -> float:
        similarity = 0.0
        for mine, theirs, my_norm, their_norm in zip(own[0], other[0], own[1], other[1], strict=True):
            dot = sum(min(weight, theirs.get(gram, 0.0)) * theirs.get(gram, 0.0) for gram, weight in mine.items())
            if my_norm and their_norm:
                similarity += dot / (my_norm * their_norm)
        return similarity * math.exp(-((own[2] - other[2]) ** 2) / 72)
