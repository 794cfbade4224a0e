"""task=curate: passes the records of a data config through data steps, and writes a manifest for data=manifest."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from capkit.config.instantiate import build, build_all, plain
from capkit.curation.base import Failure, Records, Step, check_sources, hook, ignore_failure, scope_of
from capkit.curation.folder import CuratedFolder, FailureLog, own_shard, sampled
from capkit.curation.groups import group_starts
from capkit.data.records import Record
from capkit.data.sources.base import DataSource, Preparable, picture_size
from capkit.errors import UsageError
from capkit.llm.accounts import open_accounts, show_cost
from capkit.llm.ledger import Account, Ledger
from capkit.utils.console import phase
from capkit.utils.quiet import quiet_libraries

# Records that are looked at for captions which a step needs; of a data set made for the step most have them.
_NUM_FIRST = 1000


def run(cfg: DictConfig) -> dict[str, float]:
    """Curate this process's shard of each of `cfg.splits` into the folder `cfg.out`; returns counts over the splits.

    When run again after a kill or failures, models are asked only for answers that their caches lack. The process that
    finishes the last shard of a split merges all shards. With `cfg.dry_run` the questions and what they can cost are
    counted, nothing is asked and nothing is written.
    """
    quiet_libraries()
    torch.set_num_threads(cfg.torch_threads or torch.get_num_threads())
    shard, num_shards = own_shard(cfg.shard, cfg.num_shards)
    _refuse_idle_experts(cfg.get("expert"), cfg.get("step"))
    totals: dict[str, float] = {}
    ledger = Ledger(cfg.budget, cfg.max_failed, cfg.dry_run)
    for split in cfg.splits:
        steps = build_steps(cfg.get("step"), num_shards)
        if cfg.data.get(split) is None:
            raise UsageError(f"the data config has no {split} source; add data.{split}, or change splits")
        source = build(cfg.data[split])
        check_sources(steps, partial(first_records, source))
        folder = CuratedFolder(Path(cfg.out), split, shard, num_shards)
        accounts = open_accounts(steps, ledger)
        if not cfg.dry_run:
            folder.claim({"data": plain(cfg.data[split]), "steps": abouts(steps, cfg.get("step"))})
        if isinstance(source, Preparable):
            source.prepare()
        if cfg.dry_run:
            counts = count_questions(source, steps, folder, ledger, accounts)
        else:
            counts = curate(source, steps, folder, ledger, accounts, cfg.data.get("pictures", True))
        for name, count in counts.items():
            totals[name] = totals.get(name, 0.0) + count
    return totals


def _refuse_idle_experts(experts: Mapping[str, Any] | None, steps: Mapping[str, Any] | None) -> None:
    """Raises UsageError for experts that no step asks."""
    if experts and not any(step is not None and "experts" in step for step in (steps or {}).values()):
        names = ",".join(map(str, experts))
        raise UsageError(
            f"expert=[{names}]: expected a step that lets experts look, got step=[{','.join(map(str, steps or ()))}]; "
            "add gather_findings before the others, such as step=[gather_findings]"
        )


def build_steps(group: Mapping[str, Any] | None, num_shards: int) -> dict[str, Step]:
    """The steps in order. Without any, records stay as they are."""
    steps = build_all(group)
    whole = [name for name, step in steps.items() if scope_of(step) == "all"]
    if whole and num_shards > 1:
        raise UsageError(
            f"step {' and '.join(whole)} looks at all records together and cannot work on a shard of them; run it "
            "first, alone and with num_shards=1"
        )
    return steps


def abouts(steps: Mapping[str, Any], config: Any) -> dict[str, Any]:
    """What each step's results depend on: its `fingerprint_fields()` if it has any, else its config."""
    return {
        name: step.fingerprint_fields() if hasattr(step, "fingerprint_fields") else plain(config[name])
        for name, step in steps.items()
    }


def first_records(source: DataSource) -> Iterator[Record]:
    """Those that are looked at for captions which steps need. The source is prepared when the first one is wanted."""
    if isinstance(source, Preparable):
        source.prepare()
    for index in range(min(len(source), _NUM_FIRST)):
        yield source.record(index)


def shard_indices(source: DataSource, steps: Mapping[str, Step], folder: CuratedFolder) -> range:
    """This shard's records; shards are cut between groups if a step works on groups."""
    by_group = [name for name, step in steps.items() if scope_of(step) == "group"]
    return folder.indices(len(source), group_starts(source, by_group[0]) if by_group else None)


def curate(
    source: DataSource,
    steps: Mapping[str, Step],
    folder: CuratedFolder,
    ledger: Ledger,
    accounts: Mapping[str, Account],
    has_pictures: bool = True,
) -> dict[str, float]:
    """Pass one shard of a split through all steps, in order. The records may be texts alone, without pictures."""
    start = time.monotonic()
    indices = shard_indices(source, steps, folder)
    places = {source.record(i).key: i for i in indices}
    samples: list[dict[str, Any]] = []
    with folder.failures() as file:
        failures = FailureLog(file)
        records = _through(steps, source, places, folder, ledger, failures)
        finished = folder.with_pictures(records(), source, places, failures, has_pictures)
        kept = folder.write_shard(sampled(finished, lambda key: source.record(places[key]), samples))
        order = {name: place for place, name in enumerate(steps)}
        failures.rewrite(lambda key, step: (places.get(key, len(source)), order.get(step, len(order))))
    counts: dict[str, float | int] = {"records": len(indices), "kept": kept, "failed": failures.count}
    for name, step in steps.items():
        counts |= {f"{name}/{key}": value for key, value in getattr(step, "counts", {}).items()}
    for name, account in accounts.items():
        counts |= {f"{name}_{key}": value for key, value in account.row().items()}
    seconds = time.monotonic() - start
    folder.write_report({"counts": counts, "samples": samples, "seconds": seconds})
    if not folder.missing_shards():
        folder.merge()
    _show(counts, samples, seconds, folder)
    return {name: float(count) for name, count in counts.items()}


def count_questions(
    source: DataSource,
    steps: Mapping[str, Step],
    folder: CuratedFolder,
    ledger: Ledger,
    accounts: Mapping[str, Account],
) -> dict[str, float]:
    """Count the questions of a shard whose answers are not kept, and the most that they can cost, without asking.

    A step goes on with an example of each answer that is missing (`Reply.example`), as long as it may be.
    """
    indices = shard_indices(source, steps, folder)
    places = {source.record(i).key: i for i in indices}
    records = _through(steps, source, places, folder, ledger, ignore_failure)
    counts: dict[str, float | int] = {"records": len(indices), "kept": sum(1 for _ in records())}
    title = f"{folder.split}, shard {folder.shard} of {folder.num_shards}, {len(indices):,} records: nothing asked"
    counts |= show_cost(steps, accounts, "step", title)
    return {name: float(count) for name, count in counts.items()}


def _through(
    steps: Mapping[str, Step],
    source: DataSource,
    places: Mapping[str, int],
    folder: CuratedFolder,
    ledger: Ledger,
    failures: Callable[[Failure], None],
) -> Records:
    """The records at `places` behind all steps, which get their hooks."""
    records: Records = lambda: _records(source, list(places.values()), folder, ledger)  # noqa: E731
    for step in steps.values():
        hook(step, "attach_failures", failures)
        hook(step, "attach_images", lambda key: source.image(places[key]))
        hook(step, "attach_sizes", lambda key: picture_size(source, places[key]))
        records = _then(records, step)
    return records


def _then(records: Records, step: Step) -> Records:
    return lambda: step(records)


def _records(source: DataSource, indices: Sequence[int], folder: CuratedFolder, ledger: Ledger) -> Iterator[Record]:
    with phase(f"{folder.split}, shard {folder.shard} of {folder.num_shards}", len(indices), "records") as told:
        for index in indices:
            yield source.record(index)
            told.update(told.done + 1, ledger.note())


def _show(
    counts: Mapping[str, float | int], samples: list[dict[str, Any]], seconds: float, folder: CuratedFolder
) -> None:
    console = Console()
    table = Table("count", "", title=f"{folder.split}, shard {folder.shard} of {folder.num_shards}, {seconds:.1f} s")
    for name, value in counts.items():
        table.add_row(name, f"{value:,.4f}" if isinstance(value, float) else f"{value:,}")
    console.print(table)
    for sample in samples:
        console.print(f"{sample['key']}", style="bold", highlight=False, markup=False)
        for mark, captions in (("-", sample["before"]), ("+", sample["after"])):
            for caption in captions:
                console.print(f"  {mark} {caption['text']}", highlight=False, markup=False, soft_wrap=True)
    missing = folder.missing_shards()
    state = f"{len(missing)} shards are still to come" if missing else f"all shards: {folder.manifest}"
    console.print(state, highlight=False, markup=False, soft_wrap=True)
