import pytest
import torch
from torch import nn

from capkit.errors import UsageError
from capkit.models.encoders.image import SmallCNN, TorchvisionEncoder
from capkit.models.encoders.ten_crop import TenCrop
from capkit.models.weights import weights_fingerprint


class Corner(nn.Module):
    """Two tokens: the crop's upper left number, and its upper right one twice."""

    width = 1

    def forward(self, pixels):
        return torch.stack([pixels[:, :1, 0, 0], 2 * pixels[:, :1, 0, -1]], dim=1)


def test_a_worked_example():
    picture = torch.arange(16.0).view(4, 4)
    pixels = torch.stack([picture, picture + 100])[:, None].expand(-1, 3, -1, -1)
    # Crops of 2 begin at 0, 2, 8, 10 and, in the middle, 5: on average at 5, so that their upper right numbers are 6 on
    # average. Mirrored, the other way round. (5 + 2 x 6) / 2 = 8.5 and (6 + 2 x 5) / 2 = 8.
    found = TenCrop(Corner(), size=2)(pixels)
    assert found.shape == (2, 1, 1)
    assert found.flatten().tolist() == pytest.approx([8.25, 8.25 + 150])


def test_it_equals_a_loop_over_pictures_and_crops_forward_and_gradient():
    torch.manual_seed(0)
    encoder = SmallCNN(image_size=16, channels=(4, 8), blocks=(0, 0), width=6)
    pixels = torch.randn(3, 3, 20, 20)
    naive = []
    for picture in pixels:
        total = torch.zeros(6)
        for top, left in ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2)):
            crop = picture[:, top : top + 16, left : left + 16]
            for view in (crop, crop.flip(-1)):
                tokens = encoder(view[None])[0]
                total = total + tokens.sum(0) / len(tokens)
        naive.append(total / 10)
    found, expected = TenCrop(encoder, size=16)(pixels)[:, 0], torch.stack(naive)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    weights, parameters = torch.randn(6), list(encoder.parameters())
    gradients, wanted = (torch.autograd.grad((out @ weights).sum(), parameters) for out in (found, expected))
    torch.testing.assert_close(gradients, wanted, atol=1e-4, rtol=1e-3)


def test_a_mirrored_picture_has_the_same_features():
    torch.manual_seed(0)
    encoder = TenCrop(SmallCNN(image_size=16, channels=(4, 8), blocks=(0, 0), width=6), size=16)
    pixels = torch.randn(2, 3, 20, 20)
    torch.testing.assert_close(encoder(pixels), encoder(pixels.flip(-1)), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(encoder(pixels), encoder(pixels.flip(-2)), atol=1e-3)


def test_a_frozen_encoder_stays_frozen_and_its_features_are_not_those_of_one_crop():
    encoder = TorchvisionEncoder("resnet18", frozen=True)
    ten = TenCrop(encoder, size=32).train()
    assert not any(module.training for module in encoder.modules())
    assert not ten(torch.randn(1, 3, 40, 40)).requires_grad
    # Cached features are compared with their encoder by this: those of one crop are refused.
    assert weights_fingerprint(ten) != weights_fingerprint(encoder)


@pytest.mark.parametrize("side", [64, 224])
def test_pictures_no_larger_than_a_crop_are_a_usage_error(side):
    with pytest.raises(UsageError, match=rf"more than 224 pixels a side to cut from, got \({side}, {side}\)"):
        TenCrop(Corner())(torch.zeros(1, 3, side, side))
