"""Trains a text tower with a grammar head as CLIP-reward does: contrastive loss and grammar loss, image side frozen."""

import torch
from torch import nn

from capkit.models.dual_encoders.two_tower import TwoTower
from capkit.models.tuning.policy import Tuning
from capkit.objectives.contrastive.info_nce import InfoNCE
from capkit.objectives.contrastive.pair_sum import PairSum
from capkit.objectives.grammar import GrammarCrossEntropy
from capkit.optim.optimizers import AdamW
from capkit.optim.schedules import Linear


class ColorPatches(nn.Module):
    """A frozen image encoder that costs nothing: mean colours of 8 x 8 patches through a fixed random layer."""

    width = 64

    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.randn(3, self.width, generator=torch.Generator().manual_seed(0)))

    def forward(self, pixels):
        return (nn.functional.avg_pool2d(pixels, 8).flatten(2).transpose(1, 2) @ self.weight).relu()


def train_grammar_head(text_tower, data, steps, lr, tower_lr=1.0, seed=0, contrastive=None, **image):
    """The trained dual encoder. `image` is image_tower or feature_width; `tower_lr` multiplies the tower's rate."""
    torch.manual_seed(seed)
    model = TwoTower(text_tower, embed_dim=64, grammar_head=True, tune_image=Tuning("frozen"), **image)
    objective = PairSum({"info_nce": contrastive or InfoNCE(), "grammar": GrammarCrossEntropy()})
    optimizer = AdamW(lr, weight_decay=0.01, eps=1e-6, lr_multipliers={"text_tower.*": tower_lr})(model)
    rates, schedule = [group["lr"] for group in optimizer.param_groups], Linear(warmup=0.1)
    data.attach(encode=model.encode)
    data.set_steps(0, steps)
    for step, batch in enumerate(data.train_dataloader()):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * schedule(step, steps)
        objective(model(batch), step).loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()
