"""The captions that a run wrote, and their references: `capkit.metrics.scoring.write_predictions` wrote them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from capkit.errors import UsageError
from capkit.run.folder import RunFolder
from capkit.utils.text_files import expect, member, read_json


def captions_by_key(folder: RunFolder, prefix: str) -> dict[str, str]:
    """The predictions that `evaluate_split` wrote under this prefix; nothing where they are gone.

    Raises UsageError for a damaged file.
    """
    path = folder.predictions / f"{prefix.replace('/', '_')}.json"
    if not path.exists():
        return {}
    with _told_what_to_do():
        return dict(_captions_of(expect(read_json(path, "the run folder"), "a list", str(path)), str(path)))


def references_by_key(folder: RunFolder, prefix: str) -> dict[str, list[str]]:
    """The references that stand beside these predictions; nothing where they are gone.

    Raises UsageError for a damaged file.
    """
    path = folder.predictions / f"{prefix.replace('/', '_')}_references.json"
    found: dict[str, list[str]] = {}
    if path.exists():
        with _told_what_to_do():
            content = expect(read_json(path, "the run folder"), "an object", str(path))
            rows = member(content, "annotations", "a list", str(path))
            for key, caption in _captions_of(rows, f"{path} annotations,"):
                found.setdefault(key, []).append(caption)
    return found


@contextmanager
def _told_what_to_do() -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{error}; evaluate the run again") from error


def _captions_of(rows: Sequence[Any], where: str) -> Iterator[tuple[str, str]]:
    """Image id and caption of each row of COCO's results and annotations. Raises UsageError for any other row."""
    for number, row in enumerate(rows):
        place = f"{where} item {number}"
        identity = member(expect(row, "an object", place), "image_id", "text or a whole number", place)
        yield str(identity), member(row, "caption", "text", place)
