"""What the answers to a question say of it: whether it stays, goes, or cannot be judged yet.

A vote is the text of the option that was chosen, "" for a reply that is no option, None for a call that failed. A
failed call could have been right or wrong: a question is judged only where both come to the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from capkit.curation.questions import NO_OPTION

Vote = str | None
Verdict = Literal["keep", "drop", "review", "undecided"]
AMBIGUOUS = "The question can be read in several ways, or several options are right"
NOT_ANSWERABLE = "The image does not tell"
UNSUITABLE = "The question is not one for a caption: general knowledge, taste or guessing"
NONE_OF_THEM = "None of the options is right"
WAYS_OUT = (AMBIGUOUS, NOT_ANSWERABLE, UNSUITABLE, NONE_OF_THEM)
# Of ten answers, how many right ones show that the text alone is enough, by the number of options: CaptionQA's.
_BLIND_SHARES = {2: 10, 3: 8, 4: 7}
_BLIND_LEAST = 6


@dataclass(frozen=True)
class Right:
    """How many of `total` answers are right for certain, and how many could be."""

    least: int
    most: int
    total: int


def count_right(votes: Sequence[Vote], answer: str) -> Right:
    """By the texts of options: an answer "Blue" is right where "Blue" was chosen, whatever its letter."""
    least = sum(vote == answer for vote in votes)
    return Right(least, least + sum(vote is None for vote in votes), len(votes))


def by_pictures(right: Right, above: float) -> Verdict:
    """Keep what is answered with the picture: accuracy above `above` (CapRL: .75, so all of four)."""
    return _decided(right.least > above * right.total, right.most <= above * right.total)


def by_text(right: Right, below: float) -> Verdict:
    """Keep what is not answered without the picture: accuracy below `below` (CapRL: .25, so none of four)."""
    return _decided(right.most < below * right.total, right.least >= below * right.total)


def blind_limit(num_choices: int, num_samples: int) -> int:
    """How many right answers of `num_samples` drop a question: all, .8, .7, .6 of them for 2, 3, 4, 5 and more."""
    return -(-_BLIND_SHARES.get(num_choices, _BLIND_LEAST) * num_samples // 10)


def by_blind_samples(right: Right, num_choices: int) -> Verdict:
    """Keep what a language model does not guess (CaptionQA)."""
    limit = blind_limit(num_choices, right.total)
    return _decided(right.most < limit, right.least >= limit)


def by_two(first: Vote, second: Vote, answer: str) -> Verdict:
    """Of two models that see: the same right option keeps, a way out of both drops, all else is for a person.

    Deliberate difference from CaptionQA's program: (1) a failed call is no way out (there it was "ambiguous").
    """
    if first is None or second is None:
        return "undecided"
    if first in WAYS_OUT and second in WAYS_OUT:
        return "drop"
    return "keep" if first == second == answer != NO_OPTION else "review"


def _decided(is_kept: bool, is_dropped: bool) -> Verdict:
    return "keep" if is_kept else "drop" if is_dropped else "undecided"
