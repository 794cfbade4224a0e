"""task=evaluate: captions a split with a checkpoint, scores it and writes predictions, numbers and the report."""

from omegaconf import DictConfig

from capkit.train.conditions import model_config, requested_conditions
from capkit.train.evaluate_checkpoint import evaluate_checkpoint
from capkit.train.session import on_all_ranks
from capkit.train.sweep import evaluate_sweep, num_bins, swept


def run(cfg: DictConfig) -> dict[str, float]:
    """The numbers of `cfg.split`: data, decoding and metrics are this config's, which took them from the run.

    With `conditions.NAME=sweep` those of each bin, as `NAME-BIN/...`.
    """
    name = swept(cfg)  # what cannot be asked for is told before processes are started
    if name is None:
        requested_conditions(cfg, model_config(cfg.ckpt))
    else:
        num_bins(cfg, name)
    return _evaluate(cfg)


@on_all_ranks(trains=False)
def _evaluate(cfg: DictConfig) -> dict[str, float]:
    name = swept(cfg)
    return evaluate_checkpoint(cfg) if name is None else evaluate_sweep(cfg, name)
