"""Tiny detectors with random weights: closed ones by their classes, open ones by names or a tagger's tags."""

import pytest
import torch
from tiny_detectors import random_picture
from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessor

from capkit.errors import UsageError
from capkit.experts.base import Expert, Finding
from capkit.experts.hf_detector import HFDetector
from capkit.experts.hf_objects import HFObjects


@pytest.fixture(scope="module")
def yolos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("yolos")
    names = {0: "dog", 1: "car", 2: "tree"}
    config = YolosConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=[32, 32],
        patch_size=8, num_detection_tokens=12, id2label=names, label2id={n: i for i, n in names.items()},
    )  # fmt: skip
    torch.manual_seed(3)
    model = YolosForObjectDetection(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape)
    model.save_pretrained(folder)
    YolosImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def test_a_closed_detectors_boxes_are_relative_to_width_and_height_and_the_surest_come_first(yolos):
    """The picture is stretched to a square: centre, width and height of the model's boxes are relative already."""
    picture = random_picture(0, 40, 100)
    expert = HFObjects(str(yolos), threshold=0.0, max_boxes=1000)
    assert isinstance(expert, Expert)
    (found,) = expert.look([picture])
    inputs = YolosImageProcessor.from_pretrained(yolos)(images=[picture.pixels], return_tensors="pt")
    with torch.no_grad():
        output = YolosForObjectDetection.from_pretrained(yolos).eval()(**inputs)
    scores, labels = output.logits[0].softmax(-1)[:, :-1].max(-1)
    best = int(scores.argmax())
    x, y, width, height = output.pred_boxes[0, best].tolist()
    corners = [min(1.0, max(0.0, v)) for v in (x - width / 2, y - height / 2, x + width / 2, y + height / 2)]
    assert found[0].text == {0: "dog", 1: "car", 2: "tree"}[int(labels[best])] and found[0].kind == "object"
    assert found[0].score == pytest.approx(float(scores[best]), abs=1e-5)
    assert found[0].box == pytest.approx(corners, abs=1e-5)
    assert [item.score for item in found] == sorted((item.score for item in found), reverse=True)
    middle = found[6].score
    (fewer,) = HFObjects(str(yolos), threshold=middle, max_boxes=3).look([picture])
    assert fewer == found[:3]
    assert HFObjects(str(yolos)).about() != expert.about()


class Says:
    """A tagger of fixed tags."""

    def __init__(self, *names):
        self.names = names

    def about(self):
        return {"model": "says", "names": self.names}

    def look(self, pictures):
        return [[Finding("tag", name) for name in self.names] for _ in pictures]


def test_an_open_detector_looks_for_names_or_for_what_a_tagger_says(owl):
    picture, settings = random_picture(0), {"threshold": 0.1, "max_boxes": 5}
    (expected,) = HFDetector(str(owl), **settings).detect([picture], [["circle", "red square"]])
    by_names = HFObjects(str(owl), names=["circle", "red square"], **settings)
    by_tags = HFObjects(str(owl), tagger=Says("circle", "red square", "circle"), **settings)
    assert by_names.look([picture]) == by_tags.look([picture]) == [expected] and expected
    assert HFObjects(str(owl), tagger=Says(), **settings).look([picture]) == [[]]
    abouts = [by_names.about(), by_tags.about(), HFObjects(str(owl), names=["circle"], **settings).about()]
    assert len({str(about) for about in abouts}) == 3


def test_a_model_of_the_other_kind_and_settings_without_sense_are_refused(yolos, owl):
    with pytest.raises(UsageError, match="could not be loaded"):
        HFObjects(str(yolos), names=["dog"]).look([random_picture(0)])
    with pytest.raises(UsageError, match="could not be loaded"):
        HFObjects(str(owl)).look([random_picture(0)])
    with pytest.raises(UsageError, match="got both"):
        HFObjects(str(owl), names=["dog"], tagger=Says("dog"))
    with pytest.raises(UsageError, match="at least one name"):
        HFObjects(str(owl), names=[])
