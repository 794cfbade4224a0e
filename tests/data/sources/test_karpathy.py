import json
import warnings

import numpy as np
import pytest
from PIL import Image

from capkit.data.sources.karpathy import Karpathy
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
        ("{", "d.json: not JSON"),
        ("[]", "not a Karpathy split file"),
        ('{"images": [{"filename": "a"}]}', "image 0: no 'split'; it has 'filename'"),
        (
            '{"images": [{"filename": "a", "split": "val", "sentences": [{}]}]}',
            "image 0 (a): expected a caption as text",
        ),
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


def write(folder, *images, **values) -> str:
    """A Karpathy file of images given by split, filename and more."""
    rows = [{"sentences": [{"raw": "a plate"}], **image} for image in images]
    (folder / "d.json").write_text(json.dumps({"images": rows}), **values)
    return str(folder / "d.json")


def image(split: str, filename: str, **more) -> dict:
    return {"split": split, "filename": filename, **more}


def test_pictures_of_one_name_in_two_folders_are_two_records(tmp_path):
    for folder in ("north", "south"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (2, 2), (9 if folder == "south" else 0, 0, 0)).save(tmp_path / folder / "006.png")
    path = write(tmp_path, *(image("test", "006.png", filepath=folder) for folder in ("north", "south")))
    source = Karpathy(str(tmp_path), path, "test")
    assert keys(source) == ["north/006", "south/006"]
    assert [source.image(i)[0, 0, 0] for i in range(2)] == [0, 9]
    (tmp_path / "flat").mkdir()
    with pytest.raises(UsageError, match=r"pictures of one name are in several folders \(north, south\)"):
        len(Karpathy(str(tmp_path / "flat"), path, "test"))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([image("train", "a.jpg"), image("train", "a.png")], "two records have the key 'a'"),
        ([image("train", "a.jpg", cocoid=7), image("restval", "b.jpg", cocoid=7)], "two records have the key '7'"),
        (
            [image("train", "a.jpg", cocoid=7), image("train", "./a.jpg", cocoid=8)],
            "two records of the picture 'a.jpg'",
        ),
    ],
)
def test_two_records_of_one_key_or_picture_are_an_error(tmp_path, images, message):
    with pytest.raises(UsageError) as caught:
        len(Karpathy(str(tmp_path), write(tmp_path, *images), "train"))
    assert message in str(caught.value)


def test_pictures_of_a_split_that_there_is_not_are_told(tmp_path):
    path = write(tmp_path, *(image(split, f"{split}.jpg") for split in ("train", "val", "dev2", "test")))
    with pytest.warns(UserWarning, match="1 of 4 images are used in no split: 1 in 'dev2'; the splits are train, val"):
        assert keys(Karpathy(str(tmp_path), path, "train")) == ["train"]


def test_picture_in_two_splits_is_told(tmp_path):
    path = write(tmp_path, *(image(split, "a.jpg") for split in ("train", "test")), image("val", "b.jpg"))
    with pytest.warns(UserWarning, match=r"'a\.jpg' \(train and test\); give a picture one split"):
        assert keys(Karpathy(str(tmp_path), path, "test")) == ["a"]


@pytest.mark.parametrize("missing", ["val", "test"])
def test_share_of_train_stands_in_for_a_split_that_is_not_there(tmp_path, missing):
    there = "test" if missing == "val" else "val"
    path = write(tmp_path, *(image("train", f"{n}.jpg") for n in range(20)), image(there, "x.jpg"))
    with pytest.warns(UserWarning, match=f"no image is in split '{missing}'; 2 of the 20 train images are kept for it"):
        parts = {
            split: keys(Karpathy(str(tmp_path), path, split, val=0.1, test=0.1)) for split in ("train", "val", "test")
        }
    assert len(parts[missing]) == 2 and parts[there] == ["x"]
    assert sorted(parts["train"] + parts[missing]) == sorted(str(n) for n in range(20))


def test_byte_order_mark_and_dev_are_taken_as_other_readers_do(tmp_path):
    images = [image("Train", "a.jpg"), image("dev", "b.jpg"), image("TEST", "c.jpg")]
    path = write(tmp_path, *images, encoding="utf-8-sig")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [keys(Karpathy(str(tmp_path), path, split)) for split in ("train", "val", "test")] == [
            ["a"],
            ["b"],
            ["c"],
        ]


def test_sentences_may_be_plain_texts(tmp_path):
    path = write(tmp_path, image("test", "a.jpg", sentences=["a plate", "one plate"]))
    assert [c.text for c in Karpathy(str(tmp_path), path, "test").record(0).captions] == ["a plate", "one plate"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"sentences": [{"raw": None}]}, "image 0 (a.jpg): expected a caption as text, or a list of them; got null"),
        ({"sentences": [{"raw": 5}]}, "image 0 (a.jpg): expected a caption as text, or a list of them; got 5"),
        ({"sentences": ["a", "plate", "."]}, "image 0 (a.jpg): expected captions, got the words of one"),
        ({"sentences": None}, "image 0: expected a list as 'sentences', got null"),
        ({"filename": 3}, "image 0: expected text as 'filename', got 3"),
        ({"filename": "a\0.jpg"}, "image 0: no file can be named"),
        ({"filepath": 3}, "image 0: expected text as 'filepath', got 3"),
        ({"cocoid": [1]}, "image 0: expected text or a whole number as 'cocoid', got a list [1]"),
        ({"split": None}, "image 0: expected text as 'split', got null"),
    ],
)
def test_values_of_another_type_are_told_with_the_image(tmp_path, row, message):
    with pytest.raises(UsageError) as caught:
        len(Karpathy(str(tmp_path), write(tmp_path, image("train", "a.jpg") | row), "train"))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [{"filename": "a", "filename": "b"}]}', "the key 'filename' stands twice"),
        ('{"images": ' + "[" * 100_000, "nested too deep"),
        ('{"images": [3]}', "image 0: expected an object, got 3"),
    ],
)
def test_files_that_cannot_be_read_faithfully_are_refused(tmp_path, text, message):
    (tmp_path / "d.json").write_text(text)
    with pytest.raises(UsageError, match=message):
        len(Karpathy(str(tmp_path), str(tmp_path / "d.json"), "train"))
