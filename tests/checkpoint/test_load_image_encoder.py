"""The image encoder of a captioner that capkit trained, to compute features with."""

from pathlib import Path

import pytest
import torch

from capkit.checkpoint.loading import load_captioner, load_image_encoder
from capkit.errors import UsageError

STARTS = Path(__file__).parents[1] / "effects" / "starts"


def test_it_is_the_captioners_with_its_weights_and_frozen():
    """Control: another captioner's gives other tokens."""
    encoder = load_image_encoder(str(STARTS / "generic-0"))
    captioner, _ = load_captioner(str(STARTS / "generic-0"))
    other = load_image_encoder(str(STARTS / "hallucinating-0"))
    pixels = torch.rand(2, 3, 32, 32)
    assert torch.equal(encoder(pixels), captioner.image_encoder(pixels))
    assert not torch.allclose(encoder(pixels), other(pixels), atol=0.1)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_a_dual_encoder_is_refused():
    with pytest.raises(UsageError, match="holds a dual encoder"):
        load_image_encoder(str(STARTS / "judge-0"))


def test_a_captioner_over_features_is_refused(monkeypatch):
    captioner, checkpoint = load_captioner(str(STARTS / "generic-0"))
    captioner.image_encoder = None
    monkeypatch.setattr("capkit.checkpoint.loading.load_captioner", lambda ckpt: (captioner, checkpoint))
    with pytest.raises(UsageError, match="EncoderDecoder without one"):
        load_image_encoder("runs/features")
