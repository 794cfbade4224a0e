"""task=evaluate_encoder: what a trained dual encoder is good for, by any evaluators, on any data."""

from pathlib import Path

from omegaconf import DictConfig, ListConfig

from capkit.checkpoint.loading import load_dual_encoder, load_ensemble
from capkit.config.instantiate import build, build_all, plain
from capkit.data.datamodule import CaptionDataModule
from capkit.run.folder import RunFolder, default_run_dir
from capkit.train.evaluation import evaluate_encoder
from capkit.train.made_by import note_checkpoint
from capkit.utils.console import print_on
from capkit.utils.process import set_up_process
from capkit.utils.tensors import default_device


def run(cfg: DictConfig) -> dict[str, float]:
    """The numbers of every evaluator. The encoder is the checkpoint's; data and evaluators are this config's.

    Several checkpoints of one run, `ckpt=[A,B,C]`, are evaluated as an ensemble: their embeddings are averaged.

    One process does it. The same command again goes on where an interrupted one stopped.
    """
    set_up_process(cfg.torch_threads)
    evaluators = build_all(cfg.evaluator)
    folder = RunFolder(cfg.run_dir or default_run_dir(f"{cfg.name}-evaluate"))
    model = load_ensemble(list(cfg.ckpt)) if isinstance(cfg.ckpt, ListConfig) else load_dual_encoder(cfg.ckpt)
    data: CaptionDataModule = build(cfg.data)
    if data.features is not None:
        data.features.check(**model.about_features())
    folder.open(plain(cfg))
    if not isinstance(cfg.ckpt, ListConfig):
        note_checkpoint(folder.path, cfg.ckpt)
    data.attach(run_dir=folder.path)
    numbers = evaluate_encoder(model.to(default_device()), evaluators, data, folder, "test")
    for name, value in numbers.items():
        print_on(f"  {name:<40} {value:.4f}")
    print_on(f"run folder: {Path(folder.path)}")
    return numbers
