import math

import pytest
import torch

from capkit.errors import UsageError
from capkit.models.dual_encoders.base import CacheableEncoder
from capkit.models.dual_encoders.ensemble import Ensemble


class Fixed:
    """An encoder whose every embedding is one given vector."""

    def __init__(self, *vector, prompt=""):
        self.vector, self.name, self.prompt, self.max_length = torch.tensor([vector]), "fixed", prompt, 5

    def encode_image(self, pixels):
        return self.vector.expand(len(pixels), -1)

    def encode_text(self, texts):
        return -self.vector.expand(len(texts), -1)

    def preprocess(self, images):
        return torch.zeros(len(images), 3, 2, 2)

    def is_cut(self, texts):
        return [len(text) > 5 for text in texts]

    def fingerprint_fields(self, side):
        return {"side": side, "vector": self.vector.tolist(), "preprocessing": "none"}

    def to(self, device):
        return self


def test_the_ensemble_is_the_mean_brought_to_unit_norm():
    ensemble = Ensemble([Fixed(1.0, 0.0, 0.0), Fixed(0.0, 1.0, 0.0), Fixed(0.0, 1.0, 0.0)])
    # the mean (1/3, 2/3, 0) has the norm sqrt(5) / 3
    expected = torch.tensor([[1.0, 2.0, 0.0]]) / math.sqrt(5)
    torch.testing.assert_close(ensemble.encode_image(torch.zeros(2, 3, 2, 2)), expected.expand(2, -1))
    torch.testing.assert_close(ensemble.encode_text(["a"]), -expected)
    assert isinstance(ensemble, CacheableEncoder)
    assert ensemble.is_cut(["abc", "abcdef"]) == [False, True]


def test_another_member_or_order_is_another_ensemble_to_a_cache():
    one, two = Fixed(1.0, 0.0), Fixed(0.0, 1.0)
    assert Ensemble([one, two]).fingerprint_fields("text") != Ensemble([one, one]).fingerprint_fields("text")


def test_members_that_read_texts_differently_are_refused():
    with pytest.raises(UsageError, match="number 1 differs"):
        Ensemble([Fixed(1.0), Fixed(1.0, prompt="a photo of")])
    with pytest.raises(UsageError, match="two encoders"):
        Ensemble([Fixed(1.0)])
