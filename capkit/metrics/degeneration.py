"""Signs of degeneration in the captions of one training step: the numbers that monitors watch."""

from collections.abc import Sequence

from capkit.errors import UsageError
from capkit.metrics.diversity import distinct, has_bad_ending, repetition
from capkit.text.checked import checked_texts
from capkit.text.ptb import ptb_words


def sample_numbers(texts: Sequence[str]) -> dict[str, float]:
    """`repetition`, `bad_endings` (fractions), `length` (words): means over captions; `distinct_2`: over all of them.

    Computed as in `Diversity` and the rewards of these names, on PTB words; each caption is tokenised separately. Empty
    captions count, with 0 for each. `distinct_2` decreases with the number of captions: compare only runs with the same
    number of captions per step, and steps of one run. Raises UsageError without captions.
    """
    if not texts:
        raise UsageError("sample_numbers: expected the captions of a step; got none")
    captions = [ptb_words(text) for text in checked_texts(texts, "texts")]
    count = len(captions)
    return {
        "repetition": sum(map(repetition, captions)) / count,
        "distinct_2": distinct(captions, 2),
        "bad_endings": sum(map(has_bad_ending, captions)) / count,
        "length": sum(map(len, captions)) / count,
    }
