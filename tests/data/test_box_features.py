"""Features of boxes, by hand: means of cells by how much of them a box covers."""

import pytest
import torch

from capkit.data.box_features import of_boxes
from capkit.errors import UsageError

CELLS = torch.tensor([[1.0, 0.0], [3.0, 0.0], [5.0, 4.0], [7.0, 8.0]])  # two rows of two


def test_a_box_is_the_mean_of_what_it_covers():
    quarter, whole, top, three_to_one = (0.5, 0.0, 1.0, 0.5), (0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 1.0, 0.5), (
        0.125, 0.5, 0.625, 1.0,
    )  # fmt: skip
    found = of_boxes(CELLS, [quarter, whole, top, three_to_one])
    expected = [[3.0, 0.0], [4.0, 3.0], [2.0, 0.0], [0.75 * 5 + 0.25 * 7, 0.75 * 4 + 0.25 * 8]]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_a_turned_grid_with_turned_boxes_has_the_same_features():
    cells = torch.randn(16, 3, generator=torch.Generator().manual_seed(0))
    boxes = [(0.1, 0.2, 0.7, 0.4), (0.0, 0.5, 0.3, 1.0)]
    turned = cells.view(4, 4, 3).transpose(0, 1).reshape(16, 3)
    swapped = [(y0, x0, y1, x1) for x0, y0, x1, y1 in boxes]
    torch.testing.assert_close(of_boxes(turned, swapped), of_boxes(cells, boxes))


def test_what_it_cannot_read_is_told():
    with pytest.raises(UsageError, match="expected a square grid of tokens, got 3"):
        of_boxes(CELLS[:3], [(0.0, 0.0, 1.0, 1.0)])
    with pytest.raises(UsageError, match="expected boxes inside the picture, got one without area"):
        of_boxes(CELLS, [(0.5, 0.5, 0.5, 0.9)])
