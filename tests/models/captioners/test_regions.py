"""Captioners that read regions, whose number varies from image to image: padding is never seen."""

from dataclasses import replace

import pytest
import torch

from capkit.decoding.config import Decoding
from capkit.errors import UsageError
from capkit.models.encoders.image_tokens import image_tokens
from capkit.testing.models import batch_for, two_tower

CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture
def regions(captioner, batch):
    """The batch with its image tokens as regions: of image i all but the last i % 3."""
    encoder = captioner._image_tokens if hasattr(captioner, "_image_tokens") else captioner.image_encoder
    if encoder is None:
        pytest.skip("a captioner without an image encoder has no tokens to cut")
    if isinstance(encoder, torch.nn.Module):
        encoder.requires_grad_(False)
    captioner.eval()
    with torch.no_grad():
        tokens, mask = image_tokens(batch, encoder)
    assert mask is None
    counts = tokens.shape[1] - torch.arange(len(batch)) % 3
    seen = torch.arange(tokens.shape[1]) < counts[:, None]
    return replace(batch, pixels=None, features=tokens.masked_fill(~seen[..., None], 0.0), features_mask=seen)


def more(batch, places, value):
    """More padding, and other numbers in all of it."""
    features = torch.nn.functional.pad(batch.features, (0, 0, 0, places))
    mask = torch.nn.functional.pad(batch.features_mask, (0, places))
    return replace(batch, features=features.masked_fill(~mask[..., None], value), features_mask=mask)


def logprobs(captioner, batch):
    return captioner.logprobs(captioner.encode(batch), batch.tokens, batch.mask)


@torch.no_grad()
def test_padding_to_any_length_changes_no_output(captioner, regions):
    expected = logprobs(captioner, regions)
    for places in (1, 7):
        torch.testing.assert_close(logprobs(captioner, more(regions, places, 3.0)), expected, **CLOSE)
    unseen = replace(more(regions, 7, 3.0), features_mask=None)
    assert not torch.allclose(logprobs(captioner, unseen), expected, atol=1e-3)


@torch.no_grad()
def test_an_image_alone_has_the_outputs_that_it_has_beside_others(captioner, regions):
    expected = logprobs(captioner, regions)
    for row in range(3):
        alone = regions[row : row + 1]
        count = int(alone.features_mask.sum())
        alone = replace(alone, features=alone.features[:, :count], features_mask=None)
        torch.testing.assert_close(logprobs(captioner, alone), expected[row : row + 1], **CLOSE)


@torch.no_grad()
def test_captions_do_not_depend_on_padding(captioner, regions):
    decoding = Decoding(max_length=8)
    expected = captioner.generate(captioner.encode(regions), decoding).texts
    assert captioner.generate(captioner.encode(more(regions, 5, 3.0)), decoding).texts == expected


def test_features_of_another_width_are_told():
    batch = batch_for(two_tower())
    wide = torch.zeros(len(batch), 3, 5)
    batch = replace(batch, pixels=None, features=wide)
    with pytest.raises(UsageError, match=r"expected features of width 4, got 5; set model\.feature_width=5"):
        image_tokens(batch, None, 4)
    encoder = torch.nn.Identity()
    with pytest.raises(UsageError, match="expected features of width 4, got 5; give those of this image encoder"):
        image_tokens(batch, encoder, 4)
    assert image_tokens(batch, encoder, 5).tokens is wide


def test_attributes_are_for_the_modular_captioner_alone(captioner, batch):
    given = replace(batch, attribute_features=torch.zeros(len(batch), 4, 3))
    with pytest.raises(UsageError, match=r"got 3; leave data\.attribute_features out"):
        captioner.encode(given)


def test_padding_gets_no_gradient(captioner, regions):
    wide = more(regions, 2, 3.0)
    wide.features.requires_grad_()
    logprobs(captioner, wide).sum().backward()
    gradient = wide.features.grad
    assert gradient[~wide.features_mask].abs().max() == 0 < gradient[wide.features_mask].abs().max()


def test_a_dual_encoder_refuses_regions():
    model = two_tower()
    batch = batch_for(model)
    with torch.no_grad():
        tokens, _ = image_tokens(batch, model.image_tower)
    model.image_tower.requires_grad_(False)
    seen = torch.ones(tokens.shape[:2], dtype=torch.bool)
    with pytest.raises(UsageError, match=r"got regions, whose number varies; set data\.features"):
        model.embed_images(replace(batch, pixels=None, features=tokens, features_mask=seen))
