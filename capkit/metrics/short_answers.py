"""Whether a short answer is the wanted one: exactly, as a number within 5 %, or by ANLS."""

import re
from typing import Literal

Rule = Literal["exact", "number", "anls"]

SCALES = (1.0, 0.01, 100.0)
TOLERANCE = 0.05
ANLS_THRESHOLD = 0.5
_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def agreement(predicted: str, gold: str, rule: Rule) -> float:
    """0 to 1: that of an exact match; by "number" also of numbers; by "anls" also of like spelling.

    "number": within 5 % of the gold value at one of the scales 1, .01, 100 (per cent and shares), as ChartQA measures
    (Masry et al. 2022) and CapRL's program means to: it measures the 5 % from the prediction. "anls": the normalised
    Levenshtein similarity where it is at least .5 (Biten et al. 2019), else 0.
    """
    found = float(normalized(predicted) == normalized(gold))
    if rule != "exact":
        found = max(found, float(_is_near(predicted, gold)))
    return max(found, similarity(predicted, gold)) if rule == "anls" else found


def normalized(text: str) -> str:
    """Lower case, without signs of LaTeX and money, brackets around it, a full stop, articles, and extra spaces."""
    found = re.sub(r"\\(?:text|mathrm|mathbf|textbf)\s*{([^{}]*)}", r"\1", text).lower()
    found = re.sub(r"[$\\]|\b(?:a|an|the)\b(?=\s)", " ", found)
    return " ".join(found.split()).strip(" .()\"'")


def number(text: str) -> float | None:
    """The number that a text is; a per cent sign divides by 100. None for any other text."""
    found = normalized(text)
    is_percent = found.endswith("%")
    found = found.removesuffix("%").strip()
    if not _NUMBER.fullmatch(found):
        return None
    return float(found.replace(",", "")) / (100 if is_percent else 1)


def _is_near(predicted: str, gold: str) -> bool:
    said, wanted = number(predicted), number(gold)
    if said is None or wanted is None:
        return False
    return any(abs(scale * said - wanted) <= TOLERANCE * abs(wanted) for scale in SCALES)


def similarity(predicted: str, gold: str) -> float:
    """1 - edits / length of the longer text, 0 below .5."""
    a, b = normalized(predicted), normalized(gold)
    if not a and not b:
        return 1.0
    found = 1 - edits(a, b) / max(len(a), len(b))
    return found if found >= ANLS_THRESHOLD else 0.0


def edits(a: str, b: str) -> int:
    """Levenshtein's distance: letters to insert, delete or exchange."""
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        above, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (letter != other))
    return row[-1]
