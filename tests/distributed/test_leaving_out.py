"""An optimizer step that is left out by a flag on the device, as by the host that drops the gradient."""

import pytest
import torch
from torch import nn

from capkit.distributed.strategies import leaving_out


def train(fused, flags, has_scaler=False):
    torch.manual_seed(0)
    layer = nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, fused=fused)
    seen = []
    for step, flag in enumerate(flags):
        for parameter in layer.parameters():
            parameter.grad = torch.full_like(parameter, torch.nan if flag else 1.0 + step)
        with leaving_out(optimizer, torch.tensor(flag), has_scaler):
            assert hasattr(optimizer, "found_inf") == (fused and not has_scaler)
            optimizer.step()
        optimizer.zero_grad()
        seen.append(layer.weight.detach().clone())
    assert not hasattr(optimizer, "found_inf")
    return seen, optimizer.state[layer.weight]


@pytest.mark.parametrize(("fused", "has_scaler"), [(False, False), (True, False), (True, True)])
def test_a_left_out_step_changes_no_weight_and_no_state(fused, has_scaler):
    """Fused, the flag is read on the device, unless a GradScaler sets it for itself.

    A NaN that came through would stay in weights and moments.
    """
    seen, state = train(fused, [False, True, True, False], has_scaler)
    wanted, wanted_state = train(False, [False, False])  # gradients 1 and 2, in place of 1 and 4
    torch.testing.assert_close(seen[0], wanted[0])
    assert torch.equal(seen[1], seen[0]) and torch.equal(seen[2], seen[0])
    assert not torch.equal(seen[3], seen[2]) and torch.isfinite(seen[3]).all()
    assert float(state["step"]) == float(wanted_state["step"]) == 2
    assert all(torch.isfinite(state[name]).all() for name in ("exp_avg", "exp_avg_sq"))
