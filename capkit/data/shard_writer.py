"""Write shards in parallel processes, or index existing tars; after a kill, go on where it was stopped.

Each tar is a task. Once the tar is whole, its entries (capkit/data/shard_index.py) are kept in `.parts/`; the same
command again does the tasks without entries. Which records come into which tar depends on their order alone, so that
all files have the bytes of a run that nobody stopped.
"""

import io
import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from capkit.data.fingerprint import fingerprint
from capkit.data.images import BadImage
from capkit.data.records import Record, check_unique_keys, record_from_row, row_of
from capkit.data.shard_index import ABOUT, PARTS, Entry, Tar, write_about, write_split
from capkit.data.skipped import SkipLog, Skipped
from capkit.data.sources.base import DataSource, picture_file
from capkit.data.sources.caption_files import CaptionRow
from capkit.data.splits import rows_of_split
from capkit.data.webdataset import TarWriter, read_tar, unusable
from capkit.errors import RunFailure, UsageError
from capkit.utils.files import TEMPORARY, atomic_path, write_atomically
from capkit.utils.text_files import read_json

PLAN, SKIPPED = "plan.json", "skipped.jsonl"
_OURS = (PARTS, SKIPPED, ".lock")
_ALL = "all"  # the split of tars whose records are not yet divided

Watch = Callable[[int, int], None]  # (tars done, tars in all)


@dataclass(frozen=True)
class Task:
    """One tar: `work` writes or reads it and gives its entries."""

    number: int
    split: str
    work: Callable[[], list[Entry]]


def write_shards(
    sources: Mapping[str, DataSource],
    folder: Path,
    images_per_shard: int,
    num_workers: int,
    max_skipped: float | int,
    watch: Watch = lambda done, total: None,
) -> dict[str, int]:
    """Write the pictures and records of all splits to a folder; returns numbers of records by split.

    A picture that cannot be used keeps its record, so that positions, bags and draws are the source's; the reason is
    kept, and listed in `skipped.jsonl`.

    Raises UsageError if the folder holds anything else, or more pictures than `max_skipped` cannot be used.
    """
    prints = {split: fingerprint(source) for split, source in sources.items()}
    counts = {split: len(source) for split, source in sources.items()}
    made_of = {"images_per_shard": images_per_shard, "records": counts, "fingerprints": prints}
    tasks: list[Task] = []
    names: list[str] = []
    for split, source in sources.items():
        check_unique_keys((source.record(index) for index in range(len(source))), f"data.{split}")
        for place, start in enumerate(range(0, len(source), images_per_shard)):
            indices = range(start, min(start + images_per_shard, len(source)))
            name = f"{split}/{place:06d}.tar"
            tasks.append(Task(len(tasks), split, partial(_write_tar, source, indices, folder, len(tasks), name)))
            names.append(name)
    if _begin(folder, made_of, allowed=()):
        _run(folder, tasks, num_workers, watch, _Budget(folder, max_skipped, counts))
        abouts = {}
        for split in sources:
            entries = _entries(folder, [task for task in tasks if task.split == split])
            abouts[split] = {**write_split(folder, split, entries), "fingerprint": prints[split]}
        _end(folder, made_of, [Tar(name, (folder / name).stat().st_size) for name in names], abouts)
    return counts


def index_tars(
    tars: Sequence[Path],
    folder: Path,
    shares: tuple[float, float],
    seed: int,
    num_workers: int,
    max_skipped: float | int,
    watch: Watch = lambda done, total: None,
) -> dict[str, int]:
    """Write only the index of existing webdataset tars; returns numbers of records by split.

    `shares` of the records, chosen by a hash of (seed, key), are val and test. The tars stay where and as they are.
    Raises UsageError as `write_shards` does, and if a tar is damaged or holds no picture.
    """
    sizes = [Tar(_path_from(folder, path), path.stat().st_size) for path in tars]
    made_of = {"tars": [asdict(tar) for tar in sizes], "shares": list(shares), "seed": seed}
    tasks = [
        Task(number, _ALL, partial(_read_tar, path, number, tar.path))
        for number, (path, tar) in enumerate(zip(tars, sizes, strict=True))
    ]
    if _begin(folder, made_of, allowed=[path.parent for path in tars]):
        _run(folder, tasks, num_workers, watch, lambda done: None)
        entries = list(_entries(folder, tasks))
        _Budget(folder, max_skipped, {_ALL: len(entries)})(tasks)
        rows = [CaptionRow(record_from_row(entry.row, str(folder))) for entry in entries]
        check_unique_keys((row.record for row in rows), str(folder))
        entry_of = {id(row): entry for row, entry in zip(rows, entries, strict=True)}
        abouts = {}
        for split, share in (("train", 1.0), ("val", shares[0]), ("test", shares[1])):
            chosen = rows_of_split(rows, split, *shares, seed, str(folder)) if share else []
            if chosen:
                found = write_split(folder, split, (entry_of[id(row)] for row in chosen))
                abouts[split] = {**found, "fingerprint": fingerprint(_Listed([row.record for row in chosen]))}
        _end(folder, made_of, sizes, abouts)
    about = read_json(folder / ABOUT, "shards")
    return {split: entry["records"] for split, entry in about["splits"].items()}


class _Listed:
    """Records in memory, for `fingerprint`."""

    def __init__(self, records: list[Record]) -> None:
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    def record(self, index: int) -> Record:
        return self._records[index]

    def image(self, index: int) -> Any:
        raise BadImage("this list has no pictures")


def _path_from(folder: Path, path: Path) -> str:
    """The tar's path relative to the index if it lies below it, so that both can move together; else absolute."""
    path, folder = path.absolute(), folder.absolute()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _write_tar(source: DataSource, indices: range, folder: Path, number: int, name: str) -> list[Entry]:
    entries, read = [], picture_file(source)
    with atomic_path(folder / name) as temporary, temporary.open("wb") as file, TarWriter(file, number, name) as tar:
        for index in indices:
            record = source.record(index)
            try:
                picture = _png(source, index) if read is None else read(index)
                reason = unusable(picture)
            except BadImage as problem:
                picture, reason = b"", str(problem)
            entries.append(tar.add(record, picture) if reason is None else Entry(row_of(record), unusable=reason))
    return entries


def _png(source: DataSource, index: int) -> bytes:
    """A drawn picture as a file, without loss."""
    buffer = io.BytesIO()
    Image.fromarray(source.image(index)).save(buffer, "PNG")
    return buffer.getvalue()


def _read_tar(path: Path, number: int, name: str) -> list[Entry]:
    entries = list(read_tar(path, number, name))
    if not entries:
        raise UsageError(f"{path}: expected samples with a picture, such as KEY.jpg, got none; move it elsewhere")
    return entries


def _begin(folder: Path, made_of: dict[str, Any], allowed: Sequence[Path]) -> bool:
    """Claim the folder for these shards; False if they are complete. Raises UsageError if it is something else's."""
    for file, state in ((folder / ABOUT, "holds"), (folder / PARTS / PLAN, "has begun with")):
        if file.exists():
            content = read_json(file, "out")
            if (content.get("of") if isinstance(content, dict) else None) != json.loads(json.dumps(made_of)):
                raise UsageError(
                    f"out={folder}: expected a new folder, or one of the same data and settings; it {state} other "
                    f"records, another images_per_shard or other tars; give another out=DIR, or remove it"
                )
            if file.name == ABOUT:
                shutil.rmtree(folder / PARTS, ignore_errors=True)
                return False
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"out={folder}: expected a folder, got a file; give another out=DIR")
    if folder.is_dir() and not (folder / PARTS).exists() and folder.absolute() not in [p.absolute() for p in allowed]:
        foreign = sorted(path.name for path in folder.iterdir() if path.name not in _OURS)
        if foreign:
            raise UsageError(
                f"out={folder}: expected a new or empty folder, got one that holds {', '.join(foreign[:3])}; give "
                "another out=DIR"
            )
    (folder / PARTS).mkdir(parents=True, exist_ok=True)
    write_atomically(folder / PARTS / PLAN, json.dumps({"of": made_of}))
    for left in folder.rglob(TEMPORARY):  # of a run that was killed
        left.unlink()
    return True


def _end(folder: Path, made_of: dict[str, Any], tars: Sequence[Tar], abouts: dict[str, dict[str, Any]]) -> None:
    write_about(folder, made_of, tars, abouts)
    shutil.rmtree(folder / PARTS)


def _part(folder: Path, task: Task) -> Path:
    return folder / PARTS / f"{task.number:06d}.jsonl"


def _entries(folder: Path, tasks: Iterable[Task]) -> Iterator[Entry]:
    for task in tasks:
        with _part(folder, task).open("rb") as lines:
            for line in lines:
                yield Entry(**json.loads(line))


_tasks: list[Task] = []  # of the run; processes that are forked later see them, whatever they hold


def _do(folder: Path, number: int) -> int:
    """One task, in a process of its own or in this one."""
    task = _tasks[number]
    entries = task.work()
    with atomic_path(_part(folder, task)) as temporary, temporary.open("wb") as lines:
        for entry in entries:
            lines.write(json.dumps(asdict(entry)).encode() + b"\n")
    return number


def _run(
    folder: Path, tasks: list[Task], num_workers: int, watch: Watch, check: Callable[[Iterable[Task]], None]
) -> None:
    """Do all tasks that have no entries yet. `check` sees those that are done, and may raise."""
    _tasks[:] = tasks
    finished = [task for task in tasks if _part(folder, task).exists()]
    left = [task.number for task in tasks if not _part(folder, task).exists()]
    check(finished)
    watch(len(finished), len(tasks))
    for done, number in enumerate(_done(folder, left, num_workers), len(finished) + 1):
        check([tasks[number]])
        watch(done, len(tasks))


def _done(folder: Path, numbers: list[int], num_workers: int) -> Iterator[int]:
    if num_workers <= 1:
        yield from (_do(folder, number) for number in numbers)
        return
    context = multiprocessing.get_context("fork")  # sources need not be picklable
    with ProcessPoolExecutor(min(num_workers, max(1, len(numbers))), mp_context=context) as pool:
        futures = [pool.submit(_do, folder, number) for number in numbers]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise RunFailure(
                "a process that writes shards was killed (out of memory?); start the same command again, which goes on "
                "where this one stopped, e.g. with fewer num_workers"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class _Budget:
    """Lists what cannot be used, and stops above `max_skipped`.

    The tars with such pictures are then done anew by the next command, since the pictures may have been repaired.
    """

    def __init__(self, folder: Path, max_skipped: float | int, counts: Mapping[str, int]) -> None:
        self._folder, self._max_skipped, self._counts = folder, max_skipped, counts
        self._log = SkipLog(folder / SKIPPED)
        self._bad: list[Task] = []

    def __call__(self, tasks: Iterable[Task]) -> None:
        """Raises UsageError if the pictures of these tasks and of earlier ones are too many."""
        for task in tasks:
            rows = [
                Skipped(task.split, entry.row["key"], entry.row.get("image"), entry.unusable)
                for entry in _entries(self._folder, [task])
                if entry.unusable is not None
            ]
            if rows:
                self._log.add(rows)
                self._bad.append(task)
        try:
            for split, count in self._counts.items():
                self._log.check_budget(split, self._max_skipped, count)
        except UsageError:
            for task in self._bad:
                _part(self._folder, task).unlink()
            raise
