"""Which graphs serve a rollout and which are kept, without a GPU: captures are counted and not made."""

import pytest
import torch
from torch import nn

from capkit.decoding import graphs
from capkit.decoding.config import Decoding
from capkit.decoding.engine import Given, Plan, Written
from capkit.models.captioners.clip_prefix import ClipPrefix
from capkit.models.tuning.lora import adapters_off
from capkit.text.tokenizers import word_tokenizer
from capkit.types import Context

GPT2 = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2}
GIB = 2**30


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return ClipPrefix(GPT2, word_tokenizer(["a b"]), feature_width=4, prefix_length=3, lora={"rank": 1}).eval()


@pytest.fixture
def captured(monkeypatch):
    """Names of what was run, in order: the key of each capture, "replay", "loop"."""
    found = []

    class Graphs:
        def __init__(self, captioner, context, plan, ids):
            found.append("capture")
            self.num_bytes = len(context.states) * GIB

        def __call__(self, context, ids):
            found.append("replay")
            return Written()

    monkeypatch.setattr(graphs, "RolloutGraphs", Graphs)
    monkeypatch.setattr(graphs, "run", lambda *_: found.append("loop") or Written())
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (0, 80 * GIB))
    return found


def write(model, count=2, mask=None, length=5, conditions=None):
    context = Context(torch.zeros(count, 3, 8), mask, [str(number) for number in range(count)], conditions)
    plan = Plan(Decoding("sample", max_length=length), 2, False, (1,), 2)
    graphs.run_graphs(model, context, plan, torch.zeros(count, 2, dtype=torch.long))


@pytest.fixture(autouse=True)
def nothing_kept(model):
    yield
    graphs.release_graphs(model)


def test_a_shape_is_captured_when_it_comes_again(model, captured):
    for _ in range(3):
        write(model)
    write(model, count=3)
    assert captured == ["loop", "capture", "replay", "replay", "loop"]


def test_graphs_of_adapters_are_not_those_without(model, captured):
    for _ in range(2):
        write(model)
    with adapters_off(model):
        for _ in range(2):
            write(model)
    write(model)
    assert captured == ["loop", "capture", "replay"] * 2 + ["replay"]


def test_a_masked_context_and_a_whole_one_have_their_own(model, captured):
    mask = torch.ones(2, 3, dtype=torch.bool)
    for given in (None, None, mask, mask, None):
        write(model, mask=given)
    assert captured == ["loop", "capture", "replay"] * 2 + ["replay"]


def test_contexts_with_and_without_conditions_and_of_other_numbers_have_their_own(model, captured):
    """Of other values under the same shape there is one: they are copied to where it reads them."""
    for given in (None, torch.zeros(2, 1, 2, 8), torch.zeros(2, 3, 2, 8)):
        for _ in range(2):
            write(model, conditions=given)
    write(model, conditions=torch.ones(2, 3, 2, 8))
    assert captured == ["loop", "capture", "replay"] * 3 + ["replay"]


def test_a_replay_reads_the_states_mask_conditions_and_ids_that_it_is_given():
    """What the graphs read lies at its own place; without any graph, the copies are all that a call does."""
    held = object.__new__(graphs.RolloutGraphs)
    mask, ids = torch.ones(2, 3, dtype=torch.bool), torch.zeros(2, 2, dtype=torch.long)
    held.context = Context(torch.zeros(2, 3, 8), mask, ["a", "b"], torch.zeros(2, 1, 2, 8))
    held.given, held.graphs, held.written = Given(torch.tensor([1]), None, ids), [], Written()
    places = held.context.states, held.context.mask, held.context.conditions, held.given.ids
    values = torch.rand(2, 3, 8), ~mask, torch.rand(2, 1, 2, 8), ids + 5
    held(Context(*values[:2], ["c", "d"], values[2]), values[3])
    assert all(torch.equal(place, value) for place, value in zip(places, values, strict=True))


def test_a_moved_weight_has_its_own(model, captured):
    for _ in range(2):
        write(model)
    bias = model.lm.transformer.ln_f.bias
    bias.data = bias.data.clone()
    write(model)
    assert captured == ["loop", "capture", "replay", "loop"]


def test_the_number_and_the_memory_of_graphs_are_bounded(model, captured):
    for length in range(1, graphs.MOST_GRAPHS + 3):
        for _ in range(2):
            write(model, count=1, length=length)
    assert len(graphs._kept[model]) == graphs.MOST_GRAPHS and graphs.graph_bytes(model) == graphs.MOST_GRAPHS * GIB
    for _ in range(2):
        write(model, count=17)  # with three others of 1 GiB a quarter of 80
    assert graphs.graph_bytes(model) == 20 * GIB
    for _ in range(2):
        write(model, count=30)  # more than a quarter by itself: it stays alone
    assert graphs.graph_bytes(model) == 30 * GIB and len(graphs._kept[model]) == 1
    graphs.release_graphs(model)
    assert graphs.graph_bytes(model) == 0


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.register_buffer("scale", torch.ones(2))


def test_weights_and_buffers_at_other_addresses_are_other_states():
    network = Scaled()
    before, scale = graphs.state_of([network]), network.scale
    network.scale.fill_(3.0)
    network.linear.weight.data.mul_(2.0)
    assert graphs.state_of([network]) == before, "changed in place"
    network.scale = scale.clone()
    assert graphs.state_of([network]) != before
    network.scale = scale
    assert graphs.state_of([network]) == before
    network.linear.weight.data = network.linear.weight.data.clone()
    assert graphs.state_of([network]) != before
