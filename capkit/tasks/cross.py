"""task=cross: every run on every data set, as one matrix for each metric."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from capkit.checkpoint.run_checkpoints import resolve_checkpoint
from capkit.config.cells import slug
from capkit.distributed.collectives import rank
from capkit.reports.matrix import Cell, matrix_table, write_matrix
from capkit.reports.page import INTERVALS
from capkit.run.folder import default_run_dir, read_object
from capkit.train.conditions import model_config, requested_conditions
from capkit.train.evaluated_cell import evaluated_cell
from capkit.train.session import on_all_ranks
from capkit.utils.console import Screen, say


def run(cfg: DictConfig) -> dict[str, float]:
    """Evaluate each of `cfg.runs` on the split of each of `cfg.datasets`, in a folder RUN/DATA of the matrix's.

    What is there already is not decoded again. Writes cross.json, of all numbers and their bootstrap intervals, and
    cross.html; prints the matrices. Returns nothing of its own.
    """
    for row in cfg.cells.values():
        for cell in row.values():  # what cannot be asked for is told before processes are started
            requested_conditions(cell, model_config(cell.ckpt))
    return _fill(cfg)


@on_all_ranks(trains=False)
def _fill(cfg: DictConfig) -> dict[str, float]:
    folder = Path(cfg.run_dir or default_run_dir(f"{cfg.name}-cross"))
    found = []
    for name, row in cfg.cells.items():
        for data, config in row.items():
            cell = DictConfig(OmegaConf.to_container(config))
            # The checkpoint itself: a run that has gone on meanwhile is another captioner, and its folder is refused.
            cell.ckpt = str(resolve_checkpoint(Path(cell.ckpt)))
            cell.run_dir = str(folder / name / slug(data))
            say(f"{name} on {data}")
            numbers = evaluated_cell(cell, cfg.confidence)
            if rank() == 0 and not cfg.dry_run:
                own = {key.removeprefix(f"{cfg.split}/"): value for key, value in numbers.items()}
                intervals = read_object(folder / name / slug(data) / INTERVALS, "delete the folder of this cell")
                found.append(Cell(name, data, cell.ckpt, own, {key: tuple(value) for key, value in intervals.items()}))
    if found:
        write_matrix(folder, cfg.name, found, cfg.confidence)
        Screen().print(matrix_table(found))
        say(f"wrote {folder / 'cross.json'} and {folder / 'cross.html'}")
    return {}
