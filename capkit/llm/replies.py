"""What a reply must be, read strictly: whatever else the model said is Unparsable, never a value.

A reader's `read` takes the whole reply. `schema` is the JSON schema for servers that can be held to one; None where the
reply is not JSON. Here are replies of one value; `json_replies.py` has those in JSON, `marked_replies.py` texts among
others.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, runtime_checkable

from capkit.errors import UsageError
from capkit.text.caption_text import clean_text
from capkit.utils.renamed import moved_names

__getattr__ = moved_names(__name__)  # readers of JSON and of marked texts were here

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
            expected(f"a whole number from {self.low} to {self.high} and nothing else", text)
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
            expected("yes or no and nothing else", text)
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
            expected(f"one of {', '.join(self.words)} and nothing else", text)
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
            expected(f"one letter of {', '.join(self.letters)} and nothing else", text)
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


def example_of(reader: Reply | Field) -> Any:
    """The reader's example. Raises UsageError if it has none."""
    if not hasattr(reader, "example"):
        raise UsageError(
            f"dry_run=true goes on with an example of each reply, and {type(reader).__name__} has none; give it "
            "example()"
        )
    return reader.example()


def expected(what: str, text: str) -> NoReturn:
    """Raises Unparsable: the reply's `text` is not what was expected."""
    raise Unparsable(f"expected {what}, got {text[:80]!r}" if text.strip() else "it is empty")


def check_count(number: int, low: int, high: int, what: str) -> None:
    """Raises Unparsable unless `number` is from `low` to `high`."""
    if not low <= number <= high:
        raise Unparsable(f"expected {low} to {high} {what}, got {number}")
