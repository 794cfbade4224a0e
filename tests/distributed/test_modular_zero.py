"""A modular captioner under ZeRO's stage 3, whose ranks have captions of other lengths, against one process."""

import pytest
import replay
import steps
import torch

from capkit.models.captioners.modular import ModularCaptioner
from capkit.models.encoders.image import SmallCNN
from capkit.objectives.modular import ModularLikelihood
from capkit.testing.distributed import run_distributed
from capkit.train.mle_module import MLEModule


def modular(micro_batch_size, dropout=0.0):
    """Without relation layers, whose own dropout is drawn by the rank."""
    torch.manual_seed(0)
    model = ModularCaptioner(
        steps.tokenizer(), SmallCNN(image_size=32, width=16), width=16, attention_width=8, blocks=2, num_heads=2,
        relation_layers=0, memory=[3, 4], dropout=dropout,
    )  # fmt: skip
    torch.nn.init.normal_(model.head.weight, std=0.3)
    optimizer = steps.AdamW(lr=0.01, betas=(steps.BETA, 0.99), clip_norm=steps.CLIP_NORM)
    return MLEModule(
        model, ModularLikelihood(), optimizer, steps.Linear(), replay.VALIDATION, micro_batch_size=micro_batch_size
    )


def with_classes(batches):
    """Classes of words by their ids."""
    for batch in batches:
        batch.word_classes = torch.where(batch.mask, batch.tokens % 4, -1)
    return batches


def train_all(cases):
    steps.MODULES["modular"] = modular
    of_rank, validation = steps.batches, steps.val_batches
    steps.batches, steps.val_batches = (lambda: with_classes(of_rank())), (lambda: with_classes(validation()))
    return [steps.train("modular", *case) for case in cases]


@pytest.mark.integration
@pytest.mark.nightly
def test_ranks_with_captions_of_other_lengths_do_what_one_process_does():
    (alone,) = train_all([("auto", None)])
    ranks = run_distributed(train_all, 2, [("zero3", None), ("zero3", 2)], timeout_s=900)
    for found in ranks[0]:
        for row, expected in zip(found.rows, alone.rows, strict=True):
            assert row == pytest.approx(expected, rel=1e-4)
        for name, value in found.weights.items():
            torch.testing.assert_close(value, alone.weights[name], rtol=1e-3, atol=1e-4)
