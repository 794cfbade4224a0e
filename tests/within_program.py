"""A program of somebody else's: a Hydra application that trains by Lightning, and calls capkit in between.

It writes what its own training gave, and what changed of its process: by capkit, and by a leak of its own.
"""

import json
import logging
import warnings
from pathlib import Path

import hydra
import lightning.pytorch as pl
import torch
from hydra.core.hydra_config import HydraConfig
from process_state import LEAKS, differing, state
from torch.utils.data import DataLoader, TensorDataset

import capkit.api  # what libraries do at their first import is none of a run's doing

TINY = [
    "debug=tiny", "data.train.count=8", "data.val.count=4", "data.test.count=4", "max_steps=1", "val_every=1",
    "controls=0", "model.width=32", "model.num_layers=1", "model.image_encoder.channels=[8,8]",
    "model.image_encoder.blocks=[0,0]", "model.image_encoder.width=32", "decoding.max_length=4",
    "trainer.devices=1", "trainer.deterministic=true", "torch_threads=2",
]  # fmt: skip


class Line(pl.LightningModule):
    """Fits y = x, with dropout, so that its losses tell where torch's random numbers stand."""

    def __init__(self):
        super().__init__()
        self.layer, self.losses = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5)), []

    def training_step(self, batch, batch_idx):
        loss = (self.layer(batch[0]) - batch[0]).square().mean()
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trained(folder):
    model = Line()
    data = DataLoader(TensorDataset(torch.arange(32.0).view(8, 4) / 32), batch_size=2, shuffle=True)
    pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False,
        enable_model_summary=False, default_root_dir=folder,
    ).fit(model, data)  # fmt: skip
    return model.losses


@hydra.main(config_path=None, config_name=None, version_base="1.3")
def main(cfg):
    folder = Path(HydraConfig.get().runtime.output_dir)
    logging.getLogger("lightning.pytorch").setLevel(logging.INFO)
    warnings.filterwarnings("error", "of the program around")
    pl.seed_everything(3)
    found = {"losses": [trained(folder)], "steps": [], "changed": []}
    before = state()
    for trainer in cfg.trainers:
        run = capkit.train(*TINY, f"trainer={trainer}", run_dir=folder / trainer)
        found["steps"].append(run.numbers["train/steps"])
        found["changed"].append(differing(before, state()))
    found["losses"].append(trained(folder))
    found["folder"] = HydraConfig.get().runtime.output_dir == str(folder)
    before = state()
    LEAKS[cfg.planted]()
    found["changed"].append(differing(before, state()))
    Path(cfg.out).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
