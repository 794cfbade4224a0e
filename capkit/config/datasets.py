"""Several data sets on one command line: `data=[NAME KEY=VALUE ..., NAME ...]`, each with what changes its config."""

import re
from collections.abc import Iterator, Sequence

from capkit.config.quoting import quote
from capkit.errors import UsageError, did_you_mean

DATASETS = "datasets"  # the key that holds them in the config, where `data` is the data of one run
FORM = "data=[NAME KEY=VALUE ..., NAME ...], such as 'data=[coco, sceneworld train.size=32]'"
_QUOTES, _OPENING, _CLOSING = "'\"", "[{(", "]})"


def datasets_override(value: str) -> str:
    """What is typed behind `data=`, as an override of the config: a list with one text for each data set."""
    inner = value[1:-1] if value[:1] == "[" and value[-1:] == "]" else value
    texts = [" ".join(_split(_unquoted(item), " ")) for item in _split(inner, ",")]
    return f"{DATASETS}=[{','.join(map(quote, texts))}]"


def evaluate_words(text: str, known: Sequence[str]) -> Iterator[str]:
    """The words of `capkit evaluate` that choose a data set; its keys may leave out their first word, `data`."""
    name, *values = _split(text, " ") or [""]
    if name not in known:
        raise UsageError(f"there is no data {name!r}; {did_you_mean(name, known)}; write {FORM}")
    yield f"data={name}"
    for value in values:
        if not re.match(r"[A-Za-z_][\w.]*=", value):
            raise UsageError(f"data {text!r}: expected KEY=VALUE behind the name, got {value!r}; write {FORM}")
        yield value if value.startswith("data.") else f"data.{value}"


def _split(text: str, separator: str) -> list[str]:
    """The parts of a text between separators that stand in no bracket and no quotes, without empty ones."""
    parts, depth, quoted = [""], 0, ""
    for character in text:
        if quoted:
            quoted = "" if character == quoted else quoted
        elif character in _QUOTES:
            quoted = character
        else:
            depth += (character in _OPENING) - (character in _CLOSING)
            if character == separator and not depth:
                parts.append("")
                continue
        parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] in _QUOTES and text[-1] == text[0] else text
