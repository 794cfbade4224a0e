"""Labels of records, and lists of names given in a config, for classification."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from capkit.data.records import Record
from capkit.errors import UsageError
from capkit.utils.text_files import read_text


def read_lines(value: str | Sequence[str], what: str, shipped: Mapping[str, Path] | None = None) -> list[str]:
    """A list itself, or the lines of a UTF-8 file; blank ones are skipped. `shipped`: files that a name stands for.

    Raises UsageError if no line is left.
    """
    if isinstance(value, str):
        file = (shipped or {}).get(value, Path(value))
        if not file.is_file():
            names = f", or one of {', '.join(shipped)}" if shipped else ""
            raise UsageError(f"{what}: no file {value!r}; give a list, a file with one entry per line{names}")
        value = read_text(file, what).split("\n")
    lines = [line.strip() for line in value if line.strip()]
    if not lines:
        raise UsageError(f"{what} is empty; give one or more")
    return lines


def label_of(record: Record, pattern: str) -> str:
    """Fill `pattern` from the record's metadata: "{category}", or "{scene[objects][0][shape]}" for nested data.

    Raises UsageError if the metadata has no such entry.
    """
    try:
        return pattern.format(**record.metadata)
    except (KeyError, IndexError, TypeError) as error:
        raise UsageError(
            f"label={pattern!r} finds nothing in the metadata of {record.key!r}, which has {sorted(record.metadata)}; "
            "write an entry's name in braces, such as {category}"
        ) from error


def check_label_pattern(pattern: str) -> None:
    """Raises UsageError for a pattern without braces, which would give every record the same label."""
    if "{" not in pattern:
        raise UsageError(f"expected label to name a metadata entry in braces, such as {{category}}; got {pattern!r}")
