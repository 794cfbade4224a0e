"""Tiny detectors with random weights, saved to a folder and loaded from there as any model is."""

import pytest
import torch
from tiny_detectors import WORDS, random_picture, shaken
from torchvision.ops import box_iou
from transformers import (
    BertTokenizerFast,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    OwlViTForObjectDetection,
)

from capkit.errors import UsageError
from capkit.experts.base import Detector
from capkit.experts.hf_detector import HFDetector


@pytest.fixture(scope="module")
def dino(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dino")
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", *WORDS]))
    tokenizer = BertTokenizerFast.from_pretrained(folder)
    config = GroundingDinoConfig(
        backbone_config={
            "model_type": "swin", "image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 1, 1],
            "num_heads": [1, 1, 1], "window_size": 2, "out_features": ["stage2", "stage3"],
        },
        text_config={
            "model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 32, "vocab_size": len(tokenizer),
        },
        d_model=32, encoder_layers=1, encoder_ffn_dim=16, encoder_attention_heads=2, decoder_layers=2,
        decoder_ffn_dim=16, decoder_attention_heads=2, num_queries=12, num_feature_levels=2, max_text_len=16,
    )  # fmt: skip
    torch.manual_seed(0)
    shaken(GroundingDinoForObjectDetection(config)).save_pretrained(folder)
    images = GroundingDinoImageProcessor(size={"shortest_edge": 32, "longest_edge": 48})
    GroundingDinoProcessor(images, tokenizer).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["owl", "dino"])
def test_every_box_has_a_name_that_was_asked_for_and_lies_in_the_picture(kind, request):
    detector = HFDetector(str(request.getfixturevalue(kind)), threshold=0.0, text_threshold=0.0, max_boxes=1000)
    assert isinstance(detector, Detector)
    names = [["red circle", "blue square"], [], ["circle"]]
    first, none, last = detector.detect([random_picture(0), random_picture(1), random_picture(2)], names)
    assert none == [] and len(first) > 5 and len(last) > 5
    for found, asked in ((first, names[0]), (last, names[2])):
        words = {word for name in asked for word in name.split()}
        assert {word for item in found for word in item.text.split()} == words
        assert [item.score for item in found] == sorted((item.score for item in found), reverse=True)
        assert len({item.box for item in found}) > 1
        for item in found:
            x0, y0, x1, y1 = item.box
            assert 0 <= x0 <= x1 <= 1 and 0 <= y0 <= y1 <= 1 and 0 <= item.score <= 1


def test_boxes_are_those_of_the_model_relative_to_width_and_height(owl):
    """OWL-ViT stretches a picture to a square: its centre, width and height are relative already."""
    from transformers import AutoProcessor

    picture, names = random_picture(3), ["red circle", "blue square"]
    inputs = AutoProcessor.from_pretrained(owl)(images=[picture.pixels], text=[names], return_tensors="pt")
    with torch.no_grad():
        output = OwlViTForObjectDetection.from_pretrained(owl)(**inputs)
    scores, labels = output.logits[0].max(-1)
    best = int(scores.argmax())
    x, y, width, height = output.pred_boxes[0, best].tolist()
    (found,) = HFDetector(str(owl), threshold=0.0, max_boxes=1).detect([picture], [names])
    corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    assert found[0].text == names[labels[best]]
    assert found[0].score == pytest.approx(float(scores[best].sigmoid()), abs=1e-5)
    assert found[0].box == pytest.approx([min(1, max(0, corner)) for corner in corners], abs=1e-5)


def test_a_threshold_drops_what_is_less_sure(owl):
    everything = HFDetector(str(owl), threshold=0.0, max_boxes=1000).detect([random_picture(0)], [["circle"]])[0]
    middle = everything[len(everything) // 2].score
    kept = HFDetector(str(owl), threshold=middle, max_boxes=1000).detect([random_picture(0)], [["circle"]])[0]
    assert 0 < len(kept) < len(everything) and all(item.score > middle for item in kept)


def test_with_every_name_a_box_has_each_that_is_sure_enough_and_no_near_duplicate(owl):
    """A name's scores are those it has alone. Without `every_name`, a box has its best name only."""
    picture, names = random_picture(0), ["red circle", "blue square", "circle"]
    settings = {"threshold": 0.0, "max_boxes": 1000}
    (found,) = HFDetector(str(owl), every_name=True, **settings).detect([picture], [names])
    for name in names:
        (alone,) = HFDetector(str(owl), **settings).detect([picture], [[name]])
        scores = {item.box: item.score for item in alone}
        own = [item for item in found if item.text == name]
        assert own and all(item.score == pytest.approx(scores[item.box], abs=1e-5) for item in own)
        overlaps = box_iou(*(torch.tensor([item.box for item in own]) for _ in range(2))).fill_diagonal_(0).nan_to_num()
        assert overlaps.max() <= 0.5 and len(own) < len(alone)
    (best,) = HFDetector(str(owl), **settings).detect([picture], [names])
    assert len({item.box for item in best}) == len(best)
    assert [item.score for item in found] == sorted((item.score for item in found), reverse=True)


def test_a_name_longer_than_the_detector_reads_is_not_looked_for(owl):
    detector = HFDetector(str(owl), threshold=0.0)
    long = "red circle blue square"  # 20 letters, each a token of this tiny vocabulary; 16 are read
    assert detector.detect([random_picture(0)], [[long]]) == [[]]
    (found,) = detector.detect([random_picture(0)], [[long, "circle"]])
    assert {item.text for item in found} == {"circle"}


def test_every_name_needs_a_detector_that_scores_each(dino):
    with pytest.raises(UsageError, match="every_name=true needs a score for each box and name"):
        HFDetector(str(dino), every_name=True).detect([random_picture(0)], [["circle"]])


def test_other_models_and_missing_folders_are_refused(tmp_path):
    with pytest.raises(UsageError, match="could not be loaded"):
        HFDetector(str(tmp_path / "nothing"))
