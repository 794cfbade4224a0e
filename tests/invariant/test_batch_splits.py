"""One optimizer step gives the same gradient however its batch is cut: 1 x 8, micro-batches, 2 processes x 4."""

import lightning.pytorch as pl
import pytest
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

from capkit.decoding.config import Decoding
from capkit.models.captioners.encoder_decoder import EncoderDecoder
from capkit.models.encoders.image import SmallCNN
from capkit.objectives.cross_entropy import CrossEntropy
from capkit.objectives.view_triplet import ViewTriplet
from capkit.optim.optimizers import AdamW
from capkit.optim.schedules import Constant
from capkit.testing.distributed import bare_trainer, run_distributed
from capkit.text.tokenizers import encode_captions, word_tokenizer
from capkit.train.mle_module import MLEModule
from capkit.types import CaptionBatch

# Lengths differ, so that an average of averages would show.
CAPTIONS = [["a"], ["a red ball"], ["one two three four five six"], ["a b"], ["c"], ["x y z"], ["u"], ["p q r s t"]]
OBJECTS = torch.tensor([5, 5, 6, 6, 7, 7, 8, 8])  # of two processes, each has one view of an object
STEPS = 3
SIZES = (None, 2)  # micro-batches of two processes


def module_of(micro_batch_size: int | None, dropout: float = 0.0) -> MLEModule:
    torch.manual_seed(0)
    tokenizer = word_tokenizer([caption for captions in CAPTIONS for caption in captions])
    model = EncoderDecoder(tokenizer, SmallCNN(image_size=32), width=32, num_layers=1, num_heads=2, dropout=dropout)
    optimizer = AdamW(lr=0.01, clip_norm=0.5)
    return MLEModule(model, CrossEntropy(0.1), optimizer, Constant(), Decoding(), micro_batch_size=micro_batch_size)


def batches(rank: int, world_size: int) -> list[CaptionBatch]:
    tokenizer = word_tokenizer([caption for captions in CAPTIONS for caption in captions])
    tokens, mask, prompt_length = encode_captions(tokenizer, CAPTIONS, prompt="", max_length=12)
    pixels = torch.randn(STEPS, 8, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    keys = [f"{i}" for i in range(8)]
    captions = {"tokens": tokens, "mask": mask, "prompt_length": prompt_length}
    whole = [CaptionBatch(keys, images, **captions, objects=OBJECTS) for images in pixels]
    return [batch.select(list(range(rank, 8, world_size))) for batch in whole]


class Keep(pl.Callback):
    def __init__(self):
        self.rows = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.rows.append((float(outputs["loss"]), float(outputs["grad_norm"])))


def trajectory(
    micro_batch_size: int | None, distributed: bool = False, dropout: float = 0.0, **settings: object
) -> list[tuple[float, float]]:
    """(loss, gradient norm before clipping) of each step. `settings` are attributes of the module."""
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if distributed else (0, 1)
    keep = Keep()
    trainer = bare_trainer(max_steps=STEPS, callbacks=[keep])
    loader = DataLoader(batches(rank, world_size), batch_size=None)
    module = module_of(micro_batch_size, dropout)
    for name, value in settings.items():
        setattr(module, name, value)
    trainer.fit(module, loader)
    return keep.rows


@pytest.fixture(scope="module")
def whole() -> list[tuple[float, float]]:
    return trajectory(None)


def same(a: list[tuple[float, float]], b: list[tuple[float, float]]) -> bool:
    return torch.allclose(torch.tensor(a), torch.tensor(b), rtol=2e-5, atol=0)


@pytest.mark.parametrize("micro_batch_size", [1, 3, 4])
def test_micro_batches_equal_the_whole_batch(whole, micro_batch_size):
    assert same(whole, trajectory(micro_batch_size))


def both_sizes() -> list[list[tuple[float, float]]]:
    """Runs in one process: starting Python takes longer than a run."""
    runs = [trajectory(size, distributed=True) for size in SIZES]
    return runs + [trajectory(size, distributed=True, objective=triplets()) for size in SIZES]


@pytest.fixture(scope="module")
def two_ranks() -> list[list[list[tuple[float, float]]]]:
    return run_distributed(both_sizes, 2)


@pytest.mark.integration
@pytest.mark.parametrize("number", range(len(SIZES)), ids=str)
def test_two_processes_equal_one(whole, two_ranks, number):
    first, second = (rank[number] for rank in two_ranks)
    assert first == second
    assert same(whole, first)


def triplets() -> ViewTriplet:
    return ViewTriplet(CrossEntropy(0.1), weight=0.5)


@pytest.fixture(scope="module")
def whole_triplets(whole) -> list[tuple[float, float]]:
    found = trajectory(None, objective=triplets())
    assert not same(found, whole)
    return found


@pytest.mark.parametrize("micro_batch_size", [1, 3, 4])
def test_triplets_of_micro_batches_are_those_of_the_whole_batch(whole_triplets, micro_batch_size):
    """The pool is the whole step: one image has no other view in its micro-batch."""
    assert same(whole_triplets, trajectory(micro_batch_size, objective=triplets()))


@pytest.mark.integration
@pytest.mark.parametrize("number", range(len(SIZES)), ids=str)
def test_triplets_of_two_processes_are_those_of_one(whole_triplets, two_ranks, number):
    first, second = (rank[len(SIZES) + number] for rank in two_ranks)
    assert first == second
    assert same(whole_triplets, first)


def test_the_gradient_is_that_of_the_mean_over_all_tokens(whole):
    module = module_of(None)
    batch = batches(0, 1)[0]
    context = module.model.encode(batch)
    losses = module.model.token_losses(context, batch.tokens, batch.mask, 0.1)
    mask = batch.mask[..., 1:]
    mean = losses[mask].mean()
    mean.backward()
    norm = torch.stack([p.grad.norm() for p in module.parameters() if p.grad is not None]).norm()
    assert same([(float(mean), float(norm))], whole[:1])


def test_a_step_that_averages_averages_would_be_noticed(whole):
    module = module_of(None)
    batch = batches(0, 1)[0]
    means = []
    for half in (batch[:4], batch[4:]):
        losses = module.model.token_losses(module.model.encode(half), half.tokens, half.mask, 0.1)
        means.append(losses[half.mask[..., 1:]].mean())
    assert not same([(float(torch.stack(means).mean()), 1.0)], [(whole[0][0], 1.0)])


def test_dropout_of_a_step_does_not_depend_on_what_was_drawn_before(whole):
    first = trajectory(None, dropout=0.3)
    torch.rand(13)
    assert first == trajectory(None, dropout=0.3)
    assert not same(first, whole)


def test_dropout_differs_from_step_to_step(monkeypatch):
    """With the same batch in each step and a learning rate of 0 nothing else does."""
    whole_batches = batches
    monkeypatch.setitem(globals(), "batches", lambda rank, world_size: whole_batches(rank, world_size)[:1] * STEPS)
    still = {"schedule": Constant(0.0)}
    assert len({loss for loss, _ in trajectory(None, **still)}) == 1
    assert len({loss for loss, _ in trajectory(None, dropout=0.3, **still)}) == STEPS
