"""task=shard: writes the pictures and records of a data config as tars with an index, or indexes existing tars."""

import os
from pathlib import Path

from omegaconf import DictConfig
from rich.progress import Progress

from capkit.config.instantiate import build_sources
from capkit.data.shard_writer import index_tars, write_shards
from capkit.data.sources.base import prepare_source
from capkit.data.splits import check_shares
from capkit.errors import UsageError
from capkit.run.lock import acquire_run_lock
from capkit.utils.console import Screen, print_on

_COMPRESSED = (".tar.gz", ".tgz")


def run(cfg: DictConfig) -> dict[str, float]:
    """Write or index shards in `cfg.out`; the same command after a kill goes on. Returns numbers of records."""
    folder = Path(cfg.out)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"out={folder}: expected a folder, got a file; give another out=DIR")
    num_workers = len(os.sched_getaffinity(0)) if cfg.num_workers is None else cfg.num_workers
    with Progress(console=Screen(), disable=not Screen().is_terminal) as progress:
        bar = progress.add_task("shards", total=None)

        def watch(done: int, total: int) -> None:
            progress.update(bar, completed=done, total=total)

        if cfg.tars is not None:
            check_shares(cfg.val, cfg.test)
            tars = _tars(Path(cfg.tars))
            acquire_run_lock(folder)
            counts = index_tars(
                tars, folder, (cfg.val, cfg.test), cfg.seed, num_workers, cfg.data.get("max_skipped", 0.05), watch
            )
        else:
            sources = build_sources(cfg.data)
            acquire_run_lock(folder)
            for source in sources.values():
                prepare_source(source)
            counts = write_shards(
                sources, folder, cfg.images_per_shard, num_workers, cfg.data.get("max_skipped", 0.05), watch
            )
    told = ", ".join(f"{split} {count:,}" for split, count in counts.items())
    others = {"val": " data.val=null", "test": " data.test.folder=OTHER_SHARDS"}
    missing = "".join(words for split, words in others.items() if split not in counts)
    print_on(
        f"shards of {told} images in {folder}\ntrain on them: capkit data=shards data.train.folder={folder}{missing}"
    )
    return {split: float(count) for split, count in counts.items()}


def _tars(folder: Path) -> list[Path]:
    found = sorted(folder.rglob("*.tar")) if folder.is_dir() else []
    if not found:
        packed = next((path for end in _COMPRESSED for path in sorted(folder.rglob(f"*{end}"))), None)
        told = "none; give tars=DIR" if packed is None else f"compressed ones; unpack them, as by `gunzip {packed}`"
        raise UsageError(f"tars={folder}: expected a folder with webdataset tars (*.tar), got {told}")
    return found
