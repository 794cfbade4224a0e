"""How the items of effect tests are divided over processes."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from benchmarks.studies.records import file_of, seed_of

MOST_SECONDS = 360.0


def shards(items: Iterable[str], seconds: Mapping[str, float], most: float = MOST_SECONDS) -> list[list[str]]:
    """Items of one file and seed together, since they start from the same runs; cut where they took more than `most`.

    `seconds` are CPU seconds of earlier runs; an item without has none. Items keep their order. The longest shards come
    first, so that processes end at about the same time.
    """
    together: dict[tuple[str, int | None], list[str]] = defaultdict(list)
    for item in items:
        together[file_of(item), seed_of(item)].append(item)
    found: list[list[str]] = []
    for group in together.values():
        found.append([])
        for item in group:
            if found[-1] and total(found[-1], seconds) + seconds.get(item, 0.0) > most:
                found.append([])
            found[-1].append(item)
    return sorted(found, key=lambda shard: -total(shard, seconds))


def total(items: Iterable[str], seconds: Mapping[str, float]) -> float:
    return sum(seconds.get(item, 0.0) for item in items)
