"""Training steps with layers recomputed, lengths filled up, and features of a frozen encoder shared: equal to plain."""

from contextlib import nullcontext

import pytest
import torch
from rl_steps import CAPTIONS, OBJECTIVES, Overlap, batches_of_all_ranks, captioner, tokenizer, trainer_of
from torch import nn
from torch.utils.data import DataLoader

from capkit.decoding.config import Decoding
from capkit.distributed.zero import Zero
from capkit.errors import UsageError
from capkit.models.captioners.encoder_decoder import EncoderDecoder
from capkit.models.captioners.head_losses import _measured, _slopes
from capkit.models.encoders.compile import recompute_blocks, restore_blocks
from capkit.models.encoders.image import SmallCNN
from capkit.models.encoders.image_tokens import frozen_features
from capkit.objectives.cross_entropy import CrossEntropy
from capkit.optim.optimizers import AdamW
from capkit.optim.schedules import Linear
from capkit.scorers.reward import Reward, RewardTerm
from capkit.text.tokenizers import encode_captions
from capkit.train.mle_module import MLEModule
from capkit.train.rl.module import RLModule
from capkit.train.train_module import TrainModule
from capkit.types import CaptionBatch

STEPS = 2


def weights_after(model, batches, **settings):
    module = MLEModule(model, CrossEntropy(0.1), AdamW(lr=0.01, eps=1e-4), Linear(), Decoding(), **settings)
    trainer_of("auto", STEPS, []).fit(module, DataLoader(batches, batch_size=None))
    return module.model.state_dict()


class Counted(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer, self.calls = layer, 0

    def forward(self, *args):
        self.calls += 1
        return self.layer(*args)


def test_recomputed_layers_learn_the_same_with_dropout():
    """The second run of a layer draws the same dropout: weights are equal bit for bit."""
    batches = batches_of_all_ranks(STEPS)
    plain = weights_after(captioner(dropout=0.3), batches)
    again = weights_after(captioner(dropout=0.3), batches, recompute=True)
    assert all(torch.equal(again[name], value) for name, value in plain.items())


def test_a_layer_runs_twice_with_gradient_and_once_without():
    tower = nn.Module()
    tower.layers = nn.ModuleList([Counted(nn.Linear(3, 3))])
    layer = tower.layers[0]
    recompute_blocks([tower])
    layer(torch.randn(2, 3, requires_grad=True)).sum().backward()
    assert layer.calls == 2
    with torch.no_grad():
        layer(torch.randn(2, 3))
    assert layer.calls == 3
    restore_blocks([tower])
    layer(torch.randn(2, 3, requires_grad=True)).sum().backward()
    assert layer.calls == 4


@pytest.mark.parametrize("multiple", [4, 5, 64])
def test_a_length_that_is_filled_up_changes_no_loss_and_no_gradient(multiple):
    """64: more than the positions that the model has, which bound it."""
    (batch,) = batches_of_all_ranks(1)
    found = []
    for each in (1, multiple):
        model = captioner()
        model.length_multiple = each
        seen = []
        model.decoder.register_forward_pre_hook(lambda module, args, seen=seen: seen.append(args[0].shape[1]))
        with torch.no_grad():
            losses = model.token_losses(model.encode(batch), batch.tokens, batch.mask, 0.1)
        values = [losses, model.logprobs(model.encode(batch), batch.tokens, batch.mask)]
        found.append([losses, *torch.autograd.grad(values[1].sum(), list(model.decoder.layers.parameters()))])
    length = batch.tokens.shape[-1] - 1
    assert seen[0] == min(-(-length // multiple) * multiple, 12) > length
    for ours, theirs in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("compile", [True, False])
def test_compiled_layers_are_refused_where_zero_gathers_weights_within_them(compile, monkeypatch):
    module = MLEModule(captioner(), CrossEntropy(), AdamW(lr=0.01), Linear(), Decoding(), compile=compile)
    monkeypatch.setattr(TrainModule, "setup", lambda self, stage: setattr(self, "strategy", Zero(3)))
    with pytest.raises(UsageError, match="compile=false") if compile else nullcontext():
        module.setup("fit")


def with_pixels(num_steps):
    tokens, mask, length = encode_captions(tokenizer(), CAPTIONS, prompt="", max_length=12)
    keys = [f"{i}" for i in range(len(CAPTIONS))]
    pixels = torch.rand(num_steps, len(CAPTIONS), 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return [CaptionBatch(keys, part, None, tokens, mask, length, references=CAPTIONS) for part in pixels]


def policy(frozen):
    torch.manual_seed(0)
    encoder = SmallCNN(8, (4, 4), (0, 0), 6)
    encoder.requires_grad_(not frozen)
    model = EncoderDecoder(tokenizer(), Counted(encoder), 6, 16, 1, 2, max_length=12, dropout=0.0)
    return model


def train_by_rewards(objective, frozen, shares, monkeypatch, size=None):
    with monkeypatch.context() as patch:
        patch.setattr(Counted, "width", 6, raising=False)
        model = policy(frozen)
        if not shares:
            patch.setattr("capkit.train.rl.module.frozen_features", lambda batch, encoder: None)
        reward = Reward({"overlap": RewardTerm(Overlap(), weight=2.0)})
        optimizer = AdamW(lr=0.01, clip_norm=0.5, eps=1e-4)
        module = RLModule(
            model, OBJECTIVES[objective](), reward, optimizer, Linear(), Decoding(), rollout_batch_size=size
        )
        module.keep_reference()
        trainer_of("auto", STEPS, []).fit(module, DataLoader(with_pixels(STEPS), batch_size=None))
    return model


@pytest.mark.parametrize("objective", ["greedy", "ppo_k2"])
def test_a_frozen_encoder_reads_a_picture_once_a_step(objective, monkeypatch):
    """For the rollout, each update and the reference; weights are those of a run that reads it each time."""
    shared = train_by_rewards(objective, True, True, monkeypatch)
    each = train_by_rewards(objective, True, False, monkeypatch)
    assert shared.image_encoder.calls == STEPS < each.image_encoder.calls
    for name, value in each.state_dict().items():
        assert torch.equal(shared.state_dict()[name], value)


def test_features_of_parts_are_those_of_the_whole(monkeypatch):
    whole, parts = (train_by_rewards("greedy", True, True, monkeypatch, size) for size in (None, 3))
    assert parts.image_encoder.calls == STEPS * -(-len(CAPTIONS) // 3)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, atol=1e-5, rtol=1e-4)


def test_features_are_not_kept_where_the_encoder_trains_or_there_are_some():
    (batch,) = with_pixels(1)
    encoder = SmallCNN(8, (4, 4), (0, 0), 6)
    assert frozen_features(batch, encoder) is None and frozen_features(batch, None) is None
    encoder.requires_grad_(False)
    kept = frozen_features(batch, encoder)
    assert torch.equal(kept, encoder(batch.pixels))
    (cached,) = batches_of_all_ranks(1)
    assert frozen_features(cached, encoder) is None


def test_slopes_of_the_padding_are_zero():
    logits = torch.full((3, 16), -torch.inf)
    logits[:, :11] = torch.randn(3, 11)
    targets = torch.tensor([0, 5, 10])
    for smoothing in (0.0, 0.1):
        _, nll, sums = _measured(logits, targets, 11, 1.0, smoothing)
        floor = smoothing / 11
        slopes = _slopes(logits, targets, sums, torch.expm1(-nll) + smoothing - floor, torch.ones(3), 11, 1.0, floor)
        assert not slopes[:, 11:].any() and torch.allclose(slopes.sum(-1), torch.zeros(3), atol=1e-6)
