"""A small dual encoder pretrained on SceneWorld's memes as plain pairs, and CAMU on top of it, in plain loops."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from capkit.data.transforms import ImageTransform
from capkit.methods.memes.datamodule import MemeDataModule
from capkit.methods.memes.loss import CamuLoss
from capkit.methods.memes.model import Camu
from capkit.methods.memes.module import MemeModule
from capkit.methods.memes.scene_source import SceneMemes
from capkit.models.dual_encoders.text_towers.hf import HFTextTower
from capkit.models.dual_encoders.two_tower import TwoTower
from capkit.models.encoders.image import SmallCNN
from capkit.models.tuning.policy import Tuning
from capkit.objectives.contrastive.info_nce import InfoNCE
from capkit.optim.optimizers import AdamW
from capkit.optim.schedules import Constant
from capkit.text.tokenizers import word_tokenizer
from capkit.types import CaptionBatch, Row

SIZE, BATCH, WIDTH, LAYERS = 32, 64, 64, 3


@dataclass
class Memes:
    """All memes of train and test as one batch each, and the tokenizer's captions."""

    data: MemeDataModule
    train: CaptionBatch
    test: CaptionBatch


def memes(num_train: int = 2000, num_test: int = 800) -> Memes:
    """Tokens are those of `new_encoder`'s tokenizer, which depends on the captions alone."""
    data = MemeDataModule(
        train=SceneMemes("train", num_train, SIZE),
        test=SceneMemes("test", num_test, SIZE),
        transform=ImageTransform(SIZE),
        eval_batch_size=num_train,
    )
    data.attach(encode=new_encoder(data, seed=0).encode)
    train, test = (next(iter(data.eval_dataloader(split))) for split in ("train", "test"))
    return Memes(data, train, test)


def new_encoder(data: MemeDataModule, seed: int) -> TwoTower:
    """Words start louder than positions: where both are alike, CAMU takes longer than these tests to find the XOR."""
    torch.manual_seed(seed)
    config = {
        "model_type": "bert", "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": LAYERS,
        "num_attention_heads": 4, "max_position_embeddings": 24, "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0, "initializer_range": 0.1,
    }  # fmt: skip
    text = HFTextTower(config=config, tokenizer=word_tokenizer(data.captions("train")))
    with torch.no_grad():
        text.model.embeddings.position_embeddings.weight.mul_(0.2)
        text.model.embeddings.token_type_embeddings.weight.mul_(0.1)
    image = SmallCNN(SIZE, channels=(16, 32, 32), blocks=(0, 0, 0), width=32)
    return TwoTower(text, image, embed_dim=WIDTH)


def steps_of(batch: CaptionBatch, steps: int, seed: int) -> Iterator[CaptionBatch]:
    """A batch of different memes for each step."""
    random = np.random.default_rng(seed)
    for _ in range(steps):
        yield batch.select(random.permutation(len(batch))[:BATCH].tolist()).trim()


def pretrain(data: Memes, steps: int, seed: int) -> TwoTower:
    """Contrastive training on both captions of each meme: to its pictures, the texts on them say nothing."""
    model, objective = new_encoder(data.data, seed), InfoNCE(duplicates="mask")
    optimizer = AdamW(1e-3)(model)
    for step, batch in enumerate(steps_of(data.train, steps, seed)):
        objective(model(batch), step).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def new_camu(encoder: TwoTower, tuning: Tuning, seed: int, selection: str = "scorer") -> Camu:
    """CAMU on a copy of the encoder."""
    torch.manual_seed(seed)
    encoder = copy.deepcopy(encoder)
    encoder.tune(text=tuning)
    return Camu(encoder, selection, scorer_width=WIDTH, fusion_width=128, num_heads=4, dropout=0.0)


def train_camu(model: Camu, data: Memes, steps: int, seed: int, relevance: float = 1.0) -> list[Row]:
    """Rows of the test memes after training."""
    module = MemeModule(model, CamuLoss(relevance), AdamW(1e-3), Constant(), seed=seed)
    optimizer = AdamW(1e-3)(model)
    model.train()
    for step, batch in enumerate(steps_of(data.train, steps, seed)):
        scores = module.score(batch, step)
        label = batch.conditions["label"]
        module.objective(scores.logits, scores.selected_scores, scores.has_caption, label, None, step).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return rows_of(model, data.test)


@torch.no_grad()
def rows_of(model: Camu, batch: CaptionBatch) -> list[Row]:
    return MemeModule(model.eval(), CamuLoss(), AdamW(1e-3), Constant()).meme_rows(batch)


def text_alone(batch: CaptionBatch, model: TwoTower) -> CaptionBatch:
    """The memes' texts as their only candidates, on blank pictures."""
    texts = [[metadata["text"]] for metadata in batch.metadata]
    tokens, mask, _ = model.encode(texts)
    return replace(batch, pixels=torch.zeros_like(batch.pixels), tokens=tokens, mask=mask, references=texts)


def picture_alone(batch: CaptionBatch) -> CaptionBatch:
    """Every caption refused."""
    return replace(batch, mask=torch.zeros_like(batch.mask))
