"""An evaluation of regions: the image is encoded once, and each region's row has the caption of its own box."""

import json
import math
from itertools import pairwise

import pytest
import torch

from capkit.cli import main
from capkit.data.conditions.box import RegionBox
from capkit.data.dataset import CaptionDataset, Request
from capkit.data.records import Record, Region
from capkit.data.transforms import ImageTransform
from capkit.decoding.config import Decoding
from capkit.metrics.scoring import write_predictions
from capkit.models.captioners.encoder_decoder import EncoderDecoder
from capkit.models.encoders.image import SmallCNN
from capkit.run.folder import RunFolder
from capkit.text.tokenizers import word_tokenizer
from capkit.train.build import encoder_of
from capkit.train.captioner_module import best_captions, rows_of
from capkit.train.conditions import Requested
from capkit.types import CaptionBatch, Samples

COUNTS = [2, 5, 1]


class Source:
    def __len__(self):
        return len(COUNTS)

    def record(self, index):
        edges = torch.linspace(0, 1, COUNTS[index] + 1).tolist()
        boxes = [(x0, 0.0, x1, (1.0 + x1) / 2) for x0, x1 in pairwise(edges)]
        return Record(f"k{index}", None, regions=[Region(box, "a red circle") for box in boxes])

    def image(self, index):
        return torch.randint(0, 256, (32, 32, 3), generator=torch.Generator().manual_seed(index)).byte().numpy()


def captioner():
    torch.manual_seed(3)
    encoder = SmallCNN(image_size=32, channels=(4, 8, 8), blocks=(0, 0, 1), width=12)
    tokenizer = word_tokenizer(["a red circle is left of the blue square near one small green star"])
    model = EncoderDecoder(tokenizer, encoder, width=16, num_heads=2, max_length=12, conditions={"box": "box"})
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(std=0.25)
    for parameter in model.conditions.parameters():
        parameter.data.normal_(std=1.0)
    return model.eval()


def test_each_row_is_the_caption_of_its_own_box_from_one_encoding_of_the_image(monkeypatch):
    model = captioner()
    encode = encoder_of(model, 8)
    data = CaptionDataset(
        Source(), "val", ImageTransform(32), None, encode, 1, 0, False,
        conditions={"box": RegionBox()}, captions_of="regions",
    )  # fmt: skip
    batch = data[Request(0, [0, 1, 2])].batch
    encoded = []
    forward = model.image_encoder.forward
    monkeypatch.setattr(model.image_encoder, "forward", lambda pixels: encoded.append(len(pixels)) or forward(pixels))
    decoding = Decoding(max_length=6)
    with torch.inference_mode():
        rows = rows_of(batch, best_captions(model, batch, decoding, requested=Requested(from_data=("box",))))
        assert encoded == [3]
        expected, shifted = {}, {}
        for b, count in enumerate(COUNTS):
            for k in range(count):
                for found, number in ((expected, k), (shifted, (k + 1) % count)):
                    wish = Requested({"box": batch.regions[b][number]["box"]})
                    found[f"k{b}#{k}"] = best_captions(model, batch[b : b + 1], decoding, requested=wish).texts[0][0]
    got = {row["key"]: row["caption"] for row in rows}
    assert got == expected and got != shifted  # the control: the box of the region beside it
    assert len(set(got.values())) > 3


def test_a_rows_confidence_is_the_mean_logprob_of_its_caption_and_stands_in_the_file(tmp_path):
    """Tokens of probabilities 1/2, 1/8 and 1: log 2 x -4 / 3. The second caption has two, of 1/4 and 1."""
    regions = [[{"number": 4, "box": [0, 0, 1, 1], "text": "red"}, {"number": 7, "box": [0, 0, 0.5, 1], "text": "a b"}]]
    logprobs = torch.tensor([[[1 / 2, 1 / 8, 1.0], [1 / 4, 1.0, 1.0]]]).log()
    mask = torch.tensor([[[True] * 4, [True] * 3 + [False]]])
    samples = Samples([["x y", "z"]], mask=mask, logprobs=logprobs)
    rows = rows_of(CaptionBatch(["k"], regions=regions), samples)
    expected = [-4 / 3 * math.log(2), -math.log(2)]
    assert [row["metadata"]["region"]["confidence"] for row in rows] == pytest.approx(expected)
    assert (
        "confidence" not in rows_of(CaptionBatch(["k"], regions=regions), Samples([["x y"]]))[0]["metadata"]["region"]
    )

    written = json.loads(write_predictions(tmp_path, "test", rows).read_text())
    assert [(row["image_id"], row["box"]) for row in written] == [("k#4", [0, 0, 1, 1]), ("k#7", [0, 0, 0.5, 1])]
    assert [row["confidence"] for row in written] == pytest.approx(expected)
    references = json.loads((tmp_path / "test_references.json").read_text())["annotations"]
    assert [row["box"] for row in references] == [row["box"] for row in written]


@pytest.mark.integration
def test_a_run_learns_and_scores_regions_of_sceneworld(tmp_path):
    """By the command line: fit and evaluate, a row a region, and the crops' count beside the numbers."""
    texts = "{_target_:capkit.sceneworld.language.regions.RegionTexts,lengths:[1,2]}"
    words = [
        "debug=tiny", "data.train.count=16", "data.val.count=4", "data.test.count=4", "max_steps=2", "val_every=2",
        "model.width=32", "model.num_layers=1", "model.image_encoder.channels=[8,8]",
        "model.image_encoder.blocks=[0,0]", "model.image_encoder.width=32", "decoding.max_length=6",
        "model.conditions={length:length,box:box}", "data.conditions={length:length,box:box}",
        "data.captions_of=regions", "data.transform.augment=[crop,flip]",
        f"data.train.regions={texts}",
        *(f"data.{split}.cache_dir={tmp_path / 'scenes'}" for split in ("train", "val", "test")),
    ]  # fmt: skip
    assert main([*words, f"run_dir={tmp_path / 'run'}", "conditions.box=data"]) == 0
    metrics = RunFolder(tmp_path / "run").metrics()
    assert metrics["train/removed_regions"] > 0 and metrics["test/removed_regions"] == 0
    written = json.loads((tmp_path / "run/predictions/test.json").read_text())
    assert len(written) > 8 and all("#" in row["image_id"] for row in written)
    again = [
        *(word for word in words if not word.startswith("model.")),
        f"ckpt={tmp_path / 'run'}",
        f"run_dir={tmp_path / 'eval'}",
        "conditions.box=data",
    ]
    assert main(["evaluate", *again]) == 0
    assert json.loads((tmp_path / "eval/predictions/test.json").read_text()) == written
