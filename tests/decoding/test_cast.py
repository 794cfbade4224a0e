import torch
from torch import nn

from capkit.decoding.cast import cast_once


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(7, 4), nn.LayerNorm(4), nn.Linear(4, 4)), nn.Linear(4, 7, bias=False)


def test_under_autocast_linear_layers_hold_their_weights_in_its_type_until_the_end():
    body, head = network()
    head.weight = body[0].weight  # tied
    before = dict(body.named_parameters()) | {"head": head.weight}
    tokens = torch.arange(7)
    with torch.autocast("cpu", torch.bfloat16):
        expected = head(body(tokens))
        with cast_once([body], head, torch.device("cpu")):
            assert body[2].weight.dtype == head.weight.dtype == torch.bfloat16
            assert body[0].weight.dtype == body[1].weight.dtype == torch.float32
            assert torch.equal(head(body(tokens)), expected)
    after = dict(body.named_parameters()) | {"head": head.weight}
    assert list(before) == list(after) and all(after[name] is before[name] for name in before)


def test_without_autocast_nothing_is_cast():
    body, head = network()
    with cast_once([body], head, torch.device("cpu")):
        assert body[2].weight.dtype == torch.float32


def test_parameters_are_put_back_after_an_error():
    body, head = network()
    weight = body[2].weight
    try:
        with torch.autocast("cpu", torch.bfloat16), cast_once([body], head, torch.device("cpu")):
            raise RuntimeError
    except RuntimeError:
        pass
    assert body[2].weight is weight
