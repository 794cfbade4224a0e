"""task=frontier: what a captioner gains in recall and loses in CIDEr as it is guided more, beside other runs."""

import copy
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from capkit.checkpoint.run_checkpoints import resolve_checkpoint
from capkit.config.cells import run_name
from capkit.distributed.collectives import rank
from capkit.errors import UsageError
from capkit.reports.frontier import Place, write_frontier
from capkit.run.folder import default_run_dir
from capkit.train.conditions import model_config, requested_conditions
from capkit.train.evaluated_cell import evaluated_cell
from capkit.train.session import on_all_ranks
from capkit.utils.console import say


def run(cfg: DictConfig) -> dict[str, float]:
    """Evaluate `cfg.ckpt` at each of `cfg.scales`, and each of `cfg.runs` without guidance.

    Each has a folder of its own in the run's: what is there already is not decoded again. Writes frontier.json, of all
    numbers, and frontier.html. Returns nothing of its own.
    """
    for ckpt in (cfg.ckpt, *cfg.runs):  # what cannot be asked for is told before processes are started
        requested_conditions(cfg, model_config(ckpt))
    return _draw(cfg)


@on_all_ranks(trains=False)
def _draw(cfg: DictConfig) -> dict[str, float]:
    names = [run_name(path) for path in cfg.runs]
    if not cfg.scales or len(set(cfg.scales)) < len(cfg.scales) or len(set(names)) < len(names):
        raise UsageError(
            f"expected scales and runs of different names, one scale at least; got scales={list(cfg.scales)}, "
            f"runs={list(cfg.runs)}"
        )
    # The checkpoints themselves: a run that has gone on meanwhile is another captioner, and its folder is refused.
    cfg.ckpt = str(resolve_checkpoint(Path(cfg.ckpt)))
    runs = [str(resolve_checkpoint(Path(path))) for path in cfg.runs]
    folder = Path(cfg.run_dir or default_run_dir(f"{cfg.name}-frontier"))
    cells = {f"scale-{scale:g}": _guided(cfg, scale) for scale in sorted(map(float, cfg.scales))}
    cells |= {f"run-{name}": _plain_run(cfg, path) for name, path in zip(names, runs, strict=True)}
    places = []
    for name, cell in cells.items():
        cell.run_dir = str(folder / name)
        numbers = evaluated_cell(cell)
        scale = OmegaConf.select(cell, "decoding.guide.scale")
        label = name.removeprefix("run-") if scale is None else f"{scale:g}"
        places.append(Place(label, scale, {key.removeprefix(f"{cfg.split}/"): value for key, value in numbers.items()}))
    if rank() == 0 and not cfg.dry_run:
        write_frontier(folder, cfg.name, places)
        say(f"wrote {folder / 'frontier.json'} and {folder / 'frontier.html'}")
    return {}


def _guided(cfg: DictConfig, scale: float) -> DictConfig:
    cell = copy.deepcopy(cfg)
    guide = {"_target_": "capkit.decoding.guide.Guide", "scale": scale}
    OmegaConf.update(cell, "decoding.guide", guide, merge=False, force_add=True)
    return cell


def _plain_run(cfg: DictConfig, path: str) -> DictConfig:
    cell = copy.deepcopy(cfg)
    OmegaConf.update(cell, "decoding.guide", None, merge=False, force_add=True)
    cell.ckpt = path
    return cell
