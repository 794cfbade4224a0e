"""task=curate: passes the records of a data config through data steps, and writes a manifest for data=manifest."""

import os
import socket
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from rich.table import Table
from rich.text import Text

from capkit.config.instantiate import build, build_all, plain
from capkit.curation.base import Step, check_sources, scope_of
from capkit.curation.folder import CuratedFolder, merged_splits, own_shard
from capkit.curation.shard_work import Work, count_questions, curate
from capkit.data.files import FileSource, ImageFiles
from capkit.data.images import BadImage
from capkit.data.records import Record
from capkit.data.sources.base import DataSource, prepare_source
from capkit.distributed.ray_workers import RayWorkers
from capkit.errors import UsageError
from capkit.llm.accounts import open_accounts
from capkit.llm.ledger import Ledger
from capkit.llm.sizing import scaled, total_size
from capkit.reports.curated import CuratedSplit, write_curated
from capkit.utils.console import Screen, phase, print_on
from capkit.utils.process import set_up_process

# Records that are looked at for captions which a step needs; of a data set made for the step most have them.
_NUM_FIRST = 1000
_SHARDS_A_WORKER = 4  # so that a worker that is lost, or slow, holds up little
_SHOWN = 5


def run(cfg: DictConfig) -> dict[str, float]:
    """Curate this process's shard of each of `cfg.splits` into the folder `cfg.out`; returns counts over the splits.

    When run again after a kill or failures, models are asked only for answers that their caches lack. The process that
    finishes the last shard of a split merges all shards. With `cfg.dry_run` the questions and what they can cost are
    counted, nothing is asked and nothing is written. With `cfg.engine` "ray", the shards of each split are worked on by
    a cluster, and this process merges them.
    """
    set_up_process(cfg.torch_threads)
    _refuse_idle_experts(cfg.get("expert"), cfg.get("step"))
    if cfg.scale_to is not None and not cfg.dry_run:
        raise UsageError(f"scale_to={cfg.scale_to} scales a dry run; add dry_run=true")
    if cfg.engine == "local" and (cfg.num_workers or cfg.ray_address):
        raise UsageError(
            f"num_workers={cfg.num_workers}, ray_address={cfg.ray_address}: workers are Ray's; add engine=ray"
        )
    if cfg.engine == "ray" and not cfg.dry_run:
        return _total(_run_on_ray(cfg))
    shard, num_shards = own_shard(cfg.shard, cfg.num_shards)
    ledger = Ledger(cfg.budget, cfg.max_failed, cfg.dry_run)
    counts = []
    for split in cfg.splits:
        work = open_work(cfg, split, shard, num_shards, ledger)
        if cfg.dry_run:
            counts.append(count_questions(work))
            if cfg.scale_to is not None:
                _show_size(work, counts[-1]["records"], cfg.scale_to, cfg.gpu_tokens_per_second)
            continue
        report = curate(work)
        if not work.folder.missing_shards():
            finish(work.folder, cfg.name)
        _show(report, work.folder, f"shard {shard} of {num_shards}")
        counts.append(report["counts"])
    return _total(counts)


def _total(counts: Iterable[Mapping[str, float | int]]) -> dict[str, float]:
    totals: dict[str, float] = {}
    for own in counts:
        for name, count in own.items():
            totals[name] = totals.get(name, 0.0) + count
    return totals


def open_work(cfg: DictConfig, split: str, shard: int, num_shards: int, ledger: Ledger) -> Work:
    """Build steps and source, and claim the folder for them. Raises UsageError for what cannot run."""
    steps = build_steps(cfg.get("step"), num_shards)
    if cfg.data.get(split) is None:
        raise UsageError(f"the data config has no {split} source; add data.{split}, or change splits")
    source = build(cfg.data[split])
    check_sources(steps, partial(first_records, source))
    folder = CuratedFolder(Path(cfg.out), split, shard, num_shards)
    accounts = open_accounts(steps, ledger)
    if not cfg.dry_run:
        folder.claim({"data": plain(cfg.data[split]), "steps": abouts(steps, cfg.get("step"))})
    prepare_source(source)
    pictures = partial(_pictures_of, cfg, split, source)
    return Work(source, steps, folder, ledger, accounts, cfg.data.get("pictures", True), pictures)


def _pictures_of(cfg: DictConfig, own: str, source: DataSource, split: str) -> dict[str, str]:
    """The pictures of a split of the data, each by its key: its file, or its key again where it is in none.

    None of a split that the data do not have.
    """
    if split != own:
        if cfg.data.get(split) is None:
            return {}
        source = build(cfg.data[split])
        prepare_source(source)
    records = (source.record(index) for index in range(len(source)))
    absolute = source.files.absolute if isinstance(source, FileSource) else str
    return {record.key: record.key if record.image is None else absolute(record.image) for record in records}


def _run_on_ray(cfg: DictConfig) -> list[dict[str, float | int]]:
    """Counts of each split, whose shards are pieces of work for a cluster."""
    if cfg.shard is not None:
        raise UsageError(f"engine=ray works on all shards, got shard={cfg.shard}; leave it out")
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    workers = RayWorkers(cfg.ray_address, cfg.num_workers, cfg.worker_cpus, cfg.worker_gpus, retries=cfg.budget is None)
    counts = []
    try:
        for split in cfg.splits:
            # Opened here too, so that what cannot run is told before any worker starts.
            work = open_work(cfg, split, 0, 1, Ledger(cfg.budget, cfg.max_failed))
            default = 1 if whole_steps(work.steps) else _SHARDS_A_WORKER * workers.num_workers
            num_shards = cfg.num_shards or default
            _refuse_shards(work.steps, num_shards)
            make = partial(_shards_of, config, split, num_shards, os.getcwd())
            start = time.monotonic()
            with phase(f"{split}, {num_shards} shards on Ray", num_shards, "shards") as told:
                for _ in workers.map(make, num_shards):
                    told.advance()
            folder = CuratedFolder(work.folder.out, split, 0, num_shards)
            report = {**finish(folder, cfg.name), "seconds": time.monotonic() - start}
            _show(report, folder, f"{num_shards} shards on Ray")
            counts.append(report["counts"])
    finally:
        workers.close()
    return counts


def _shards_of(config: dict[str, Any], split: str, num_shards: int, cwd: str) -> Callable[[int], dict[str, Any]]:
    """In a worker: what curates a shard, as a process of its own does, with its part of the budget."""
    try:
        os.chdir(cwd)
    except OSError as error:
        raise UsageError(
            f"{socket.gethostname()} does not see {cwd}: {error.strerror}; start the run in a folder that all machines "
            "share"
        ) from error
    cfg = OmegaConf.create(config)
    set_up_process(cfg.torch_threads)
    budget = None if cfg.budget is None else cfg.budget / num_shards
    return lambda shard: curate(open_work(cfg, split, shard, num_shards, Ledger(budget, cfg.max_failed)))["counts"]


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
    _refuse_shards(steps, num_shards)
    return steps


def whole_steps(steps: Mapping[str, Step]) -> list[str]:
    """Names of the steps that look at all records together."""
    return [name for name, step in steps.items() if scope_of(step) == "all"]


def _refuse_shards(steps: Mapping[str, Step], num_shards: int) -> None:
    if num_shards > 1 and (whole := whole_steps(steps)):
        raise UsageError(
            f"step {' and '.join(whole)} looks at all records together and cannot work on a shard of them; run it "
            "first, alone and with num_shards=1"
        )


def abouts(steps: Mapping[str, Any], config: Any) -> dict[str, Any]:
    """What each step's results depend on: its `fingerprint_fields()` if it has any, else its config."""
    return {
        name: step.fingerprint_fields() if hasattr(step, "fingerprint_fields") else plain(config[name])
        for name, step in steps.items()
    }


def first_records(source: DataSource) -> Iterator[Record]:
    """Those that are looked at for captions which steps need. The source is prepared when the first one is wanted."""
    prepare_source(source)
    for index in range(min(len(source), _NUM_FIRST)):
        yield source.record(index)


def finish(folder: CuratedFolder, title: str) -> dict[str, Any]:
    """Merge a split's shards, and draw the page of the folder's splits; returns the split's report."""
    merged = folder.merge()
    files = ImageFiles(folder.out)

    def picture(image: str) -> np.ndarray | None:
        try:
            return files.load(image)
        except BadImage:
            return None

    splits = [CuratedSplit(name, report, rows) for name, report, rows in merged_splits(folder.out)]
    write_curated(folder.out / "report.html", f"{title}: {folder.out.name}", splits, picture)
    return merged


def _show_size(work: Work, counted: float | int, records: int, tokens_per_second: Sequence[float | int] | None) -> None:
    """What a dry run over `counted` records says of a run over `records`."""
    sizes = {name: scaled(account, records / counted, tokens_per_second) for name, account in work.accounts.items()}
    sizes["all"] = total_size(list(sizes.values()))
    heads = ("questions", "tokens in", "tokens out, at most", "money, at most", "store, GB, at most", "GPU hours")
    table = Table("step", *heads, title=f"{records:,} records, scaled from {counted:,}")
    for name, size in sizes.items():
        counts = (f"{number:,.0f}" for number in (size.questions, size.tokens_in, size.tokens_out))
        money = "no price" if size.money is None else f"{size.money:,.2f}"
        hours = "no speed" if size.gpu_hours is None else f"{size.gpu_hours:,.0f}"
        table.add_row(name, *counts, money, f"{size.store_bytes / 1e9:,.1f}", hours)
    Screen().print(table)


def _show(report: Mapping[str, Any], folder: CuratedFolder, part: str) -> None:
    table = Table("count", "", title=f"{folder.split}, {part}, {report['seconds']:.1f} s")
    for name, value in report["counts"].items():
        table.add_row(name, f"{value:,.4f}" if isinstance(value, float) else f"{value:,}")
    Screen().print(table)
    for sample in report["samples"][:_SHOWN]:
        Screen().print(Text(sample["key"], "bold"), soft_wrap=True)
        for mark, captions in (("-", sample["before"]), ("+", sample["after"])):
            for caption in captions:
                print_on(f"  {mark} {caption['text']}")
    if report["counts"]["records"] and not report["counts"]["kept"]:
        warnings.warn(
            f"{folder.split}, {part}: the steps kept none of {report['counts']['records']:,} records; the table shows "
            "which step they left, and failures.jsonl what failed",
            stacklevel=2,
        )
    missing = folder.missing_shards()
    state = f"{len(missing)} shards are still to come" if missing else f"all shards: {folder.manifest}"
    print_on(state)
