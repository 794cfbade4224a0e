import pytest
import torch

from capkit.optim.lamb import Lamb


def test_the_first_step_by_hand():
    """g = (3, 4): Adam's first direction is g / |g| element by element, (1, 1). Weight decay 0.5 makes it r = (1.5, 2).

    |w| = sqrt(5), |r| = 2.5, so the trust ratio is sqrt(5) / 2.5 = 0.894427, and with lr 0.1 the weights become
    (1 - 0.1341641, 2 - 0.1788854).
    """
    weights = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    weights.grad = torch.tensor([3.0, 4.0])
    Lamb([weights], lr=0.1, eps=0.0, weight_decay=0.5).step()
    assert weights.tolist() == pytest.approx([0.8658359, 1.8211146], abs=1e-6)


def test_without_weight_decay_a_step_is_adams():
    first, second = (torch.nn.Parameter(torch.tensor([1.0, -2.0, 0.5])) for _ in range(2))
    ours, adam = Lamb([first], lr=0.01, eps=1e-6), torch.optim.Adam([second], lr=0.01, eps=1e-6)
    for step in range(5):
        gradient = torch.randn(3, generator=torch.Generator().manual_seed(step))
        first.grad, second.grad = gradient.clone(), gradient.clone()
        ours.step()
        adam.step()
    assert torch.allclose(first, second, atol=1e-7)


def test_the_step_does_not_depend_on_the_gradients_scale():
    """What large batches need: a layer moves by lr times its own norm, whatever the loss is multiplied by."""
    moved = []
    for scale in (1.0, 1000.0):
        weights = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
        weights.grad = scale * torch.tensor([0.2, -0.1])
        Lamb([weights], lr=0.1, eps=1e-12, weight_decay=1e-5).step()
        moved.append((weights.detach() - torch.tensor([3.0, 4.0])).norm())
    assert moved[0].item() == pytest.approx(0.5, rel=1e-3)  # 0.1 of |w| = 5
    assert moved[0].item() == pytest.approx(moved[1].item(), rel=1e-5)


def test_a_tensor_of_zeros_starts_to_move():
    weights = torch.nn.Parameter(torch.zeros(2))
    weights.grad = torch.tensor([1.0, -1.0])
    Lamb([weights], lr=0.1, weight_decay=0.1).step()
    assert weights.abs().min() > 0.05


def test_state_survives_saving():
    weights = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = Lamb([weights], lr=0.1, weight_decay=0.1)
    weights.grad = torch.tensor([1.0, 1.0])
    optimizer.step()
    saved, before = optimizer.state_dict(), weights.detach().clone()
    optimizer.step()
    copy = torch.nn.Parameter(before)
    again = Lamb([copy], lr=0.1, weight_decay=0.1)
    again.load_state_dict(saved)
    copy.grad = torch.tensor([1.0, 1.0])
    again.step()
    assert torch.equal(copy, weights)
