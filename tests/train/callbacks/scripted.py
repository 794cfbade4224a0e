"""A run whose logged numbers are written down beforehand; its one weight is the number of steps done."""

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader

from capkit.distributed.collectives import means_over_ranks, rank
from capkit.testing.distributed import bare_trainer


class Scripted(pl.LightningModule):
    """`steps[i]`: what step i + 1 logs: the mean over ranks, of which rank r sees r more than the first.

    `validations[n]`: the metrics of a validation after n steps. `dies_at`: steps after which the run is killed.
    """

    def __init__(self, steps=(), validations=None, dies_at=None):
        super().__init__()
        self.automatic_optimization = False
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.steps, self.validations, self.dies_at = steps, validations or {}, dies_at

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)

    def training_step(self, batch, batch_idx):
        if self.global_step == self.dies_at:
            raise Killed
        seen = self.steps[self.global_step] if self.steps else {}
        optimizer = self.optimizers()
        self.weight.grad = torch.full((1,), -1.0)
        optimizer.step()
        numbers = means_over_ranks({name: (value + rank(), 1) for name, value in seen.items()})
        return {name: torch.tensor(value) for name, value in numbers.items()}

    def validation_step(self, batch, batch_idx):
        for name, value in self.validations[int(self.weight)].items():
            self.log(f"val/{name}", float(value))


class Killed(Exception):
    pass


class SaveWhatReadersWant(Callback):
    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        checkpoint["capkit"] = {}


def rows(count):
    return DataLoader(torch.zeros(count, 1), batch_size=1)


def trainer_of(callbacks, max_steps, val_every=None):
    return bare_trainer(
        max_steps=max_steps, callbacks=[*callbacks, SaveWhatReadersWant()], val_check_interval=val_every
    )


def fit(module, callbacks, max_steps, val_every=None, ckpt_path=None):
    """The trainer, after it has trained."""
    trainer = trainer_of(callbacks, max_steps, val_every)
    train(trainer, module, ckpt_path)
    return trainer


def train(trainer, module, ckpt_path=None):
    held_out = rows(1) if module.validations else None
    trainer.fit(
        module, rows(trainer.max_steps), held_out, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None
    )
