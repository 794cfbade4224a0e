"""What a reply must be, read strictly: whatever else the model said is Unparsable, never a value.

A reader's `read` takes the whole reply. `schema` is the JSON schema for servers that can be held to one; None where the
reply is not JSON.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, runtime_checkable

from capkit.errors import UsageError
from capkit.text.caption_text import clean_text

_FENCED = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL)
_BOX = r"\boxed{"
_NUMBERED = re.compile(r"(\d+)[.)]\s+(.*\S)\s*")
# How English-speaking models decline. Anchored: captions do not begin so.
_REFUSAL = re.compile(
    r"(?:i['’]?m|i am) (?:so |very |really )?(?:sorry|unable)\b|sorry[,.!]|i apologi[sz]e\b|as an ai\b|"
    r"(?:unfortunately,? )?i (?:can ?not|can['’]t|won['’]t|am not able to|could not|couldn['’]t)\b|"
    r"(?:i['’]?m|i am) not able to\b",
    re.IGNORECASE,
)


class Unparsable(Exception):
    """A reply in the wrong format; the message is the reason."""


@runtime_checkable
class Reply(Protocol):
    """Reads replies of one form.

    Optional: `example()`, a value that `read` could give, its texts as long as they may be, for runs that ask nothing;
    `reads_cut`, true where a reply that was cut at the model's `max_tokens` is read as well: without, it is no answer.
    """

    def read(self, text: str) -> Any:
        """The value that the reply states. Raises Unparsable for a reply of any other form."""
        ...

    def schema(self) -> dict[str, Any] | None: ...


@runtime_checkable
class Field(Protocol):
    """Reads one value of a JSON object. Optional: `example()`, as of `Reply`."""

    def take(self, value: Any) -> Any:
        """The value, checked. Raises Unparsable."""
        ...

    def field_schema(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Text:
    """Text of at most `max_words` words, on one line: not empty, no code block, no JSON and no refusal (in English).

    JSON: what begins as an object, whole or cut off, and a whole list.
    """

    max_words: int

    def read(self, text: str) -> str:
        if "```" in text:
            raise Unparsable("a code fence, expected text")
        if text.strip().startswith("{"):
            raise Unparsable("a JSON object, expected text")
        if _is_list(text):
            raise Unparsable("a JSON list, expected text")
        found = clean_text(text)
        if not any(letter.isalnum() for letter in found):
            raise Unparsable("it is empty")
        if _REFUSAL.match(found):
            raise Unparsable("a refusal")
        if (num_words := len(found.split())) > self.max_words:
            raise Unparsable(f"{num_words} words, more than max_words={self.max_words}")
        return found

    def schema(self) -> None:
        return None

    def take(self, value: Any) -> str:
        if not isinstance(value, str):
            raise Unparsable(f"expected a text, got {json.dumps(value)[:80]}")
        return self.read(value)

    def field_schema(self) -> dict[str, Any]:
        return {"type": "string"}

    def example(self) -> str:
        return " ".join(["word"] * self.max_words)


def _is_list(text: str) -> bool:
    try:
        return isinstance(json.loads(text), list)
    except ValueError:
        return False


@dataclass(frozen=True)
class WholeNumber:
    """A whole number from `low` to `high`, in digits, and nothing else."""

    low: int
    high: int

    def read(self, text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,9}", text.strip()):
            _expected(f"a whole number from {self.low} to {self.high} and nothing else", text)
        return self.take(int(text))

    def schema(self) -> None:
        return None

    def take(self, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not self.low <= value <= self.high:
            raise Unparsable(f"expected a whole number from {self.low} to {self.high}, got {json.dumps(value)[:80]}")
        return value

    def field_schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.low, "maximum": self.high}

    def example(self) -> int:
        return self.low


@dataclass(frozen=True)
class YesNo:
    """ "yes" or "no", in any case, with or without a full stop: True or False. In JSON, true or false."""

    def read(self, text: str) -> bool:
        found = text.strip().removesuffix(".").lower()
        if found not in ("yes", "no"):
            _expected("yes or no and nothing else", text)
        return found == "yes"

    def schema(self) -> None:
        return None

    def take(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise Unparsable(f"expected true or false, got {json.dumps(value)[:80]}")
        return value

    def field_schema(self) -> dict[str, Any]:
        return {"type": "boolean"}

    def example(self) -> bool:
        return True


@dataclass(frozen=True)
class Choice:
    """One of a few words, in any case, with or without a full stop."""

    words: tuple[str, ...]

    def read(self, text: str) -> str:
        found = text.strip().removesuffix(".").lower()
        if found not in self.words:
            _expected(f"one of {', '.join(self.words)} and nothing else", text)
        return found

    def schema(self) -> None:
        return None

    def take(self, value: Any) -> str:
        if not isinstance(value, str) or value.lower() not in self.words:
            raise Unparsable(f"expected one of {', '.join(self.words)}, got {json.dumps(value)[:80]}")
        return value.lower()

    def field_schema(self) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.words)}

    def example(self) -> str:
        return max(self.words, key=len)


@dataclass(frozen=True)
class Letter:
    """One capital of `letters`: "B", "B.", "B)" or "(B)", and nothing else."""

    letters: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Z]+", self.letters) or len(set(self.letters)) < len(self.letters):
            raise UsageError(f"letters must be different capitals such as 'ABC'; got {self.letters!r}")

    def read(self, text: str) -> str:
        found = re.fullmatch(r"\(?([A-Z])(?:(?<=\(.)\)|(?<!\(.)[.)]?)", text.strip())
        if found is None or found[1] not in self.letters:
            _expected(f"one letter of {', '.join(self.letters)} and nothing else", text)
        return found[1]

    def schema(self) -> None:
        return None

    def take(self, value: Any) -> str:
        if not isinstance(value, str) or value not in tuple(self.letters):
            raise Unparsable(f"expected one letter of {', '.join(self.letters)}, got {json.dumps(value)[:80]}")
        return value

    def field_schema(self) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.letters)}

    def example(self) -> str:
        return self.letters[0]


@dataclass(frozen=True)
class TextList:
    """In JSON: a list of `min_items` to `max_items` texts of at most `max_words` words each."""

    max_words: int
    min_items: int = 0
    max_items: int = 100

    def take(self, value: Any) -> list[str]:
        if not isinstance(value, list):
            raise Unparsable(f"expected a list, got {json.dumps(value)[:80]}")
        _check_count(len(value), self.min_items, self.max_items, "texts")
        return [Text(self.max_words).take(item) for item in value]

    def field_schema(self) -> dict[str, Any]:
        return {
            "type": "array", "items": {"type": "string"}, "minItems": self.min_items, "maxItems": self.max_items,
        }  # fmt: skip

    def example(self) -> list[str]:
        return [Text(self.max_words).example()] * max(self.min_items, 1)


@dataclass(frozen=True)
class ObjectList:
    """In JSON: a list of at most `max_items` objects with these fields: dicts of their values."""

    fields: Mapping[str, Field]
    max_items: int = 100

    def take(self, value: Any) -> list[dict[str, Any]]:
        if not isinstance(value, list):
            raise Unparsable(f"expected a list, got {json.dumps(value)[:80]}")
        _check_count(len(value), 0, self.max_items, "objects")
        return [JSONObject(self.fields).take(item) for item in value]

    def field_schema(self) -> dict[str, Any]:
        return {"type": "array", "items": JSONObject(self.fields).schema(), "maxItems": self.max_items}

    def example(self) -> list[dict[str, Any]]:
        return [JSONObject(self.fields).example()]


@dataclass(frozen=True)
class JSONObject:
    """One JSON object with these fields and no text around it: a dict of their values.

    Other fields are ignored, or with `others=False` refused. One code fence around the whole object is ignored.
    """

    fields: Mapping[str, Field]
    others: bool = True

    def read(self, text: str) -> dict[str, Any]:
        fenced = _FENCED.fullmatch(text.strip())
        try:
            row = json.loads(fenced[1] if fenced else text, object_pairs_hook=_without_repeats)
        except (ValueError, RecursionError) as error:
            raise Unparsable("not one JSON object") from error
        return self.take(row)

    def take(self, row: Any) -> dict[str, Any]:
        if not isinstance(row, dict):
            raise Unparsable(f"expected a JSON object with {self._names()}, got {type(row).__name__}")
        if missing := [name for name in self.fields if name not in row]:
            raise Unparsable(f"expected a JSON object with {self._names()}; {', '.join(missing)} is missing")
        if not self.others and (unknown := [name for name in row if name not in self.fields]):
            raise Unparsable(f"expected a JSON object with {self._names()} and no other, got {unknown[0]!r}")
        values = {}
        for name, field in self.fields.items():
            try:
                values[name] = field.take(row[name])
            except Unparsable as problem:
                raise Unparsable(f'"{name}": {problem}') from problem
        return values

    def schema(self) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {name: field.field_schema() for name, field in self.fields.items()},
            "required": list(self.fields),
            "additionalProperties": False,
        }

    def example(self) -> dict[str, Any]:
        return {name: example_of(field) for name, field in self.fields.items()}

    def _names(self) -> str:
        return ", ".join(f'"{name}"' for name in self.fields)


@dataclass(frozen=True)
class JSONField:
    """The one field of a JSON object, by itself: JSONField("caption", Text(150)) reads {"caption": "a dog"}."""

    name: str
    field: Field

    def read(self, text: str) -> Any:
        return JSONObject({self.name: self.field}).read(text)[self.name]

    def schema(self) -> dict[str, Any]:
        return JSONObject({self.name: self.field}).schema()

    def example(self) -> Any:
        return example_of(self.field)


@dataclass(frozen=True)
class Numbered:
    """One JSON object with a value for each number from "1" to `count`, and no other: the values, in order."""

    count: int
    field: Field

    def read(self, text: str) -> list[Any]:
        numbers = [str(number) for number in range(1, self.count + 1)]
        values = JSONObject(dict.fromkeys(numbers, self.field), others=False).read(text)
        return [values[number] for number in numbers]

    def schema(self) -> dict[str, Any]:
        return JSONObject({str(number): self.field for number in range(1, self.count + 1)}).schema()

    def example(self) -> list[Any]:
        return [example_of(self.field)] * self.count


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
            _expected(f"<{self.tag}> and </{self.tag}> once, with the text between them", text)
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
            _expected(rf"the answer in {_BOX}...}}", text)
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
                _expected(f'line {number} to be "{number}. ..." and no other lines', line)
            found.append(Text(self.max_words).read(matched[2]))
        _check_count(len(found), self.min_lines, self.max_lines, "lines")
        return found

    def schema(self) -> None:
        return None

    def example(self) -> list[str]:
        return [Text(self.max_words).example()] * max(self.min_lines, 1)


def example_of(reader: Reply | Field) -> Any:
    """The reader's example. Raises UsageError if it has none."""
    if not hasattr(reader, "example"):
        raise UsageError(
            f"dry_run=true goes on with an example of each reply, and {type(reader).__name__} has none; give it "
            "example()"
        )
    return reader.example()


def _expected(what: str, text: str) -> NoReturn:
    raise Unparsable(f"expected {what}, got {text[:80]!r}" if text.strip() else "it is empty")


def _check_count(number: int, low: int, high: int, what: str) -> None:
    if not low <= number <= high:
        raise Unparsable(f"expected {low} to {high} {what}, got {number}")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("a name stands twice")
    return row
