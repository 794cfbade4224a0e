"""Passing one shard of a split through data steps: its records, or the questions that it would ask."""

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any

from capkit.curation.base import Failure, Records, Step, hook, scope_of
from capkit.curation.folder import CuratedFolder, FailureLog
from capkit.curation.groups import group_starts
from capkit.curation.questions import Split
from capkit.curation.samples import Samples
from capkit.curation.step_bases import ignore_failure
from capkit.data.records import Record
from capkit.data.sources.base import DataSource, picture_size
from capkit.llm.accounts import show_cost
from capkit.llm.ledger import Account, Ledger
from capkit.utils.console import phase


@dataclass(frozen=True)
class Work:
    """One shard of a split, and everything that is needed to curate it. The records may be texts alone.

    `pictures` gives those of any split of the data, by key.
    """

    source: DataSource
    steps: dict[str, Step]
    folder: CuratedFolder
    ledger: Ledger
    accounts: dict[str, Account]
    has_pictures: bool = True
    pictures: Callable[[str], Mapping[str, str]] = lambda split: {}


def curate(work: Work) -> dict[str, Any]:
    """Pass one shard of a split through all steps, in order; returns its report, which is written last."""
    start = time.monotonic()
    source, steps, folder = work.source, work.steps, work.folder
    indices = _shard_indices(work)
    places = {source.record(i).key: i for i in indices}
    samples = Samples(lambda key: source.record(places[key]))
    left: dict[str, int] = {}
    with folder.failures() as file, ExitStack() as opened:
        failures = FailureLog(file)
        passed = _through(work, places, failures, left, opened)()
        finished = folder.with_pictures(passed, source, places, failures, work.has_pictures)
        kept = folder.write_shard(samples.passing(finished))
        order = {name: place for place, name in enumerate(steps)}
        failures.rewrite(lambda key, step: (places.get(key, len(source)), order.get(step, len(order))))
    counts: dict[str, float | int] = {"records": len(indices), "kept": kept, "failed": failures.count}
    for name, step in steps.items():
        counts |= {f"{name}/records": left[name]}
        counts |= {f"{name}/{key}": value for key, value in getattr(step, "counts", {}).items()}
    for name, account in work.accounts.items():
        counts |= {f"{name}_{key}": value for key, value in account.row().items()}
    models = {name: str(account.model.about()["model"]) for name, account in work.accounts.items()}
    seconds = time.monotonic() - start
    report = {"counts": counts, "models": models, "samples": samples.rows(), "seconds": seconds}
    folder.write_report(report)
    return report


def count_questions(work: Work) -> dict[str, float | int]:
    """Count the questions of a shard whose answers are not kept, and the most that they can cost, without asking.

    A step goes on with an example of each answer that is missing (`Reply.example`), as long as it may be.
    """
    folder, indices = work.folder, _shard_indices(work)
    places = {work.source.record(i).key: i for i in indices}
    with ExitStack() as opened:
        kept = sum(1 for _ in _through(work, places, ignore_failure, {}, opened)())
    counts: dict[str, float | int] = {"records": len(indices), "kept": kept}
    title = f"{folder.split}, shard {folder.shard} of {folder.num_shards}, {len(indices):,} records: nothing asked"
    return counts | show_cost(work.steps, work.accounts, "step", title)


def _shard_indices(work: Work) -> range:
    """This shard's records; shards are cut between groups if a step works on groups."""
    by_group = [name for name, step in work.steps.items() if scope_of(step) == "group"]
    starts = group_starts(work.source, by_group[0]) if by_group else None
    return work.folder.indices(len(work.source), starts)


def _through(
    work: Work,
    places: Mapping[str, int],
    failures: Callable[[Failure], None],
    left: dict[str, int],
    opened: ExitStack,
) -> Records:
    """The records at `places` behind all steps, which get their hooks; counts into `left` those that leave each.

    `opened` ends each pass over the records, also one that an error left in the middle, with its progress line.
    """
    source = work.source
    records: Records = lambda: opened.enter_context(closing(_records(work, list(places.values()))))  # noqa: E731
    for name, step in work.steps.items():
        hook(step, "attach_failures", _named(name, failures))
        hook(step, "attach_split", Split(work.folder.split, work.pictures, work.ledger.is_dry))
        hook(step, "attach_images", lambda key: source.image(places[key]))
        hook(step, "attach_sizes", lambda key: picture_size(source, places[key]))
        records = _then(records, name, step, left)
    return records


def _named(name: str, failures: Callable[[Failure], None]) -> Callable[[Failure], None]:
    """Failures by the step's name in the config: two steps may be of one class."""
    return lambda failure: failures(replace(failure, step=name))


def _then(records: Records, name: str, step: Step, left: dict[str, int]) -> Records:
    def passed() -> Iterator[Record]:
        left[name] = 0  # again for a later step that goes over the records twice
        for record in step(records):
            left[name] += 1
            yield record

    return passed


def _records(work: Work, indices: Sequence[int]) -> Generator[Record, None, None]:
    folder = work.folder
    with phase(f"{folder.split}, shard {folder.shard} of {folder.num_shards}", len(indices), "records") as told:
        for index in indices:
            yield work.source.record(index)
            told.update(told.done + 1, work.ledger.note())
