import json

import numpy as np
import pytest
from PIL import Image

from capkit.data.karpathy import Karpathy
from capkit.errors import UsageError

SPLITS = ["train", "restval", "val", "test", "train", "restval"]


def write_set(folder, coco: bool) -> tuple[str, str]:
    """Six real JPEGs and their Karpathy file, in COCO's form (filepath, cocoid) or Flickr's."""
    images = []
    for number, split in enumerate(SPLITS):
        name = f"COCO_{number:012d}.jpg" if coco else f"{1000 + number}_abc.jpg"
        subfolder = "train2014" if split == "train" else "val2014"
        path = folder / subfolder / name if coco else folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((30 + number, 40, 3), 40 * number, np.uint8)).save(path, "JPEG")
        sentences = [
            {"tokens": ["a", "dog", str(k)], "raw": f"A dog {k}.", "imgid": number, "sentid": 5 * number + k}
            for k in range(5)
        ]
        image = {"imgid": number, "filename": name, "split": split, "sentences": sentences, "sentids": []}
        images.append(image | ({"filepath": subfolder, "cocoid": 500 + number} if coco else {}))
    (folder / "dataset.json").write_text(json.dumps({"images": images, "dataset": "coco" if coco else "flickr8k"}))
    return str(folder), str(folder / "dataset.json")


def keys(source) -> list[str]:
    return [source.record(i).key for i in range(len(source))]


def test_coco_joins_restval_to_train_unless_told_otherwise(tmp_path):
    images, captions = write_set(tmp_path, coco=True)
    assert keys(Karpathy(images, captions, "train")) == ["500", "504", "501", "505"]
    assert keys(Karpathy(images, captions, "train", restval=False)) == ["500", "504"]
    assert keys(Karpathy(images, captions, "val")) == ["502"] and keys(Karpathy(images, captions, "test")) == ["503"]


@pytest.mark.parametrize("coco", [True, False], ids=["coco", "flickr8k"])
def test_records_and_images_are_those_of_the_file(tmp_path, coco):
    source = Karpathy(*write_set(tmp_path, coco), "test")
    record = source.record(0)
    assert record.key == ("503" if coco else "1003_abc")
    assert record.metadata["image_id"] == (503 if coco else 3)
    assert [c.text for c in record.captions] == [f"A dog {k}." for k in range(5)]
    image = source.image(0)
    assert image.shape == (33, 40, 3) and abs(int(image[0, 0, 0]) - 120) <= 2


def test_coco_images_in_one_folder_are_found_too(tmp_path):
    _, captions = write_set(tmp_path, coco=True)
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in tmp_path.glob("*2014/*.jpg"):
        path.rename(flat / path.name)
    source = Karpathy(str(flat), captions, "val")
    assert source.image(0).shape == (32, 40, 3) and source.record(0).image == "COCO_000000000002.jpg"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a Karpathy split file"),
        ("[]", "not a Karpathy split file"),
        ('{"images": [{"filename": "a"}]}', "image 0 has no usable 'split'"),
        ('{"images": [{"filename": "a", "split": "val", "sentences": [{}]}]}', "image 0 has no usable 'raw'"),
        ('{"images": [{"filename": "a", "split": "val", "sentences": []}]}', "no images in split 'train'; it has val"),
    ],
)
def test_wrong_file_is_a_usage_error(tmp_path, content, message):
    (tmp_path / "d.json").write_text(content)
    source = Karpathy(str(tmp_path), str(tmp_path / "d.json"), "train")
    with pytest.raises(UsageError) as caught:
        len(source)
    assert message in str(caught.value)


@pytest.mark.parametrize(("images", "captions"), [(None, "x"), ("none", "x"), (".", None), (".", "none.json")])
def test_missing_path_fails_in_the_constructor(images, captions):
    with pytest.raises(UsageError, match=r"images|captions"):
        Karpathy(images, captions, "train")
