"""Lines that need no automaton: words of a-z, each of them one token."""

import re

from capkit.text.ptb.grammar import FRAGMENTS, RULES

# "cannot" and its like are two tokens; the period after "etc" belongs to the word.
_TWO_TOKENS = "|".join(
    f"(?:{rule.body}){rule.context}"
    for rule in RULES
    if rule.context.isalpha() and rule.context.islower() and rule.body.replace("|", "").isalpha()
)


def _written_out(pattern: str) -> str:
    """Lower-case, with the fragments put in: refuses more than the grammar, where case counts."""
    while (inner := re.sub(r"\{([A-Z]\w*)\}", lambda name: f"({FRAGMENTS[name[1]]})", pattern)) != pattern:
        pattern = inner
    return pattern.lower()


_ABBREVIATION = _written_out(r"{FINAL}|{INITIAL}\.|{NUMBERED}")
_PLAIN = re.compile(
    rf"(?:(?!(?:{_TWO_TOKENS})\b)[a-z]++,? )*+(?!(?:{_TWO_TOKENS})\b|{_ABBREVIATION})[a-z]++\.? *", re.ASCII
)


def plain_tokens(line: str) -> str | None:
    """The tokens of a line of plain words, with commas and a last period or without; None for any other line.

    They are the same whatever the next line is. Words met for the first time cost no more than others.
    """
    if not line.isascii():  # Python lower-cases the Kelvin sign to k
        return None
    text = line.lower()
    return text.rstrip(". ").replace(",", "") if _PLAIN.fullmatch(text) else None
