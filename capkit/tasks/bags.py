"""task=bags: groups similar images into bags, from the neighbours found by task=mine, and reports their quality."""

from omegaconf import DictConfig
from rich.table import Table

from capkit.config.instantiate import plain
from capkit.curation.mining.grouping import group, quality
from capkit.curation.mining.neighbors import Neighbors
from capkit.data.curricula.bag_files import list_name, write_bags
from capkit.errors import UsageError
from capkit.run.folder import RunFolder, default_run_dir
from capkit.utils.console import Screen, print_on


def run(cfg: DictConfig) -> dict[str, float]:
    """Write `bags/` into the run folder: one list per neighbourhood and size. Opens no image."""
    mined = Neighbors(cfg.neighbors)
    if cfg.split is not None and mined.about["split"] != cfg.split:
        raise UsageError(
            f"expected neighbors of split={cfg.split}, got neighbors={cfg.neighbors} of {mined.about['split']}; "
            f"mine that split first: `capkit mine split={cfg.split}`"
        )
    if not cfg.sizes or not cfg.neighborhoods:
        raise UsageError(f"expected at least one size and one neighborhood; got {cfg.sizes} and {cfg.neighborhoods}")
    folder = RunFolder(cfg.run_dir or default_run_dir(f"{cfg.name}-bags"))
    folder.open(plain(cfg))
    vectors = mined.vectors[:]  # in memory, since rows are read in random order
    threshold = mined.about["duplicate_threshold"]
    lists, entries = {}, {}
    for neighborhood in cfg.neighborhoods:
        for size in cfg.sizes:
            bags = group(vectors, mined.rows, size, neighborhood, threshold, cfg.seed)
            name = list_name(neighborhood, size)
            lists[name] = [[mined.keys[place] for place in bag] for bag in bags.tolist()]
            entries[name] = quality(vectors, bags, cfg.seed)
    from_mining = {name: value for name, value in mined.about.items() if name not in ("numbers", "backend")}
    write_bags(folder.path / "bags", lists, {**from_mining, "seed": cfg.seed, "lists": entries})
    numbers = {f"{name}/{what}": float(value) for name, entry in entries.items() for what, value in entry.items()}
    folder.write_metrics(numbers)
    _show(entries)
    print_on(f"bags: {folder.path / 'bags'}")
    return numbers


def _show(entries: dict[str, dict[str, float | int]]) -> None:
    columns = ("bags", "placed", "left_out", "similarity", "random_similarity")
    table = Table("list", *columns, title="bags, and the mean cosine of two images of one")
    for name, entry in entries.items():
        table.add_row(name, *(f"{entry[c]:,}" if isinstance(entry[c], int) else f"{entry[c]:.3f}" for c in columns))
    Screen().print(table)
