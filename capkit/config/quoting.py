"""Quotes values typed in a shell such that Hydra's grammar reads them as the same text.

Rules, by key and value:

1. The value of a path key (see `locations`) is literal, whatever characters it has. Exceptions: null, true and false,
   quoted values, lists that parse, and `${key}` unless a file has that name. `~/` is the home folder.
2. Any other value follows Hydra's grammar. Plain text that Hydra cannot parse ("a photo of: 1 (one)") is quoted. Broken
   lists, dicts and interpolations are errors.
"""

import re
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from capkit.config.locations import exists, is_path_key
from capkit.errors import UsageError

_PLAIN = re.compile(r"null|true|false|", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")
_INTERPOLATION = re.compile(r"\$\{[\w.:,/-]+\}")
_SWEEP = re.compile(r"(choice|range|glob|interval|sort|shuffle|tag)\(")


def quote(text: str) -> str:
    """Quote text such that Hydra and OmegaConf read back exactly `text`."""
    # OmegaConf reads `${` as a reference unless escaped; backslashes before it must be doubled.
    literal = re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", text)
    return QuotedString(text=literal, quote=Quote.single).with_quotes()


def quote_value(key: str, value: str, multirun: bool = False) -> str:
    """An override's value in Hydra's grammar. Raises UsageError if it is neither that nor plain text."""
    if is_path_key(key):
        return _quote_path(key, value, multirun)
    if _parses(value):
        return value
    if _exists(value):
        return quote(value)
    if value[:1] in "[{" or "${" in value or _SWEEP.match(value):
        raise UsageError(
            f"{key}={value}: expected a value that can be parsed; close every bracket, brace and quote, "
            f"or write plain text in quotes: {key}='\"...\"'"
        )
    return quote(value)


def _quote_path(key: str, value: str, multirun: bool) -> str:
    if _PLAIN.fullmatch(value):
        return value
    if _exists(value):
        return quote(_as_path(value))
    if "." in key and _NUMBER.fullmatch(value):
        return value
    if value[0] in "['\"" and value[-1] in "]'\"" and _parses(value):
        return value
    if _INTERPOLATION.search(value) and _parses(value):
        return value
    if multirun and _SWEEP.match(value):
        return value
    if multirun and "," in value:
        return ",".join(_quote_path(key, part, multirun=False) for part in value.split(","))
    return quote(_as_path(value))


def _as_path(value: str) -> str:
    if value == "~" or value.startswith("~/"):
        return str(Path(value).expanduser())
    return f"./{value}" if value == "???" else value  # "???" is OmegaConf's marker of a missing value


def _exists(value: str) -> bool:
    return bool(value) and exists(_as_path(value))


def _parses(value: str) -> bool:
    try:
        override = OverridesParser.create().parse_override(f"key={value}")
    except (HydraException, ValueError):  # ValueError: integers with more digits than Python parses
        return False
    return override.key_or_group == "key"
