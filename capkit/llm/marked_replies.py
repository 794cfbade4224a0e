"""Texts that a reply marks: between tags, in a box, on numbered lines."""

import re
from dataclasses import dataclass

from capkit.llm.replies import Text, Unparsable, check_count, expected

_BOX = r"\boxed{"
_NUMBERED = re.compile(r"(\d+)[.)]\s+(.*\S)\s*")


@dataclass(frozen=True)
class Tagged:
    """Text of at most `max_words` words between <tag> and </tag>, once each; what stands outside is ignored."""

    tag: str
    max_words: int

    def read(self, text: str) -> str:
        before, opened, rest = text.partition(f"<{self.tag}>")
        inside, closed, after = rest.partition(f"</{self.tag}>")
        marks = (f"<{self.tag}>", f"</{self.tag}>")
        if not opened or not closed or any(mark in part for mark in marks for part in (before, inside, after)):
            expected(f"<{self.tag}> and </{self.tag}> once, with the text between them", text)
        return Text(self.max_words).read(inside)

    def schema(self) -> None:
        return None

    def example(self) -> str:
        return Text(self.max_words).example()


@dataclass(frozen=True)
class Boxed:
    r"""The text in the last \boxed{...}, whose braces may nest; what stands around it is ignored."""

    max_words: int

    def read(self, text: str) -> str:
        start = text.rfind(_BOX)
        if start < 0:
            expected(rf"the answer in {_BOX}...}}", text)
        inside, depth = text[start + len(_BOX) :], 1
        for place, letter in enumerate(inside):
            depth += {"{": 1, "}": -1}.get(letter, 0)
            if not depth:
                return Text(self.max_words).read(inside[:place])
        raise Unparsable(f"{_BOX} is not closed")

    def schema(self) -> None:
        return None

    def example(self) -> str:
        return Text(self.max_words).example()


@dataclass(frozen=True)
class NumberedLines:
    """Lines "1. ...", "2. ..." (or "1) ..."), from `min_lines` to `max_lines`, in order and nothing else: their texts.

    `nothing`, if given, is what the model says where there are none: an empty list.
    """

    max_words: int
    min_lines: int = 1
    max_lines: int = 100
    nothing: str | None = None

    def read(self, text: str) -> list[str]:
        if self.nothing is not None and text.strip().removesuffix(".").lower() == self.nothing.lower():
            return []
        lines = [line for line in text.strip().splitlines() if line.strip()]
        found = []
        for number, line in enumerate(lines, 1):
            matched = _NUMBERED.fullmatch(line.strip())
            if matched is None or int(matched[1]) != number:
                expected(f'line {number} to be "{number}. ..." and no other lines', line)
            found.append(Text(self.max_words).read(matched[2]))
        check_count(len(found), self.min_lines, self.max_lines, "lines")
        return found

    def schema(self) -> None:
        return None

    def example(self) -> list[str]:
        return [Text(self.max_words).example()] * max(self.min_lines, 1)
