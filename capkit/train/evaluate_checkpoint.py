"""The evaluation of a captioner's checkpoint on a split, in a run folder of its own."""

from collections.abc import Sequence

import numpy as np
from omegaconf import DictConfig

from capkit.checkpoint.loading import load_captioner
from capkit.config.instantiate import build, plain
from capkit.data.datamodule import CaptionDataModule
from capkit.distributed.collectives import on_rank_zero, rank
from capkit.llm.accounts import open_accounts
from capkit.llm.ledger import Ledger
from capkit.metrics.scoring import resample_rows
from capkit.models.captioners.modular import silence
from capkit.reports.modules import modules_section
from capkit.reports.page import INTERVALS, write_report
from capkit.run.folder import RunFolder, default_run_dir
from capkit.train.build import (
    applicable_to,
    build_parts,
    build_reranker,
    encoder_of,
    picture_reader,
    prompt_encoder_of,
    training_references,
)
from capkit.train.conditions import model_config, requested_conditions
from capkit.train.evaluation import evaluate_split, finish, shown_rows
from capkit.train.guidance import prepare_guide
from capkit.train.header import print_header
from capkit.train.made_by import note_checkpoint
from capkit.train.mle_module import MLEModule
from capkit.train.session import build_trainer, listen_to_signals
from capkit.types import Row
from capkit.utils.console import phase
from capkit.utils.files import write_json
from capkit.utils.process import set_up_process


def evaluate_checkpoint(cfg: DictConfig, confidence: float | None = None) -> dict[str, float]:
    """Caption and score `cfg.split` by `cfg.ckpt`; write predictions, numbers and the report. Returns the numbers.

    With `confidence`, intervals.json has bootstrap intervals over images of all metrics that can be resampled, by the
    names of numbers without the split. Without, those of `evaluate_split`.
    """
    set_up_process(cfg.torch_threads)
    folder = RunFolder(cfg.run_dir or default_run_dir(f"{cfg.name}-evaluate"))
    requested = requested_conditions(cfg, model_config(cfg.ckpt))
    parts = build_parts(cfg)
    reranker = build_reranker(parts["decoding"], cfg.reward)
    data: CaptionDataModule = build(cfg.data)
    trainer, _ = build_trainer(cfg, folder, data)
    if trainer.world_size > 1:
        trainer.strategy.setup_environment()
    listen_to_signals(trainer)
    with phase("loading the checkpoint"):
        model, checkpoint = load_captioner(cfg.ckpt)
        if (silenced := cfg.get("zero_module")) is not None:
            silence(model, silenced)
        prepare_guide(model, checkpoint, parts["decoding"], trainer.strategy.root_device)
    parts["metrics"] = applicable_to(data, parts["metrics"], cfg.split)
    open_accounts(parts["metrics"], Ledger(cfg.get("budget")))
    module = MLEModule(model, **parts, reranker=reranker, requested=requested)
    print_header(trainer, module, data, folder.path, trains=False)
    if cfg.dry_run:
        return {}
    on_rank_zero(lambda: folder.open(plain(cfg)))
    on_rank_zero(lambda: note_checkpoint(folder.path, cfg.ckpt))
    encode_prompt = prompt_encoder_of(model, data)
    data.attach(encode=encoder_of(model, data.max_length), run_dir=folder.path, encode_prompt=encode_prompt)
    if reranker is not None:
        reranker.attach_captioner(model.tokenizer, model.prompt)
        device = trainer.strategy.root_device
        reranker.prepare(picture_reader(data, (cfg.split,)), lambda: training_references(data), device)
        # What the numbers of reranked captions have to be quoted with.
        on_rank_zero(lambda: write_json(folder.path / "reranker.json", reranker.provenance()))
    rows = evaluate_split(
        trainer, module, data, folder, cfg.split, prefix=cfg.split, limit=cfg.eval_limit, controls=True, seed=cfg.seed
    )
    if rank() == 0:
        if confidence is not None:
            intervals = resample_rows(rows, module.metrics, data.image_reader(cfg.split), confidence, cfg.seed)
            write_json(folder.path / INTERVALS, intervals)
        boxes = data.region_boxes(cfg.split)

        def write(samples: Sequence[tuple[Row, np.ndarray]]) -> None:
            write_report(folder, cfg.name, samples, section=modules_section([], samples, boxes, data.in_picture))

        finish(folder, trainer, shown_rows(rows, module.metrics), data.image_reader(cfg.split), write)
    return folder.metrics()
