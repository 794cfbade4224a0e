"""Verdicts on two captions as CapArena's models give them and its files have them: six strings and no others."""

import re
from dataclasses import dataclass

from capkit.judges.pairwise import Judgement, Verdict
from capkit.llm.replies import Unparsable

STRINGS: dict[str, Verdict] = {
    "Caption 1 is better": "a",
    "Caption 1 is better.": "a",
    "Caption 2 is better": "b",
    "Caption 2 is better.": "b",
    "Tie": "tie",
    "Tie.": "tie",
}
WRITTEN: dict[Verdict, str] = {"a": "Caption 1 is better", "b": "Caption 2 is better", "tie": "Tie"}
_FORM = re.compile(r"\s*Reason:\s*(.+?)\s+Judgment:\s*(.+?)\s*", re.DOTALL)


@dataclass(frozen=True)
class VerdictReply:
    """ "Reason: ..." and then "Judgment: " with one of the six strings: a Judgement.

    Whatever else stands there is no verdict; "Caption 1 is slightly better" is none, nor is anything with a 1 in it.
    """

    def read(self, text: str) -> Judgement:
        found = _FORM.fullmatch(text)
        if found is None:
            raise Unparsable(f'expected "Reason: ..." and then "Judgment: ...", got {text[-80:]!r}')
        if found[2] not in STRINGS:
            raise Unparsable(f'expected "Judgment: " with one of {", ".join(WRITTEN.values())}; got {found[2][:80]!r}')
        return Judgement(STRINGS[found[2]], found[1])

    def schema(self) -> None:
        return None

    def example(self) -> Judgement:
        return Judgement("tie", "both say the same")


def reply_of(judgement: Judgement) -> str:
    """The reply that says so. It needs a verdict."""
    assert judgement.verdict is not None
    return f"Reason: {judgement.reason}\nJudgment: {WRITTEN[judgement.verdict]}"
