"""[reference], [caption_1] and [caption_2]: which caption is better, as a reason and a verdict."""

from collections.abc import Callable

from capkit.judges.pairwise import Judgement
from capkit.judges.verdict_reply import reply_of
from capkit.llm.base import Answer
from capkit.sceneworld.chat.sections import Sections
from capkit.sceneworld.metrics.fact_agreement import fact_f1


def judged_by_reference(given: Sections) -> Answer:
    """By the facts that each shares with the reference."""
    return Answer(
        reply_of(better(given["caption_1"], given["caption_2"], lambda text: fact_f1(text, given["reference"])))
    )


def better(a: str, b: str, quality: Callable[[str], float], tie_below: float = 0.0) -> Judgement:
    """The caption with the higher fact F1; a tie where they are closer than `tie_below`, or equal."""
    first, second = quality(a), quality(b)
    reason = f"fact F1 {first:.3f} against {second:.3f}"
    if first == second or abs(first - second) < tie_below:
        return Judgement("tie", reason)
    return Judgement("a" if first > second else "b", reason)
