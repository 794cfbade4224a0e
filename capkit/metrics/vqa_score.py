"""How well an open answer agrees with those of several people: by spelling, and as VQA counts."""

from collections import Counter
from collections.abc import Sequence

from capkit.metrics.short_answers import edits

_LEFT_OUT = {"a", "an", "the", "to", ""}
_BEST = 3


def cleaned(answer: str) -> str:
    """An answer in lower case, without full stops, commas, articles and "to"."""
    words = answer.lower().replace(".", "").replace(",", "").split(" ")
    return " ".join(word for word in map(str.strip, words) if word not in _LEFT_OUT)


def soft_score(answer: str, golds: Sequence[str]) -> float:
    """Mean over the three gold answers that agree best of 1 - character error rate, 0 to 1 (PromptCap, 2211.09699).

    The error rate is edits / letters of the gold answer, at most 1. Deliberate differences from PromptCap's program:
    (1) gold answers are cleaned as answers are; (2) the mean of fewer than three is over their number, where the
    program divides by three; (3) an answer with more wrong letters than the gold one has counts 0 there, not below.
    """
    if not golds:
        raise ValueError("expected a gold answer at least, got none")
    best = sorted((_agreement(cleaned(answer), cleaned(gold)) for gold in golds), reverse=True)[:_BEST]
    return sum(best) / len(best)


def hard_score(answer: str, golds: Sequence[str]) -> float:
    """VQA's accuracy as PromptCap's program counts it: .3 for each equal gold answer, at most 1; both are cleaned."""
    return min(1.0, 0.3 * sum(cleaned(answer) == cleaned(gold) for gold in golds))


def majority(answers: Sequence[str]) -> str:
    """The most frequent answer; of equally frequent ones the first (the program takes the last)."""
    return Counter(answers).most_common(1)[0][0]


def _agreement(answer: str, gold: str) -> float:
    if not gold:
        return float(not answer)
    return max(0.0, 1 - edits(answer, gold) / len(gold))
