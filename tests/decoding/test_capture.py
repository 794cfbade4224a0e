"""Owners of CUDA graphs capture on streams of their own. The second test needs a GPU."""

import gc

import pytest
import torch
from torch import nn

from capkit.decoding import capture
from capkit.models.graphed import by_graph, release_graphs

ROWS, WIDTH = 32768, 640  # of a product whose sum over rows cuBLAS divides, by way of its workspace


class Owner:
    pass


class InTurn:
    """torch's streams: a few of each priority, given out in turn."""

    given = 0

    def __init__(self, priority):
        self.device_index = 0
        self.cuda_stream = 100 * -priority + InTurn.given % capture.STREAMS
        InTurn.given += 1


def test_no_two_living_owners_share_a_stream(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Stream", InTurn)
    monkeypatch.setattr(capture, "_taken", set())
    most = capture.STREAMS * len(capture.PRIORITIES)
    owners = [Owner() for _ in range(most)]
    names = [capture.own_stream(owner).cuda_stream for owner in owners]
    assert len(set(names)) == most
    with pytest.raises(RuntimeError, match=f"fewer than {most} networks and shapes"):
        capture.own_stream(Owner())
    owners[7] = None
    gc.collect()
    assert capture.own_stream(Owner()).cuda_stream == names[7]


@pytest.mark.integration
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_graph_lives_on_when_another_networks_graphs_are_given_up():
    def product(values):
        return values.T @ values

    torch.manual_seed(0)
    stays, goes = nn.Linear(2, 2).cuda(), nn.Linear(2, 2).cuda()
    values = torch.randn(ROWS, WIDTH, device="cuda", dtype=torch.bfloat16)
    for network in (stays, goes, stays, goes):  # captured when the shape comes for the second time
        expected = by_graph(network, product, values)
    release_graphs(goes)
    gc.collect()
    torch.cuda.empty_cache()
    owned = [torch.zeros(2**24, dtype=torch.uint8, device="cuda") for _ in range(64)]  # where freed memory was
    for _ in range(3):
        torch.testing.assert_close(by_graph(stays, product, values), expected, rtol=0, atol=0)
    assert not any(part.any() for part in owned)
