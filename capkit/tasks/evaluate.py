"""task=evaluate: captions a split with a checkpoint, scores it and writes predictions, numbers and the report."""

from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from capkit.data.datamodule import CaptionDataModule
from capkit.module import CaptionModule
from capkit.run_folder import RunFolder, default_run_dir
from capkit.tasks.build import build, build_all, encoder_of, model_from_checkpoint, plain, read_checkpoint
from capkit.tasks.fit import build_trainer, evaluate_split, finish


def run(cfg: DictConfig) -> dict[str, float]:
    """The numbers of `cfg.split`. The captioner is the checkpoint's; data, decoding and metrics are this config's."""
    torch.set_num_threads(cfg.torch_threads or torch.get_num_threads())
    checkpoint = read_checkpoint(Path(cfg.ckpt))
    data: CaptionDataModule = build(cfg.data)
    model = model_from_checkpoint(checkpoint)
    module = CaptionModule(
        model=model,
        objective=build(cfg.objective),
        optimizer=build(cfg.optimizer),
        schedule=build(cfg.scheduler),
        decoding=build(cfg.decoding),
        metrics=build_all(cfg.get("metric")),
        seed=cfg.seed,
    )
    folder = RunFolder(cfg.run_dir or default_run_dir(f"{cfg.name}-evaluate"))
    data.attach(encode=encoder_of(model, data.max_length), folder=folder.path)
    folder.open(plain(OmegaConf.merge(cfg, {"resume": False})))
    trainer = build_trainer(cfg, folder, module, data, total_steps=1)
    rows = evaluate_split(trainer, module, data, folder, cfg.split, prefix=cfg.split, controls=True)
    finish(cfg, folder, data, rows)
    return folder.metrics()
