"""Read mined neighbours of images, used as hard negatives (`capkit/curation/mining/neighbors.py`)."""

from capkit.errors import UsageError
from capkit.utils.text_files import parse_json, read_text, shown


def read_neighbors(file: str, count: int) -> dict[str, list[str]]:
    """Read the first `count` neighbours of each image, nearest first; some images may have fewer.

    Raises UsageError for an unreadable file, a malformed line, or if no image has that many.
    """
    rows: dict[str, list[str]] = {}
    text = read_text(file, "neighbors_file, the neighbors.jsonl of `capkit mine`")
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            key, neighbors = _row(line, f"{file}, line {number}")
            if key in rows:
                raise UsageError(f"{file}, line {number}: two lines have the key {shown(key)}; give each image one")
            rows[key] = neighbors[:count]
    longest = max((len(neighbors) for neighbors in rows.values()), default=0)
    if longest < count:
        raise UsageError(
            f"expected num_neighbors of at most {longest}, the most in {file}; got {count}; lower it or mine more"
        )
    return rows


def _row(line: str, where: str) -> tuple[str, list[str]]:
    row = parse_json(line, where)
    neighbors = row.get("neighbors") if isinstance(row, dict) else None
    if not isinstance(neighbors, list) or "key" not in row:
        raise UsageError(f'{where}: expected {{"key": KEY, "neighbors": [KEY, ...]}}; got {shown(row)}')
    return str(row["key"]), [str(neighbor) for neighbor in neighbors]
