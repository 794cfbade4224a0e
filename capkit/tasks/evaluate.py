"""task=evaluate: captions a split with a checkpoint, scores it and writes predictions, numbers and the report."""

import torch
from omegaconf import DictConfig

from capkit.checkpoint.loading import load_captioner
from capkit.config.instantiate import build, plain
from capkit.data.datamodule import CaptionDataModule
from capkit.distributed.collectives import on_rank_zero
from capkit.distributed.launcher import start_ranks
from capkit.fault_tolerance.stop_signal import stoppable
from capkit.fault_tolerance.watchdog import ends_all_ranks
from capkit.run.folder import RunFolder, default_run_dir
from capkit.train.build import applicable, build_parts, encoder_of
from capkit.train.evaluation import evaluate_split, finish
from capkit.train.header import print_header
from capkit.train.mle_module import MLEModule
from capkit.train.session import build_trainer, listen_to_signals
from capkit.utils.console import phase
from capkit.utils.quiet import quiet_libraries


@ends_all_ranks
@stoppable()
def run(cfg: DictConfig) -> dict[str, float]:
    """The numbers of `cfg.split`: data, decoding and metrics are this config's, which took them from the run."""
    if start_ranks(cfg):
        return RunFolder(cfg.run_dir).metrics() if cfg.run_dir else {}
    quiet_libraries()
    torch.set_num_threads(cfg.torch_threads or torch.get_num_threads())
    folder = RunFolder(cfg.run_dir or default_run_dir(f"{cfg.name}-evaluate"))
    parts = build_parts(cfg)
    data: CaptionDataModule = build(cfg.data)
    trainer, _ = build_trainer(cfg, folder, data)
    if trainer.world_size > 1:
        trainer.strategy.setup_environment()
    listen_to_signals(trainer)
    with phase("loading the checkpoint"):
        model, _ = load_captioner(cfg.ckpt)
    parts["metrics"] = applicable(parts["metrics"], data.source(cfg.split).record(0).metadata)
    module = MLEModule(model, **parts)
    print_header(trainer, module, data, folder.path, trains=False)
    if cfg.dry_run:
        return {}
    on_rank_zero(lambda: folder.open(plain(cfg)))
    data.attach(encode=encoder_of(model, data.max_length), run_dir=folder.path)
    rows = evaluate_split(
        trainer, module, data, folder, cfg.split, prefix=cfg.split, limit=cfg.eval_limit, controls=True
    )
    finish(cfg, trainer, folder, data, rows, cfg.split)
    return folder.metrics()
