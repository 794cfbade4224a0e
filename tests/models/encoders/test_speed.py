"""Matrix products over patches equal the convolution; compiled layers equal plain ones and can be undone."""

import pytest
import torch
from torch import nn

from capkit.models.encoders.compile import compile_blocks, restore_blocks, use_patch_projections


def gradients(convolution: nn.Conv2d, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
    weights = torch.arange(1.0, convolution.out_channels + 1)[:, None, None]
    return torch.autograd.grad((convolution(pixels).pow(2) * weights).sum(), [*convolution.parameters(), pixels])


def test_each_output_is_one_patch_times_the_weights():
    convolution = nn.Conv2d(1, 1, 2, stride=2, bias=False)
    convolution.weight.data = torch.tensor([[[[1.0, 10.0], [100.0, 1000.0]]]])
    use_patch_projections(nn.Sequential(convolution))
    pixels = torch.tensor([[[[1.0, 2, 5, 6], [3, 4, 7, 8]]]])
    # 1 + 20 + 300 + 4000, and 5 + 60 + 700 + 8000
    assert convolution(pixels).tolist() == [[[[4321.0, 8765.0]]]]


@pytest.mark.parametrize("kernel, height, width", [(4, 8, 12), ((3, 5), 9, 10), (4, 11, 15)])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_the_convolutions(kernel, height, width, bias):
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 6, kernel, stride=kernel, bias=bias).double()
    pixels = torch.randn(2, 3, height, width, dtype=torch.double, requires_grad=True)
    expected, expected_gradients, printed = convolution(pixels), gradients(convolution, pixels), str(convolution)
    use_patch_projections(nn.Sequential(convolution))
    torch.testing.assert_close(convolution(pixels), expected)
    torch.testing.assert_close(gradients(convolution, pixels), expected_gradients)
    assert str(convolution) == printed
    assert convolution(pixels).flatten(2).transpose(1, 2).is_contiguous()  # tokens without a copy


@pytest.mark.parametrize(
    "settings", [{"stride": 1}, {"stride": 2, "padding": 1}, {"stride": 2, "dilation": 2}, {"stride": 2, "groups": 2}]
)
def test_other_convolutions_are_left_alone(settings):
    convolution = nn.Conv2d(4, 4, 2, **settings)
    use_patch_projections(nn.Sequential(convolution))
    assert type(convolution) is nn.Conv2d


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.GELU()) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


@pytest.mark.nightly
def test_compiled_layers_compute_the_same_keep_their_names_and_can_be_undone():
    torch.manual_seed(0)
    tower, x = Layers(), torch.randn(3, 4)
    expected, names = tower(x), list(tower.state_dict())
    compile_blocks([tower])
    assert all("forward" in vars(layer) for layer in tower.layers)
    torch.testing.assert_close(tower(x), expected)
    assert list(tower.state_dict()) == names
    restore_blocks([tower])
    assert not any("forward" in vars(layer) for layer in tower.layers)
    torch.testing.assert_close(tower(x), expected)
