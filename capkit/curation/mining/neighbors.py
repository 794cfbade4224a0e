"""The nearest neighbours of a split's images on disk: three files in one folder, written by `capkit mine`.

    neighbors.jsonl   one line an image, in the split's order; neighbours nearest first, without near-duplicates:
                      {"key": "a.jpg", "neighbors": ["c.jpg", "b.jpg"], "similarities": [0.81, 0.8],
                       "duplicates": ["a2.jpg"], "num_duplicates": 1}
    neighbors.json    what they were made with: split, hash of its keys, by, encoder, num_neighbors, threshold ...
    vectors.npy       (images, D) float32 of unit length, one row a line: what was compared

`duplicates` are the nearest of the `num_duplicates` images beyond the threshold, at most as many as neighbours.
A reader of hard negatives takes the path of neighbors.jsonl and needs `key` and `neighbors` alone.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from capkit.curation.mining.search import Found
from capkit.errors import UsageError
from capkit.utils.files import atomic_path, write_json

ROWS, ABOUT, VECTORS = "neighbors.jsonl", "neighbors.json", "vectors.npy"


def write_neighbors(folder: Path, keys: Sequence[str], chunks: Iterable[Found], about: Mapping[str, Any]) -> None:
    """Writes neighbors.jsonl, then neighbors.json: where the second is, the first is complete.

    neighbors.json gets "numbers" beside what `about` says: mean similarities of the nearest and the last neighbour, of
    the images that have one. Raises UsageError where no image has any, since all are near-duplicates.
    """
    quoted = [json.dumps(key, ensure_ascii=False) for key in keys]
    start, with_duplicates = 0, 0
    sums, counts = np.zeros(2), np.zeros(2)  # of the nearest and of the last
    with atomic_path(folder / ROWS) as temporary, temporary.open("w", encoding="utf-8") as lines:
        for found in chunks:
            lines.writelines(_lines(quoted, start, found))
            start += len(found.neighbors)
            ends = found.similarities[:, [0, -1]].astype(np.float64)
            sums += np.nansum(ends, 0)
            counts += (~np.isnan(ends)).sum(0)
            with_duplicates += int((found.num_duplicates > 0).sum())
        if not counts[0]:
            raise UsageError(
                f"no image has a neighbour: all are more alike than duplicate_threshold={about['duplicate_threshold']};"
                " raise it (1 keeps all), or use an encoder that tells these images apart"
            )
    nearest, last = sums / np.maximum(counts, 1)
    numbers = {
        "images": float(start),
        "images_with_all_neighbors": counts[1],
        "nearest_similarity": nearest,
        "last_similarity": last,
        "share_with_duplicates": with_duplicates / start,
    }
    write_json(folder / ABOUT, {**about, "numbers": numbers}, ensure_ascii=False)


def _lines(quoted: Sequence[str], start: int, found: Found) -> Iterator[str]:
    def names(row: np.ndarray) -> str:
        return ", ".join([quoted[index] for index in row.tolist() if index >= 0])

    for number in range(len(found.neighbors)):
        similarities = [f"{value:.5f}" for value in found.similarities[number].tolist() if value == value]
        yield (
            f'{{"key": {quoted[start + number]}, "neighbors": [{names(found.neighbors[number])}], '
            f'"similarities": [{", ".join(similarities)}], "duplicates": [{names(found.duplicates[number])}], '
            f'"num_duplicates": {int(found.num_duplicates[number])}}}\n'
        )


def read_about_neighbors(folder: Path) -> dict[str, Any] | None:
    """neighbors.json, or None where a folder has no complete neighbours."""
    path = folder / ABOUT
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


class Neighbors:
    """Reads such a folder; `path` is the folder, the run folder that holds it, or neighbors.jsonl in it.

    `rows[i]` are the places of image i's neighbours in `keys`, nearest first, -1 at the end where there are fewer.
    Raises UsageError where a file is missing or was not written whole.
    """

    def __init__(self, path: str | Path) -> None:
        self.folder = _folder(Path(path))
        about = read_about_neighbors(self.folder)
        if about is None or not (self.folder / VECTORS).is_file():
            raise UsageError(f"{self.folder} has no {ABOUT} or {VECTORS}; find neighbours with `capkit mine` first")
        self.about = about
        self.keys, self.rows = _read_rows(self.folder / ROWS, int(about["num_neighbors"]))
        self.vectors: Float[np.ndarray, "N D"] = np.load(self.folder / VECTORS, mmap_mode="r")
        if len(self.vectors) != len(self.keys):
            raise UsageError(
                f"{self.folder} holds {len(self.keys)} images and {len(self.vectors)} vectors; mine them again"
            )


def _folder(path: Path) -> Path:
    for folder in (path.parent if path.name == ROWS else path, path / "neighbors"):
        if (folder / ROWS).is_file():
            return folder
    raise UsageError(f"no {ROWS} in {path}; give the folder that `capkit mine` wrote")


def _read_rows(path: Path, num_neighbors: int) -> tuple[list[str], Int[np.ndarray, "N K"]]:
    """Keys get numbers as they are first met, which are then turned into places: one pass over the file."""
    number_of: dict[str, int] = {}
    own: list[int] = []
    rows: list[np.ndarray] = []
    with path.open(encoding="utf-8") as lines:
        for place, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                names = [row["key"], *row["neighbors"]]
            except (ValueError, KeyError, TypeError) as error:
                raise UsageError(f"{path} line {place} is no row of neighbours ({error}); mine them again") from error
            numbers = [number_of.setdefault(name, len(number_of)) for name in names]
            own.append(numbers[0])
            rows.append(np.array(numbers[1:], np.int64))
    if len(set(own)) != len(own) or len(own) != len(number_of):
        raise UsageError(f"{path} names images without a line of their own, or twice; mine them again")
    place_of = np.empty(len(own), np.int32)
    place_of[own] = np.arange(len(own), dtype=np.int32)
    table = np.full((len(own), num_neighbors), -1, np.int32)
    for place, numbers_of_row in enumerate(rows):
        table[place, : len(numbers_of_row)] = place_of[numbers_of_row]
    names_in_order = list(number_of)
    return [names_in_order[number] for number in own], table
