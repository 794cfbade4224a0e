"""Fast path for lines of plain words of a-z, each of which is one token."""

import re

from capkit.text.ptb.grammar import FRAGMENTS, RULES

# Words like "cannot" are two tokens; the period after abbreviations like "etc" is part of the word.
_TWO_TOKENS = "|".join(
    f"(?:{rule.body}){rule.context}"
    for rule in RULES
    if rule.context.isalpha() and rule.context.islower() and rule.body.replace("|", "").isalpha()
)


def _written_out(pattern: str) -> str:
    """Expand the fragments and lower-case: rejects more words than the case-sensitive grammar would."""
    while (inner := re.sub(r"\{([A-Z]\w*)\}", lambda name: f"({FRAGMENTS[name[1]]})", pattern)) != pattern:
        pattern = inner
    return pattern.lower()


_ABBREVIATION = _written_out(r"{FINAL}|{INITIAL}\.|{NUMBERED}")
_PLAIN = re.compile(
    rf"(?:(?!(?:{_TWO_TOKENS})\b)[a-z]++,? )*+(?!(?:{_TWO_TOKENS})\b|{_ABBREVIATION})[a-z]++\.? *", re.ASCII
)


def plain_tokens(line: str) -> str | None:
    """The tokens of a line of plain words, optionally with commas and a final period; None for any other line.

    They do not depend on the next line. New words cost no more than known ones.
    """
    if not line.isascii():  # Python lower-cases the Kelvin sign to k
        return None
    text = line.lower()
    return text.rstrip(". ").replace(",", "") if _PLAIN.fullmatch(text) else None
