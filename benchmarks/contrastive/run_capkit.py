"""capkit's side of `benchmarks.contrastive`: HFTwoTower and DualEncoderModule, driven by Lightning's Trainer as in a
run.
"""

import logging
import warnings
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.contrastive.workloads import BOS, EOS, PAD, Clock, Pairs, Size
from capkit.models.dual_encoders.hf_two_tower import HFTwoTower
from capkit.models.tuning.policy import Tuning
from capkit.objectives.base import PairObjective
from capkit.objectives.contrastive.info_nce import InfoNCE
from capkit.optim.optimizers import AdamW
from capkit.optim.schedules import Constant
from capkit.testing.distributed import bare_trainer
from capkit.text.tokenizers import word_tokenizer
from capkit.train.dual_encoder_module import DualEncoderModule
from capkit.types import CaptionBatch, PairEmbeddings


def build(size: Size, **settings: Any) -> HFTwoTower:
    text = {
        "hidden_size": size.text_width,
        "intermediate_size": 4 * size.text_width,
        "num_hidden_layers": size.text_layers,
        "num_attention_heads": size.text_width // size.head,
        "vocab_size": size.vocabulary,
        "max_position_embeddings": size.length,
        "bos_token_id": size.vocabulary + BOS,
        "eos_token_id": size.vocabulary + EOS,
        "pad_token_id": PAD,
        "hidden_act": "gelu",
        "projection_dim": size.joint,
    }
    image = {
        "hidden_size": size.width,
        "intermediate_size": 4 * size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.width // size.head,
        "patch_size": size.patch,
        "image_size": size.image,
        "hidden_act": "gelu",
        "projection_dim": size.joint,
    }
    config = {"model_type": "clip", "projection_dim": size.joint, "text_config": text, "vision_config": image}
    # Captions come as ids, so that the tokenizer is never called.
    return HFTwoTower(config=config, tokenizer=word_tokenizer(["a"]), **settings)


def lora_on_cached_images(size: Size) -> HFTwoTower:
    return build(size, tune_image=Tuning("frozen"), tune_text=Tuning("lora"), cached_images=True)


def locked_image(size: Size) -> HFTwoTower:
    return build(size, tune_image=Tuning("frozen"))


def module_of(
    model: HFTwoTower, compiled: bool, micro_batch: int | None = None, objective: PairObjective | None = None
) -> DualEncoderModule:
    """`objective`: None is InfoNCE."""
    optimizer = AdamW(lr=1e-5, weight_decay=0.2, betas=(0.9, 0.98), eps=1e-6, clip_norm=None)
    loss = objective or InfoNCE()
    return DualEncoderModule(model, loss, optimizer, Constant(), micro_batch_size=micro_batch, compile=compiled)


def batch_of(pairs: Pairs, features: Tensor | None = None, first: int = 0) -> CaptionBatch:
    """The pairs as capkit's data gives them; with cached `features` (N D) in place of pixels. `first`: its number."""
    column = torch.arange(pairs.tokens.shape[1], device=pairs.tokens.device)
    return CaptionBatch(
        keys=[str(first + i) for i in range(len(pairs))],
        pixels=pairs.pixels if features is None else None,
        features=None if features is None else features[:, None],
        tokens=pairs.tokens[:, None],
        mask=(column < pairs.lengths[:, None])[:, None],
    )


class _Timed(pl.Callback):
    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_batch_start(self, *_: Any) -> None:
        self.clock.start()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
        self.clock.stop(outputs["loss"])


def run_steps(clock: Clock, module: DualEncoderModule, batch: CaptionBatch, steps: int, device: str) -> None:
    """Steps of a training run over the same batch, which lies on the device already."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    trainer = bare_trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        precision="bf16-mixed",
        max_steps=clock.warm_up + steps,
        callbacks=[_Timed(clock)],
    )
    data: Any = DataLoader([batch] * trainer.max_steps, batch_size=None, collate_fn=_as_it_is)  # type: ignore[arg-type]
    trainer.fit(module, data)


def _as_it_is(batch: CaptionBatch) -> CaptionBatch:
    return batch


def loss_of(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    ids = torch.arange(len(images), device=images.device)
    return InfoNCE()(PairEmbeddings(images, texts, scale, ids, ids, ids), 0).loss


def gradient(module: DualEncoderModule, batch: CaptionBatch) -> Tensor:
    """Of the batch's loss, all trained weights as one vector."""
    module.zero_grad()
    module.objective(module.embed(batch), 0).loss.backward()
    trained: list[nn.Parameter] = [p for p in module.model.parameters() if p.requires_grad]
    return torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in trained])
