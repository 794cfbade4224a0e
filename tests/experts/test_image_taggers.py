"""Classifiers with planted or random weights as taggers."""

import numpy as np
import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from capkit.data.transforms import ImageTransform
from capkit.errors import UsageError
from capkit.experts.base import Expert
from capkit.experts.image_taggers import HFImageTagger, ImageNetTagger, best_tags
from capkit.llm.base import Picture


def test_scores_are_the_probabilities_of_the_classes():
    """Logits log 6, log 3, log 1 are probabilities .6, .3, .1."""
    found = best_tags(torch.tensor([3.0, 6.0, 1.0]).log(), ["cat", "dog", "car"], 2, "me")
    assert [(item.kind, item.text, item.box, item.expert) for item in found] == [
        ("tag", "dog", None, "me"), ("tag", "cat", None, "me"),
    ]  # fmt: skip
    assert [item.score for item in found] == pytest.approx([0.6, 0.3])


class RedOrNot(torch.nn.Module):
    """Class 950 (orange) for pictures that are mostly red, else class 0 (tench)."""

    def class_logits(self, pixels):
        assert pixels.shape[1:] == (3, 8, 8)
        redness = pixels[:, 0].mean((1, 2))
        logits = torch.zeros(len(pixels), 1000)
        logits[:, 950], logits[:, 0] = 9 * redness, -9 * redness
        return logits


def test_imagenets_names_belong_to_their_numbers():
    tagger = ImageNetTagger(RedOrNot(), ImageTransform(8), top=1)
    assert isinstance(tagger, Expert)
    red, blue = (np.zeros((6, 9, 3), np.uint8) for _ in range(2))
    red[..., 0], blue[..., 2] = 255, 255
    found = tagger.look([Picture(red), Picture(blue)])
    assert [item.text for (item,) in found] == ["orange", "tench"]
    assert found[1] == tagger.look([Picture(blue)])[0], "a picture's tags are those it has alone"


def test_other_weights_or_pixels_are_another_tagger():
    torch.manual_seed(0)
    nets = [torch.nn.Linear(2, 2) for _ in range(2)]
    for net in nets:
        net.class_logits = net.forward
    abouts = [
        ImageNetTagger(nets[i], ImageTransform(8, resize=how)).about()
        for i, how in ((0, "pad"), (1, "pad"), (0, "crop"))
    ]
    assert abouts[0] != abouts[1] and abouts[0] != abouts[2] and abouts[0]["model"] == "linear"
    with pytest.raises(UsageError, match="expected a classifier with class_logits, got Conv2d"):
        ImageNetTagger(torch.nn.Conv2d(3, 3, 1), ImageTransform(8))


def test_efficientnet_gives_a_logit_for_each_name():
    pytest.importorskip("efficientnet_lite_pytorch")
    from capkit.models.encoders.image import EfficientNetLite0

    torch.manual_seed(0)
    net = EfficientNetLite0(weights=None)
    (found,) = ImageNetTagger(net, ImageTransform(32), top=1000).look([Picture(np.zeros((32, 32, 3), np.uint8))])
    assert len({item.text for item in found}) >= 998  # two pairs of classes share a name: crane, maillot
    assert sum(item.score for item in found) == pytest.approx(1, abs=1e-4)


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vit")
    names = {0: "tench, Tinca tinca", 1: "dog", 2: "car"}
    config = ViTConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8,
        id2label=names, label2id={name: number for number, name in names.items()},
    )  # fmt: skip
    torch.manual_seed(0)
    model = ViTForImageClassification(config)
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([5.0, 0.0, 2.0]))
    model.save_pretrained(folder)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


def test_a_classifier_of_transformers_tags_by_its_own_names(vit):
    tagger = HFImageTagger(str(vit), top=2)
    assert isinstance(tagger, Expert) and tagger.about()["model"] == vit.name
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    (found,) = tagger.look([Picture(pixels)])
    assert [item.text for item in found] == ["tench", "car"]
    with torch.no_grad():
        inputs = ViTImageProcessor.from_pretrained(vit)(images=[pixels], return_tensors="pt")
        expected = ViTForImageClassification.from_pretrained(vit)(**inputs).logits[0].softmax(-1)
    assert [item.score for item in found] == pytest.approx([float(expected[0]), float(expected[2])], abs=1e-5)


def test_a_model_of_another_kind_is_refused(tmp_path):
    with pytest.raises(UsageError, match="could not be loaded"):
        HFImageTagger(str(tmp_path / "nothing"))
