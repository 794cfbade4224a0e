"""A table of words learned from pairs of translated sentences by word alignment: IBM model 1 (Brown et al. 1993).

Model 1: each word f of a translation has one word e of the sentence behind it, each equally likely, and is drawn from
t(f | e). Words without one ("de", articles) come from an empty word that each sentence has.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from capkit.errors import UsageError

Words = Sequence[str]
EMPTY = ""
"""The word behind those of a translation that no word of the sentence stands for."""


def translation_probabilities(
    pairs: Sequence[tuple[Words, Words]], iterations: int = 10
) -> dict[str, dict[str, float]]:
    """t(f | e) by e, over the words f that occur with it, by expectation maximisation from equal values.

    Brown et al. 1993, "The Mathematics of Statistical Machine Translation", section 4.1. The likelihood of model 1 has
    one maximum, so nothing is drawn.

    Args:
        pairs: (sentence, translation), each as words.
    """
    if not pairs or iterations < 1:
        raise UsageError(
            f"word alignment expected pairs of sentences and iterations >= 1; got {len(pairs)} pairs, {iterations=}"
        )
    sentences = [([EMPTY, *source], list(target)) for source, target in pairs]
    found: dict[str, dict[str, float]] = {}
    for source, target in sentences:
        for e in source:
            found.setdefault(e, {}).update(dict.fromkeys(target, 1.0))
    for _ in range(iterations):
        counts: dict[str, dict[str, float]] = {e: defaultdict(float) for e in found}
        for source, target in sentences:
            for f in target:
                total = sum(found[e][f] for e in source)
                for e in source:
                    counts[e][f] += found[e][f] / total
        found = {e: _normalised(count) for e, count in counts.items()}
    return found


def _normalised(counts: Mapping[str, float]) -> dict[str, float]:
    total = sum(counts.values())
    return {word: value / total for word, value in counts.items()}


def word_table(pairs: Sequence[tuple[Words, Words]], iterations: int = 10) -> dict[str, str]:
    """The most probable translation of each word; of equals the first by code point."""
    probabilities = translation_probabilities(pairs, iterations)
    return {
        word: min(found, key=lambda other: (-found[other], other))
        for word, found in probabilities.items()
        if word != EMPTY and found
    }
