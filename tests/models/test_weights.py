import pytest
import torch
from torch import nn

from capkit.errors import UsageError
from capkit.models.weights import frozen_fingerprint, load_trainable_state, trainable_state, weights_fingerprint


class Tied(nn.Module):
    """A frozen embedding that is also the head, and a trained layer."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 3).requires_grad_(False)
        self.layer = nn.Linear(3, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight


def test_a_frozen_weight_is_left_out_under_each_of_its_names():
    assert trainable_state(Tied()).keys() == {"layer.weight", "layer.bias"}


def test_loading_brings_back_what_was_trained_and_touches_nothing_else():
    source, target = Tied(), Tied()
    frozen = target.embedding.weight.clone()
    load_trainable_state(target, trainable_state(source))
    assert torch.equal(target.layer.weight, source.layer.weight) and torch.equal(target.embedding.weight, frozen)


def test_weights_of_another_model_are_refused_with_their_names():
    state = trainable_state(Tied())
    with pytest.raises(UsageError, match=r"missing: layer.bias; unknown: other; of another shape: layer.weight \(2,\)"):
        load_trainable_state(Tied(), {"layer.weight": torch.zeros(2), "other": torch.zeros(1)})
    assert state.keys() == {"layer.weight", "layer.bias"}


def test_the_fingerprint_sees_frozen_weights_alone():
    model = Tied()
    before = frozen_fingerprint(model)
    model.layer.weight.data += 1
    assert frozen_fingerprint(model) == before
    model.embedding.weight.data[0, 0] += 1
    assert frozen_fingerprint(model) != before
    assert frozen_fingerprint(nn.Linear(2, 2)) == 0


def test_the_fingerprint_of_all_weights_sees_values_names_shapes_types_and_buffers(monkeypatch):
    def fingerprint(change=lambda model: model, model=None):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)) if model is None else model
        change(model)
        return weights_fingerprint(model)

    torch.manual_seed(0)
    wrapped = nn.ModuleDict({"x": nn.Linear(2, 3), "y": nn.BatchNorm1d(3)})
    changes = {
        "none": fingerprint(),
        "a value": fingerprint(lambda model: model[0].bias.data.add_(1e-6)),
        "the mean of a norm": fingerprint(lambda model: model[1].running_mean.add_(1)),
        "the type": fingerprint(lambda model: model.bfloat16()),
        "the names": fingerprint(model=wrapped),
        "the shape": fingerprint(lambda model: setattr(model[0], "weight", nn.Parameter(model[0].weight.view(1, 6)))),
    }
    assert len(set(changes.values())) == len(changes)
    assert fingerprint() == changes["none"]
    monkeypatch.setattr("capkit.models.weights._CHUNK_BYTES", 5)
    assert fingerprint() == changes["none"], "the size of the pieces is of no matter"


def test_the_fingerprint_of_all_weights_is_that_of_the_compiled_module():
    model = nn.Linear(2, 3)
    assert weights_fingerprint(torch.compile(model)) == weights_fingerprint(model)
