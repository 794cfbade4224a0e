"""What the report says of grouped patches: the weights of a model's own texts, and texts that there are to draw."""

import numpy as np
import pytest
import torch

from capkit.data.datamodule import CaptionDataModule
from capkit.data.records import Caption, Record, Region
from capkit.data.transforms import ImageTransform
from capkit.models.dual_encoders.patch_grouping import PatchGrouping
from capkit.testing.models import two_tower
from capkit.train.text_looks import text_looks, texts_drawn


class Pictures:
    """Three pictures: one with a long caption, one with regions, one with two sentences by hand."""

    def __len__(self):
        return 3

    def record(self, index):
        raw = Caption("a red circle. a blue square.", source="human")
        long = [Caption("a red square. a blue circle. a red square.", source="long/x")] if index == 0 else []
        regions = [Region((0.0, 0.0, 0.5, 0.5), "blue circle")] if index == 1 else []
        return Record(str(index), captions=[raw, *long], regions=regions)

    def image(self, index):
        return np.full((16, 16, 3), 60 * index, np.uint8)


@pytest.fixture
def data():
    source = Pictures()
    draw = {"count": 4, "always": "human", "from": ["long"]}
    return CaptionDataModule(train=source, test=source, transform=ImageTransform(32), sub_captions=draw)


def test_texts_are_sub_captions_else_of_regions_else_sentences_with_their_own_weights(data):
    model = two_tower().eval()
    data.attach(encode=model.encode)
    assert text_looks(model, data) == []
    model.group_patches(0.5)
    looked = text_looks(model, data)
    assert [[text for text, _ in item.texts] for item in looked] == [
        ["a red square.", "a blue circle."], ["blue circle"], ["a red circle.", "a blue square."],
    ]  # fmt: skip
    assert [int(item.picture.max()) for item in looked] == [0, 60, 120]
    (_, found), _ = looked[2].texts
    (batch,) = data.eval_dataloader("test")
    with torch.no_grad():
        cosines = model.embed_patches(batch)[2] @ model.encode_text(["a red circle."])[0]
    expected = PatchGrouping(0.5).weights(cosines[None])[0]
    np.testing.assert_allclose(found.ravel(), expected, atol=1e-6)


def test_different_texts_of_training_pictures_are_counted(data):
    assert texts_drawn(data).available == [3, 1, 1]  # the caption by hand, and two sentences of three
    data.sub_captions = None
    assert texts_drawn(data) is None
