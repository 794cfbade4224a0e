"""Gradient caching: micro-batches give the gradient of the whole batch, and replay their random numbers."""

import pytest
import torch

from capkit.distributed.collectives import rank
from capkit.objectives.contrastive.edited_candidates import EditedCandidates
from capkit.objectives.contrastive.info_nce import InfoNCE
from capkit.objectives.contrastive.pair_sum import PairSum
from capkit.objectives.grammar import GrammarCrossEntropy
from capkit.optim.optimizers import AdamW
from capkit.optim.schedules import Constant
from capkit.testing.distributed import run_distributed
from capkit.testing.models import batch_for, two_tower
from capkit.train.dual_encoder_module import DualEncoderModule, join, retrieval_numbers
from capkit.types import PairEmbeddings
from capkit.utils.rng import stable_hash

SHAPES = ["circle", "square", "red", "blue"]
CAPTIONS = [[f"a {a} {b}"] if a != b else [f"a {a}", f"one {b}"] for a in SHAPES for b in SHAPES][:9]


def module(micro_batch_size, dropout=0.0) -> DualEncoderModule:
    return DualEncoderModule(two_tower(dropout), InfoNCE(), AdamW(lr=1e-3), Constant(), micro_batch_size)


def gradient(this: DualEncoderModule, pairs: PairEmbeddings) -> tuple[torch.Tensor, torch.Tensor]:
    loss = this.objective(pairs, 0).loss
    loss.backward()
    flat = torch.cat([p.grad.flatten() for p in this.parameters() if p.grad is not None])
    return loss.detach(), flat


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_micro_batches_give_the_gradient_of_the_whole_batch(size):
    whole, cut = module(None), module(size)
    loss, expected = gradient(whole, whole.embed(batch_for(whole.model, CAPTIONS)))
    cut_loss, found = gradient(cut, cut.embed(batch_for(cut.model, CAPTIONS)))
    assert float(cut_loss) == pytest.approx(float(loss), rel=1e-6)
    assert float(torch.cosine_similarity(found, expected, dim=0)) > 0.999999
    assert float(found.norm() / expected.norm()) == pytest.approx(1, abs=1e-5)


def test_a_loss_within_micro_batches_would_be_noticed():
    """What plain accumulation computes: negatives of the own micro-batch alone."""
    whole, parts = module(None), module(None)
    _, expected = gradient(whole, whole.embed(batch_for(whole.model, CAPTIONS)))
    batch = batch_for(parts.model, CAPTIONS)
    for start in (0, 4):
        (parts.objective(parts.embed(batch[start : start + 4]), 0).loss / 2).backward()
    found = torch.cat([p.grad.flatten() for p in parts.parameters() if p.grad is not None])
    assert float(torch.cosine_similarity(found, expected, dim=0)) < 0.99


def test_the_second_forward_pass_draws_what_the_first_one_drew():
    """Equal to keeping all activations, where nothing is drawn twice."""
    cached, kept = module(3, dropout=0.5), module(3, dropout=0.5)
    batch = batch_for(cached.model, CAPTIONS)
    torch.manual_seed(stable_hash("dropout"))
    loss, found = gradient(cached, cached.embed(batch))
    torch.manual_seed(stable_hash("dropout"))
    parts = join([kept.model(part) for part in kept._micro_batches(batch)])
    kept_loss, expected = gradient(kept, parts)
    assert float(loss) == float(kept_loss)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-7)
    torch.manual_seed(stable_hash("other numbers"))
    other = module(3, dropout=0.5)
    assert float(gradient(other, other.embed(batch))[0]) != float(loss)


def test_micro_batches_keep_no_activations():
    """What stays between the passes grows with the embeddings, not with the towers' activations."""

    def held(size):
        this = module(size)
        batch = batch_for(this.model, CAPTIONS[:8])
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            this.embed(batch)
        return sum(sizes)

    assert held(2) < held(None) / 10


def _validated(num_ranks_with_a_batch) -> dict[str, float]:
    """What a rank logs of a validation whose batches go to the first ranks, by an objective that reads extras."""
    model = two_tower(grammar_head=True)
    objective = PairSum({"edits": EditedCandidates(InfoNCE()), "grammar": GrammarCrossEntropy()})
    this = DualEncoderModule(model, objective, AdamW(lr=1e-3), Constant())
    logged: dict[str, float] = {}
    this.log_dict = lambda numbers, **_: logged.update(numbers)
    batch = batch_for(model, CAPTIONS[:8])
    batch.negative_tokens, batch.negative_mask = batch.tokens.flip(0), batch.mask.flip(0)
    share = len(batch) // num_ranks_with_a_batch
    this.eval()
    this.on_validation_epoch_start()
    with torch.no_grad():
        if rank() < num_ranks_with_a_batch:
            this.validation_step(batch[rank() * share : (rank() + 1) * share], 0)
        this.on_validation_epoch_end()
    return logged


@pytest.mark.integration
def test_a_rank_without_a_validation_batch_takes_part_in_what_an_objective_reads_of_it():
    """A validation set smaller than the ranks' batches; grammar logits and edited captions are read on every rank."""
    alone = _validated(1)
    assert alone["val/loss"] > 0 and alone["val/t2i_r1"] >= 0
    for num_ranks_with_a_batch in (1, 2):
        for found in run_distributed(_validated, 2, num_ranks_with_a_batch):
            assert found == pytest.approx(alone, rel=1e-5)


def test_retrieval_within_a_split_counts_each_caption_of_an_image():
    vectors = torch.nn.functional.normalize(torch.eye(3) + 0.1, dim=-1)
    ids = torch.tensor([30, 10, 20])
    owners = torch.tensor([10, 20, 30, 30])
    texts = vectors[[1, 2, 0, 1]]  # the last caption looks like image 10, and is image 30's
    pairs = PairEmbeddings(vectors, texts, torch.tensor(10.0), ids, owners, torch.arange(4))
    numbers = retrieval_numbers(pairs)
    # t2i: three of four captions find their image. i2t: image 30 finds its first; image 10 ties with a wrong caption.
    assert numbers["t2i_r1"] == pytest.approx(3 / 4)
    assert numbers["i2t_r1"] == pytest.approx((1 + 1 + 0.5) / 3)
