"""task=evaluate: captions a split with a checkpoint, scores it and writes predictions, numbers and the report."""

from omegaconf import DictConfig

from capkit.train.conditions import model_config, requested_conditions
from capkit.train.evaluate_checkpoint import evaluate_checkpoint
from capkit.train.session import on_all_ranks


def run(cfg: DictConfig) -> dict[str, float]:
    """The numbers of `cfg.split`: data, decoding and metrics are this config's, which took them from the run."""
    requested_conditions(cfg, model_config(cfg.ckpt))  # told before processes are started
    return _on_all_ranks(cfg)


_on_all_ranks = on_all_ranks(trains=False)(evaluate_checkpoint)
