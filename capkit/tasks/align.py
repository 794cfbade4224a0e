"""task=align: scores how well each caption of a split fits its image, and cuts the scores into alignment levels."""

import time
import warnings
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.progress import Progress
from rich.table import Table

from capkit.config.instantiate import build, plain
from capkit.curation.folder import CuratedFolder, FailureLog, own_shard
from capkit.curation.scores import ScoreFile, no_training_references
from capkit.data.alignment_bins import FILE, AlignmentBins, bins_of_corpus
from capkit.data.images import BadImage
from capkit.data.sources.base import DataSource, prepare_source
from capkit.data.sources.manifest import Manifest
from capkit.errors import UsageError
from capkit.scorers.base import BaseScorer, as_scorer, require_text_scorer
from capkit.utils.console import Screen, print_on
from capkit.utils.process import set_up_process
from capkit.utils.store import fingerprint
from capkit.utils.tensors import default_device


def run(cfg: DictConfig) -> dict[str, float]:
    """Score this process's shard of `cfg.split` into the folder `cfg.out`: its records as a manifest, with scores.

    The same command after a kill goes on behind the last batch that was scored. The process that finishes the last
    shard merges all and writes `bins.json`; that alone is done anew for other `cfg.bins` or `cfg.strategy`. Returns the
    numbers of records and of captions with and without a score, and of captions in each bin.
    """
    set_up_process(cfg.torch_threads)
    shard, num_shards = own_shard(cfg.shard, cfg.num_shards)
    if cfg.strategy not in ("uniform", "quantile"):
        raise UsageError(f"expected strategy to be uniform or quantile; got {cfg.strategy!r}")
    if cfg.data.get(cfg.split) is None:
        raise UsageError(f"the data config has no {cfg.split} source; add data.{cfg.split}, or change split")
    scorer = as_scorer(build(cfg.scorer))
    require_text_scorer(scorer, "task=align")
    source: DataSource = build(cfg.data[cfg.split])
    folder = CuratedFolder(Path(cfg.out), cfg.split, shard, num_shards)
    about = scorer.provenance() or plain(cfg.scorer)
    folder.claim({"data": plain(cfg.data[cfg.split]), "scorer": about, "shards": num_shards, "batch": cfg.batch_size})
    if shard in folder.missing_shards():
        prepare_source(source)
        score_shard(source, scorer, folder, cfg.batch_size)
    missing = folder.missing_shards()
    if missing:
        print_on(f"{len(missing)} of {num_shards} shards are still to come")
        return {}
    folder.merge()
    bins = bins_of_corpus(Manifest(str(folder.manifest)), cfg.bins, cfg.strategy, fingerprint(about))
    bins.write(folder.out / FILE)
    _show(bins, folder)
    counts = {f"bin_{number}": float(count) for number, count in enumerate(bins.counts)}
    return {"scored": float(sum(bins.counts)), "unscored": float(bins.unscored), **counts}


def score_shard(source: DataSource, scorer: BaseScorer, folder: CuratedFolder, batch_size: int) -> None:
    """Score one shard, and write its manifest and report."""
    start = time.monotonic()
    indices = folder.indices(len(source))
    places = {source.record(i).key: i for i in indices}

    def read(key: str) -> Any:
        try:
            return source.image(places[key])
        except BadImage:
            return None

    scorer.prepare(read, no_training_references, default_device())
    with folder.failures() as file, Progress(console=Screen(), disable=not Screen().is_terminal) as progress:
        failures = FailureLog(file)
        bar = progress.add_task(f"{folder.split}, shard {folder.shard} of {folder.num_shards}", total=len(indices))
        scores = ScoreFile(folder.shard_file("scores.jsonl"), batch_size)
        scores.fill(source, indices, scorer, lambda done: progress.update(bar, completed=done))
        kept = folder.write_shard(folder.with_pictures(scores.records(source, indices), source, places, failures))
    counts = {"records": len(indices), "kept": kept, "failed": failures.count}
    folder.write_report({"counts": counts, "samples": [], "seconds": time.monotonic() - start})
    scores.remove()


def _show(bins: AlignmentBins, folder: CuratedFolder) -> None:
    total = sum(bins.counts)
    title = f"{folder.split}: {total:,} captions with a score, {bins.unscored:,} without"
    table = Table("bin", "from", "to", "captions", "share", title=title)
    for number, count in enumerate(bins.counts):
        low, high = bins.edges[number : number + 2]
        table.add_row(str(number), f"{low:.4g}", f"{high:.4g}", f"{count:,}", f"{count / total:.1%}")
    Screen().print(table)
    if sparse := bins.sparse():
        warnings.warn(
            f"these bins have fewer than 1 % of the {total:,} captions, so that a captioner hardly learns what they "
            f"mean: {'; '.join(sparse)}; give strategy=quantile or fewer bins, or ask for a lower one when you decode",
            stacklevel=2,
        )
    print_on(f"scores: {folder.manifest}\nbins: {folder.out / FILE}")
