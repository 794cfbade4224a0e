"""Strict reading of text files that users provide: JSON, JSON lines, and the values in them.

Every reader goes through here, so that all accept the same variants (a byte order mark, JSON lines named .json, "dev"
for val) and reject the same errors: text that is not UTF-8, duplicate keys in an object, excessive nesting or integers,
values of the wrong type. Each error is a UsageError with the file and the line or entry, never a traceback.
"""

import json
import math
import re
import reprlib
import stat
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from capkit.errors import UsageError

_SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "development"),
    "test": ("test", "testing"),
}
SPLIT_OF = {spelling: split for split, spellings in _SPLITS.items() for spelling in spellings}

_TYPES: dict[str, type | tuple[type, ...]] = {
    "text": str,
    "a list": list,
    "an object": dict,
    "text or a whole number": (str, int),
    "a whole number": int,
    "a number": (int, float),
}
_SURROGATE = re.compile("[\\ud800-\\udfff]")
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxlist, _SHORT.maxdict = 2, 60, 3, 3


class Located(NamedTuple):
    """A value, and its place in the file for error messages ("captions.jsonl line 3")."""

    where: str
    value: Any


def existing_file(path: str | Path, what: str) -> Path:
    """The path of a regular file. Raises UsageError for others: reading a pipe or a device could block forever."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{what}: no file {str(path)!r} ({reason}); give the path of an existing file") from error
    if not stat.S_ISREG(mode):
        raise UsageError(f"{what}: expected a regular file, got {str(path)!r}, which is none; give the path of a file")
    return Path(path)


def read_text(path: str | Path, what: str) -> str:
    """The text of a UTF-8 file, without byte order mark, with line feeds as line ends."""
    try:
        data = existing_file(path, what).read_bytes()
    except OSError as error:
        raise UsageError(f"{what}: {str(path)!r} cannot be read ({error.strerror}); give permission") from error
    return decode(data, str(path)).replace("\r\n", "\n").replace("\r", "\n")


def decode(data: bytes, where: str, line: int = 1) -> str:
    """Decode UTF-8; `line` is the number of the first line of `data`, for error messages."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        is_utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        got = "UTF-16" if is_utf16 else f"byte 0x{data[error.start]:02x}"
        line += data.count(b"\n", 0, error.start)
        raise UsageError(f"{where} line {line}: not UTF-8, got {got}; save the file as UTF-8") from error


class NotJson(UsageError):
    """Text that is not JSON."""


def parse_json(text: str, where: str) -> Any:
    """Parse one JSON value.

    Raises UsageError for a duplicate key, nesting deeper than Python parses (1,000 levels or more), or an integer of
    more than 4,300 digits; and NotJson for text that is not JSON.
    """
    try:
        return json.loads(text, object_pairs_hook=_Object(where))
    except UsageError:
        raise
    except json.JSONDecodeError as error:
        line = f" line {error.lineno}" if "\n" in error.doc else ""
        got = f"{error.msg} at column {error.colno}" if error.doc.strip() else "it is empty"
        raise NotJson(f"{where}{line}: not JSON ({got})") from error
    except RecursionError as error:
        raise UsageError(f"{where}: lists or objects are nested too deep to be read; make them flat") from error
    except ValueError as error:  # int() refuses more than sys.get_int_max_str_digits()
        raise UsageError(
            f"{where}: a whole number of more than {sys.get_int_max_str_digits():,} digits; write it as text"
        ) from error


class _Object:
    """Builds an object from its pairs. Rejects duplicate keys, of which only the last value would survive."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __call__(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        row = dict(pairs)
        if len(row) < len(pairs):
            doubled, _ = Counter(key for key, _ in pairs).most_common(1)[0]
            raise UsageError(
                f"{self.where}: the key {shown(doubled)} stands twice in one object; keep one, with a list where there "
                "are several values"
            )
        return row


def read_json(path: str | Path, what: str) -> Any:
    """The single value in a JSON file."""
    return parse_json(read_text(path, what), str(path))


def read_json_or_lines(path: str | Path, what: str) -> list[Located]:
    """The values in a file of JSON lines, skipping blank lines; or the single value of any other JSON file.

    The content decides, not the name: JSON lines are a value in the first line followed by more lines, which no JSON
    document allows. Only in a .jsonl is an incomplete first line an error of that line.
    """
    text = read_text(path, what)
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    is_named_so = Path(path).suffix.lower() == ".jsonl"
    if not lines or not (is_named_so or (len(lines) > 1 and _is_json(lines[0][1]))):
        return [Located(str(path), parse_json(text, str(path)))]
    return [Located(f"{path} line {number}", parse_json(line, f"{path} line {number}")) for number, line in lines]


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return False
    except ValueError:  # JSON, but with an integer of too many digits
        return True
    return True


def shown(value: Any) -> str:
    """A JSON value for an error message, shortened if long."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    kind = "a list " if isinstance(value, list) else "an object " if isinstance(value, dict) else ""
    return kind + _SHORT.repr(value)


def expect(value: Any, kind: str, where: str, what: str = "") -> Any:
    """The value, if it is of that JSON type: text, a list, an object, a (whole) number, text or a whole number.

    A number is finite: NaN and Infinity are read by Python's JSON, and are none.
    """
    is_finite = not isinstance(value, float) or math.isfinite(value)
    if not isinstance(value, _TYPES[kind]) or isinstance(value, bool) or not is_finite:
        raise UsageError(f"{where}: expected {kind}{what and f' as {what!r}'}, got {shown(value)}")
    return value


def member(row: dict[str, Any], name: str, kind: str, where: str) -> Any:
    """A required member of an object, of that JSON type."""
    if name not in row:
        raise UsageError(f"{where}: no {name!r}; it has {', '.join(map(shown, list(row)[:8])) or 'nothing'}")
    return expect(row[name], kind, where, name)


def split_name(value: Any, where: str) -> str:
    """train, val or test from any usual spelling ("Train", "dev", "validation")."""
    name = expect(value, "text", where, "split").strip().lower()
    if name not in SPLIT_OF:
        raise UsageError(f"{where}: split {shown(value)} is unknown; use train, val or test")
    return SPLIT_OF[name]


def file_name(value: Any, where: str, what: str = "file") -> str:
    """A name that a file can have and UTF-8 can encode: no NUL, no half of an emoji (a lone surrogate)."""
    name = expect(value, "text", where, what)
    if not name.strip():
        raise UsageError(f"{where}: no file name; give the image's path relative to the images folder")
    if "\0" in name or has_lone_surrogate(name):
        raise UsageError(f"{where}: no file can be named {shown(name)}; give the name as the file system has it")
    return name


def has_lone_surrogate(text: str) -> bool:
    """Whether the text contains half of a character beyond U+FFFF, which JSON can hold but UTF-8 cannot."""
    return not text.isascii() and _SURROGATE.search(text) is not None
