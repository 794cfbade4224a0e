"""What shows that a captioner degenerates, of the captions of one training step: the numbers that monitors watch."""

from collections.abc import Sequence

from capkit.errors import UsageError
from capkit.metrics.diversity import distinct, has_bad_ending, repetition
from capkit.text.checked import checked_texts
from capkit.text.ptb import ptb_words


def sample_numbers(texts: Sequence[str]) -> dict[str, float]:
    """`repetition`, `bad_endings` (shares of 0 .. 1), `length` (words): means over captions; `distinct_2` of all of
    them together.

    They are what `Diversity` and the rewards of these names compute, of PTB words; each caption is tokenised by itself.
    An empty caption has 0 of each and counts. `distinct_2` falls with the number of captions: compare runs of one size
    of step, and steps of one run. Raises UsageError where there is no caption.
    """
    if not texts:
        raise UsageError("sample_numbers wants the captions of a step; got none")
    captions = [ptb_words(text) for text in checked_texts(texts, "texts")]
    count = len(captions)
    return {
        "repetition": sum(map(repetition, captions)) / count,
        "distinct_2": distinct(captions, 2),
        "bad_endings": sum(map(has_bad_ending, captions)) / count,
        "length": sum(map(len, captions)) / count,
    }
