"""A validation before training, where ranks that are asked to stop leave without meeting."""

import pytest
from rl_steps import captioner, loader

from capkit.decoding.config import Decoding
from capkit.objectives.cross_entropy import CrossEntropy
from capkit.optim.optimizers import AdamW
from capkit.optim.schedules import Linear
from capkit.testing.distributed import bare_trainer
from capkit.train.mle_module import MLEModule


class NumberOfCaptions:
    def score(self, captions, references, metadata):
        return {"captions": float(len(captions))}


@pytest.mark.parametrize(("is_stopping", "logged"), [(False, {"val/loss", "val/captions"}), (True, set())])
def test_a_validation_that_is_cut_logs_no_half_of_its_numbers(is_stopping, logged):
    metrics = {"captions": NumberOfCaptions()}
    module = MLEModule(captioner(), CrossEntropy(0.0), AdamW(lr=0.01), Linear(), Decoding(max_length=6), metrics)
    module.is_stopping = lambda: is_stopping
    trainer = bare_trainer()
    trainer.validate(module, loader(1), verbose=False)
    assert set(trainer.callback_metrics) == logged
