"""A few optimizer steps of a tiny model by each kind of objective, under any strategy: what the tests here compare."""

from dataclasses import dataclass, field
from typing import Any

import lightning.pytorch as pl
import replay
import torch
from torch.utils.data import DataLoader

from capkit.distributed.collectives import rank, world_size
from capkit.distributed.zero import Zero
from capkit.models.captioners.encoder_decoder import EncoderDecoder
from capkit.models.dual_encoders.text_towers.hf import HFTextTower
from capkit.models.dual_encoders.two_tower import TwoTower
from capkit.models.encoders.image import SmallCNN
from capkit.models.tuning.lora import LoRA
from capkit.objectives.contrastive.info_nce import InfoNCE
from capkit.objectives.cross_entropy import CrossEntropy
from capkit.optim.optimizers import AdamW
from capkit.optim.schedules import Linear
from capkit.testing.distributed import bare_trainer
from capkit.text.tokenizers import encode_captions, word_tokenizer
from capkit.train.dual_encoder_module import DualEncoderModule
from capkit.train.mle_module import MLEModule
from capkit.train.train_module import TrainModule
from capkit.types import CaptionBatch

# Lengths differ, so that an average of averages would show.
CAPTIONS = [["a"], ["a red ball"], ["one two three four five six"], ["a b"], ["c"], ["x y z"], ["u"], ["p q r s t"]]
STEPS = 4
BETA = 0.9
CLIP_NORM = 0.1


@dataclass
class Outcome:
    """`rows`: (loss, gradient norm before clipping) of each step. `gradients`: the clipped one of each step, as it
    reached AdamW. `weights`: after the last step; rank 0 alone has them."""

    rows: list[tuple[float, float]] = field(default_factory=list)
    gradients: list[torch.Tensor] = field(default_factory=list)
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    validated: float = 0.0


class Keep(pl.Callback):
    def __init__(self):
        self.outcome = Outcome()
        self.momentum = torch.zeros(())

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.outcome.rows.append((float(outputs["loss"]), float(outputs["grad_norm"])))
        state = trainer.strategy.optimizer_state(trainer.optimizers[0])["state"]
        momentum = torch.cat([entry["exp_avg"].flatten() for entry in state.values()]).double()
        self.outcome.gradients.append((momentum - BETA * self.momentum) / (1 - BETA))
        self.momentum = momentum

    def on_validation_end(self, trainer, pl_module):
        numbers = trainer.callback_metrics
        self.outcome.validated = float(numbers["val/loss" if "val/loss" in numbers else "val/reward/overlap"])

    def on_train_end(self, trainer, pl_module):
        state = trainer.strategy.lightning_module_state_dict()
        self.outcome.weights = {name: value.clone() for name, value in state.items()}


def tokenizer() -> Any:
    return word_tokenizer([caption for captions in CAPTIONS for caption in captions])


def optimizer() -> AdamW:
    """Clips every step, has two learning rates, decays matrices alone."""
    return AdamW(lr=0.01, betas=(BETA, 0.99), clip_norm=CLIP_NORM, lr_multipliers={"image_*": 0.5})


def encoder_decoder(dropout: float) -> EncoderDecoder:
    torch.manual_seed(0)
    encoder = SmallCNN(image_size=32)
    next(encoder.parameters()).requires_grad_(False)
    return EncoderDecoder(tokenizer(), encoder, width=32, num_layers=1, num_heads=2, dropout=dropout)


def captioner(micro_batch_size: int | None, dropout: float = 0.0) -> MLEModule:
    model = encoder_decoder(dropout)
    return MLEModule(
        model, CrossEntropy(0.1), optimizer(), Linear(), replay.VALIDATION, micro_batch_size=micro_batch_size
    )


def self_critical(micro_batch_size: int | None, dropout: float = 0.0) -> replay.Replaying:
    model = encoder_decoder(dropout)
    return replay.self_critical(model, optimizer(), Linear(), micro_batch_size=micro_batch_size)


def self_retrieval(micro_batch_size: int | None, dropout: float = 0.0) -> replay.Replaying:
    model = encoder_decoder(dropout)
    return replay.self_retrieval(model, optimizer(), Linear(), micro_batch_size=micro_batch_size)


def dual_encoder(micro_batch_size: int | None, dropout: float = 0.0) -> DualEncoderModule:
    torch.manual_seed(0)
    config = {
        "model_type": "clip_text_model",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 16,
        "attention_dropout": dropout,
    }
    text_tower = HFTextTower(config=config, tokenizer=tokenizer())
    image_tower = SmallCNN(image_size=32)
    next(image_tower.parameters()).requires_grad_(False)
    # The scale starts at its bound and is pushed over it: its clamp must hold.
    model = TwoTower(
        text_tower, image_tower, embed_dim=15, pooling="attention", logit_scale=99.0, max_logit_scale=100.0
    )
    return DualEncoderModule(model, InfoNCE(), optimizer(), Linear(), micro_batch_size=micro_batch_size)


def adapters(micro_batch_size: int | None, dropout: float = 0.0) -> MLEModule:
    """LoRA on a frozen captioner: nothing else trains."""
    model = encoder_decoder(dropout)
    model.requires_grad_(False)
    LoRA(rank=2, targets=["query_key_value", "key_value"]).add_to(model.decoder)
    factory = AdamW(lr=0.01, betas=(BETA, 0.99), clip_norm=CLIP_NORM)
    return MLEModule(model, CrossEntropy(0.1), factory, Linear(), replay.VALIDATION, micro_batch_size=micro_batch_size)


class Sometimes(MLEModule):
    """A parameter that even steps use, and they in one micro-batch."""

    def backward_batch(self, batch: CaptionBatch, step: int) -> dict[str, torch.Tensor]:
        logs = super().backward_batch(batch, step)
        if step % 2 == 0:
            self.add_gradient(lambda: (self.model.seldom.sum() * 0.01 / world_size(), None))
        return logs


def seldom_used(micro_batch_size: int | None, dropout: float = 0.0) -> Sometimes:
    model = encoder_decoder(dropout)
    model.seldom = torch.nn.Parameter(torch.ones(7))
    return Sometimes(
        model, CrossEntropy(0.1), optimizer(), Linear(), replay.VALIDATION, micro_batch_size=micro_batch_size
    )


MODULES = {
    "captioner": captioner,
    "dual_encoder": dual_encoder,
    "self_critical": self_critical,
    "self_retrieval": self_retrieval,
    "adapters": adapters,
    "seldom_used": seldom_used,
}


def batches_of_all_ranks() -> list[CaptionBatch]:
    """8 images a step."""
    tokens, mask, prompt_length = encode_captions(tokenizer(), CAPTIONS, prompt="", max_length=12)
    pixels = torch.randn(STEPS, 8, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    keys = [f"{i}" for i in range(8)]
    return [
        CaptionBatch(keys, images, tokens=tokens, mask=mask, prompt_length=prompt_length, references=CAPTIONS)
        for images in pixels
    ]


def batches() -> list[CaptionBatch]:
    """This rank's share of each step's images."""
    return [batch.select(list(range(rank(), 8, world_size()))) for batch in batches_of_all_ranks()]


def val_batches() -> list[CaptionBatch]:
    """8 images in batches of 2; of two ranks the first has three batches and the second one."""
    whole = batches_of_all_ranks()[0]
    parts = [whole[start : start + 2] for start in range(0, 8, 2)]
    return parts if world_size() == 1 else [parts[:3], parts[3:]][rank()]


def strategy_of(name: str) -> Any:
    if not name.startswith("zero"):
        return name
    return Zero(int(name[4]), offload=name.endswith("offload"), persistence_threshold=0)


def trainer_of(strategy: str, callbacks: list[pl.Callback], precision: Any = "32-true") -> pl.Trainer:
    return bare_trainer(
        strategy=strategy_of(strategy), precision=precision, max_steps=STEPS, val_check_interval=2, callbacks=callbacks
    )


def train(
    kind: str, strategy: str, micro_batch_size: int | None, dropout: float = 0.0, precision: str = "32-true"
) -> Outcome:
    keep = Keep()
    module: TrainModule = MODULES[kind](micro_batch_size, dropout)
    trainer = trainer_of(strategy, [keep], precision)
    trainer.fit(module, loader(batches()), loader(val_batches()))
    return keep.outcome


def loader(items: list[CaptionBatch]) -> DataLoader:
    return DataLoader(items, batch_size=None)


def train_all(cases: list[tuple]) -> list[Outcome]:
    """Several runs in one process: starting Python and DeepSpeed takes longer than a run."""
    return [train(*case) for case in cases]
