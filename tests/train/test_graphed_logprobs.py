"""The update's passes by captured graphs, with a stand-in for CUDA's: what is replayed, kept and given up.

tests/models/test_gradient_graphs.py has the graphs themselves, on a GPU.
"""

from dataclasses import replace

import pytest
import torch
from rl_steps import OBJECTIVES, Keep, batches_of_all_ranks, captioner, module_of, trainer_of
from torch.utils.data import DataLoader

from capkit.models import gradient_graphs
from capkit.models.captioners.clip_prefix import ClipPrefix
from capkit.models.gradient_graphs import can_graph_gradient, gradient_by_graph, release_gradient_graphs
from capkit.testing import models as tiny
from capkit.train.rl.graphed_logprobs import can_graph_logprobs, graphed_logprobs
from capkit.types import CaptionBatch, Samples

pytestmark = pytest.mark.integration
WIDTH = 6  # of features


class StandIn(gradient_graphs.GradientGraph):
    """Keeps inputs at one place, and writes over what the last forward pass kept, as graphs do."""

    captured = 0

    def __init__(self, network, run, inputs, weights):
        type(self).captured += 1
        self._run, self._weights = run, weights
        self._inputs = tuple(value.clone() for value in inputs)
        self.number, self._waits = 0, False

    def forward(self, inputs):
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self.number, self._waits = self.number + 1, True
        with torch.enable_grad():
            self._output = self._run(*self._inputs)
        return self._output.detach().clone()

    def backward(self, slope, number):
        self._slope = torch.empty_like(slope)
        self._backward = self
        self._gradients = torch.autograd.grad(self._output, self._weights, slope, allow_unused=True, retain_graph=True)
        return super().backward(slope, number)

    def replay(self):
        pass


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setattr(gradient_graphs, "GradientGraph", StandIn)
    monkeypatch.setattr(StandIn, "captured", 0)
    return StandIn


def samples_of(length, seed=0, images=3, count=2):
    torch.manual_seed(seed)
    tokens = torch.randint(4, 12, (images, count, length + 1))
    mask = torch.arange(length + 1) < torch.randint(2, length + 2, (images, count, 1))
    ended = torch.ones(images, count, dtype=torch.bool)
    return Samples([["x"] * count] * images, tokens, mask, ended, torch.zeros(images, count, length))


def batch_of(seed, images=3):
    return CaptionBatch([f"{seed}-{i}" for i in range(images)], features=torch.randn(images, 4, WIDTH))


def models():
    torch.manual_seed(0)
    gpt2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2}
    prefix = ClipPrefix(gpt2, tiny.tokenizer(), feature_width=WIDTH, max_length=12, prefix_length=2)
    return {"encoder_decoder": captioner().eval(), "clip_prefix": prefix.eval()}


def gradients_of(model, logprobs):
    model.zero_grad()
    (logprobs * torch.linspace(-1, 1, logprobs.numel()).view(logprobs.shape)).sum().backward()
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("name", ["encoder_decoder", "clip_prefix"])
def test_logprobs_and_gradients_are_those_op_by_op(name, stand_in):
    """At lengths that are filled up, with weights that an update changed in place, and one that is frozen."""
    model = models()[name]
    next(model.parameters()).requires_grad_(False)
    for step, length in enumerate([6, 5, 7, 6, 8, 3]):
        batch, samples = batch_of(step), samples_of(length, step)
        assert can_graph_logprobs(model, batch, samples) is False  # on a CPU
        found = graphed_logprobs(model, batch, samples, 0.7)
        ours = gradients_of(model, found)
        naive = model.logprobs(model.encode(batch), samples.tokens, samples.mask, 0.7)
        torch.testing.assert_close(found, naive, rtol=0, atol=1e-6)
        expected = gradients_of(model, naive)
        assert ours.keys() == expected.keys()
        for weight, value in expected.items():
            torch.testing.assert_close(ours[weight], value, rtol=0, atol=1e-5)
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(1.01)
    assert stand_in.captured == 1  # 5 to 8 tokens are one shape, and 3 came once


@pytest.mark.parametrize("name", ["greedy", "whiten", "ppo_k3", "weighted_sum"])
def test_training_with_passes_that_begin_before_rewards_is_training_op_by_op(name, stand_in, monkeypatch):
    """The stand-in's forward pass of a step's first update runs before its rewards are computed."""
    monkeypatch.setattr(
        "capkit.train.rl.graphed_logprobs.can_graph_gradient", lambda network, device: torch.is_grad_enabled()
    )

    def run(graph):
        order = []
        module = module_of(OBJECTIVES[name](), graph=graph)
        score, launch = module.score_rollout, module._begin_update
        module.score_rollout = lambda *args: (order.append("rewards"), score(*args))[1]
        module._begin_update = lambda *args: (order.append("begun"), launch(*args))[1]
        keep = Keep()
        trainer_of("auto", 4, [keep]).fit(module, DataLoader(batches_of_all_ranks(4), batch_size=None))
        return order, keep.outcome

    order, by_graphs = run(True)
    assert order == ["begun", "rewards"] * 4 and stand_in.captured
    captured = stand_in.captured
    _, op_by_op = run(False)
    assert stand_in.captured == captured
    for row, other in zip(by_graphs.rows, op_by_op.rows, strict=True):
        assert row == pytest.approx(other, rel=1e-4, abs=1e-5)
    for weight, value in op_by_op.weights.items():
        torch.testing.assert_close(by_graphs.weights[weight], value, rtol=1e-3, atol=1e-4)


def test_twins_stand_for_weights_at_their_addresses_and_leave_them_as_they_were():
    """Tied weights have one twin, in each place; frozen ones have none."""
    model = models()["encoder_decoder"]
    model.decoder.positions.requires_grad_(False)
    before = dict(model.named_parameters(remove_duplicate=False))
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    batch, samples = batch_of(0), samples_of(6)
    expected = gradients_of(model, model.logprobs(model.encode(batch), samples.tokens, samples.mask))
    model.zero_grad()
    with gradient_graphs._twins(model, weights) as twins:
        within = dict(model.named_parameters(remove_duplicate=False))
        assert within["head.weight"] is within["decoder.embedding.weight"] is not before["head.weight"]
        assert within["decoder.positions"] is before["decoder.positions"]
        assert [twin.data_ptr() for twin in twins] == [weight.data_ptr() for weight in weights]
        logprobs = model.logprobs(model.encode(batch), samples.tokens, samples.mask)
        slopes = torch.linspace(-1, 1, logprobs.numel()).view(logprobs.shape)
        found = torch.autograd.grad((logprobs * slopes).sum(), twins, allow_unused=True)
    names = {id(weight): name for name, weight in model.named_parameters()}
    assert all(weight.grad is None for weight in weights)
    for weight, gradient in zip(weights, found, strict=True):
        torch.testing.assert_close(gradient, expected[names[id(weight)]])
    assert all(weight is before[name] for name, weight in model.named_parameters(remove_duplicate=False))


def test_each_backward_pass_is_the_first_of_the_last_forward_pass(stand_in):
    model = models()["encoder_decoder"]
    batch, samples = batch_of(0), samples_of(8)
    graphed_logprobs(model, batch, samples, 1.0)
    first, second = (graphed_logprobs(model, batch, samples, 1.0).sum() for _ in range(2))
    second.backward(retain_graph=True)
    for again in (first, second):
        with pytest.raises(RuntimeError, match="written over"):
            again.backward()


def test_few_shapes_are_kept_and_all_are_released(stand_in):
    model = models()["encoder_decoder"]
    for images in range(1, 9):
        for _ in range(2):
            graphed_logprobs(model, batch_of(0, images), samples_of(8, images=images), 1.0)
    assert stand_in.captured == 8
    assert len(gradient_graphs._kept[model]) == gradient_graphs.MOST_GRAPHS
    graphed_logprobs(model, batch_of(0, 8), samples_of(8, images=8), 1.0)
    assert stand_in.captured == 8
    release_gradient_graphs(model)
    assert model not in gradient_graphs._kept


def test_settings_and_trained_weights_tell_graphs_apart(stand_in):
    model = models()["encoder_decoder"]
    batch, samples = batch_of(0), samples_of(8)
    for _ in range(2):
        graphed_logprobs(model, batch, samples, 1.0)
        graphed_logprobs(model, batch, samples, 0.5)
    assert stand_in.captured == 2
    next(model.parameters()).requires_grad_(False)
    for _ in range(2):
        graphed_logprobs(model, batch, samples, 1.0)
    assert stand_in.captured == 3


def test_graphs_that_do_not_fit_are_given_up_with_a_warning(monkeypatch):
    class TooLarge(gradient_graphs.GradientGraph):
        def __init__(self, *args):
            raise torch.OutOfMemoryError

    monkeypatch.setattr(gradient_graphs, "GradientGraph", TooLarge)
    weight = torch.nn.Linear(2, 1)
    values = torch.randn(3, 2)
    gradient_by_graph(weight, weight, "x", values)
    with pytest.warns(UserWarning, match="graph=false"):
        found = gradient_by_graph(weight, weight, "x", values)
    torch.testing.assert_close(found, weight(values))
    gradient_by_graph(weight, weight, "x", values)  # and says so once


def test_what_a_graph_cannot_hold_goes_op_by_op():
    model, cuda = models()["encoder_decoder"], torch.device("cuda")
    assert can_graph_gradient(model, cuda)
    assert not can_graph_gradient(model, torch.device("cpu"))
    with torch.no_grad():
        assert not can_graph_gradient(model, cuda)
    model.train()
    assert not can_graph_gradient(model, cuda)
    model.eval()
    hook = model.decoder.register_forward_hook(lambda *args: None)
    assert not can_graph_gradient(model, cuda)
    hook.remove()
    assert can_graph_gradient(model, cuda)


def test_restricted_draws_and_prompts_of_captions_go_op_by_op(monkeypatch):
    model, samples = models()["encoder_decoder"], samples_of(4)
    monkeypatch.setattr("capkit.train.rl.graphed_logprobs.can_graph_gradient", lambda *args: True)
    batch = batch_of(0)
    assert can_graph_logprobs(model, batch, samples)
    support = torch.ones(3, 2, 4, 2, dtype=torch.uint8)
    assert not can_graph_logprobs(model, batch, replace(samples, support=support))
    prompts = torch.ones(3, 1, 2, dtype=torch.long)
    assert not can_graph_logprobs(model, replace(batch, prompts=prompts, prompts_mask=prompts > 0), samples)
    monkeypatch.setattr(model, "is_graphable", lambda: False)
    assert not can_graph_logprobs(model, batch, samples)
