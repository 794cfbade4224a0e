"""Replies in JSON: one object, read whole or not at all."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from capkit.llm.replies import Field, Text, Unparsable, check_count, example_of

_FENCED = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL)


@dataclass(frozen=True)
class TextList:
    """In JSON: a list of `min_items` to `max_items` texts of at most `max_words` words each."""

    max_words: int
    min_items: int = 0
    max_items: int = 100

    def take(self, value: Any) -> list[str]:
        if not isinstance(value, list):
            raise Unparsable(f"expected a list, got {json.dumps(value)[:80]}")
        check_count(len(value), self.min_items, self.max_items, "texts")
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
        check_count(len(value), 0, self.max_items, "objects")
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


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("a name stands twice")
    return row
