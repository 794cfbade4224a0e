"""Visual Genome's regions and triplets, in small files of the public format that the tests write."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from capkit.data.datamodule import CaptionDataModule
from capkit.data.sources.triplets import Triplets
from capkit.data.sources.visual_genome import VisualGenome
from capkit.data.transforms import ImageTransform
from capkit.errors import UsageError

SIZES = {1: (40, 20), 2: (20, 20), 3: (20, 40), 4: (20, 20)}


def described(image_id, *rows):
    keys = ("x", "y", "width", "height", "phrase")
    regions = [dict(zip(keys, row, strict=True), region_id=k, image_id=image_id) for k, row in enumerate(rows)]
    return {"id": image_id, "regions": regions}


REGIONS = [
    described(1, (10, 5, 20, 10, "the clock is green"), (-5, 0, 25, 30, "a wall"), (40, 0, 5, 5, "beyond")),
    described(2, (0, 0, 20, 20, "left shoe"), (1, 1, 0, 5, "thin"), (2, 2, 5, 5, "  ")),
    described(3, (0, 0, 10, 40, "a man")),
    described(4, (0, 0, 5, 5, "a cat")),
]


def address(image_id):
    folder = "VG_100K_2" if image_id == 1 else "VG_100K"
    return f"https://cs.stanford.edu/people/rak248/{folder}/{image_id}.jpg"


def write(folder, regions=REGIONS, in_folders=True, pictures=(1, 2, 3, 4)):
    rows = [{"image_id": i, "url": address(i), "width": w, "height": h, "coco_id": None} for i, (w, h) in SIZES.items()]
    (folder / "image_data.json").write_text(json.dumps(rows))
    (folder / "region_descriptions.json").write_text(json.dumps(regions))
    for image_id in pictures:
        path = folder / "images" / ("/".join(address(image_id).split("/")[-2:]) if in_folders else f"{image_id}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZES[image_id], (image_id, 0, 0)).save(path, quality=95)
    (folder / "splits.json").write_text(json.dumps({"train": [3, 1], "val": [4], "test": [2]}))


def genome(folder, split="train", **options):
    settings = {"images": folder / "images", "regions": folder / "region_descriptions.json"}
    settings |= {"image_data": folder / "image_data.json", "splits": folder / "splits.json"} | options
    texts = {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()}
    return VisualGenome(**texts, split=split)


@pytest.mark.parametrize("in_folders", [True, False])
def test_boxes_in_pixels_become_shares_cut_at_the_pictures_edges(tmp_path, in_folders):
    write(tmp_path, in_folders=in_folders)
    source = genome(tmp_path)
    first, second = source.record(0), source.record(1)
    assert [first.key, second.key] == ["1", "3"] and first.captions == [] and first.metadata == {"image_id": 1}
    assert [(region.box, region.text) for region in first.regions] == [
        ((0.25, 0.25, 0.75, 0.75), "the clock is green"),
        ((0.0, 0.0, 0.5, 1.0), "a wall"),
        ((1.0, 0.0, 1.0, 0.25), "beyond"),
    ]
    assert source.image(0).shape == (20, 40, 3) and second.regions[0].box == (0.0, 0.0, 0.5, 1.0)


# The first rows of version 1.2 as they stand there, a phrase with a blank at its end among them (Krishna et al. 2017,
# CC BY 4.0). The last is in the form of older releases: its own number is `id`.
RELEASED = """[{"regions": [
{"region_id": 1382, "width": 82, "height": 139, "image_id": 1,
 "phrase": "the clock is green in colour", "y": 57, "x": 421},
{"region_id": 1383, "width": 182, "height": 109, "image_id": 1,
 "phrase": "shade is along the street ", "y": 372, "x": 194},
{"id": 1384, "image": 1, "width": 61, "height": 30, "phrase": "man is wearing sneakers", "y": 491, "x": 241}
], "id": 1}]"""
PICTURE = {"width": 800, "height": 600, "url": address(1), "coco_id": None, "flickr_id": None}


@pytest.mark.parametrize("name", ["image_id", "id"])
def test_rows_of_the_release_are_read_as_they_stand(tmp_path, name):
    write(tmp_path)
    (tmp_path / "region_descriptions.json").write_text(RELEASED)
    (tmp_path / "image_data.json").write_text(json.dumps([PICTURE | {name: 1}]))
    record = genome(tmp_path, splits=None, val=0.0, test=0.0).record(0)
    assert record.key == "1" and record.image == "VG_100K_2/1.jpg"
    assert [region.text.strip() for region in record.regions] == [
        "the clock is green in colour",
        "shade is along the street",
        "man is wearing sneakers",
    ]
    assert record.regions[0].box == (421 / 800, 57 / 600, 503 / 800, 196 / 600)


def test_without_a_file_of_splits_they_are_shares_that_together_are_all(tmp_path):
    write(tmp_path)
    keys = [{genome(tmp_path, split, splits=None).record(0).key} for split in ("val", "test")]
    train = genome(tmp_path, splits=None)
    assert set.union(*keys) | {train.record(k).key for k in range(len(train))} == {"1", "2", "3", "4"}
    assert len(train) == 2


def test_what_is_no_region_is_listed_and_a_missing_picture_is_skipped(tmp_path):
    write(tmp_path, pictures=(1, 2, 4))  # not 3
    data = CaptionDataModule(
        train=genome(tmp_path), val=genome(tmp_path), test=genome(tmp_path, "test"), captions_of="regions",
        transform=ImageTransform(8), max_skipped=1,
    )  # fmt: skip
    data.attach(run_dir=tmp_path / "run")
    (batch,) = data.eval_dataloader("val")
    (tests,) = data.eval_dataloader("test")
    assert batch.keys == ["1"] and [r["text"] for r in batch.regions[0]] == ["the clock is green", "a wall"]
    assert tests.references == [["left shoe"]]
    rows = [json.loads(line) for line in (tmp_path / "run/skipped.jsonl").read_text().splitlines()]
    assert [(row["key"], row["what"], row["reason"]) for row in rows] == [
        ("1", "region", "region 2 has no area"),
        ("3", "example", "No such file or directory"),
        ("2", "region", "region 1 has no area"),
        ("2", "region", "region 2 has no text"),
    ]


def changed(place, name, value):
    regions = json.loads(json.dumps(REGIONS))
    target = regions[place] if name in regions[place] else regions[place]["regions"][0]
    target[name] = value
    return regions


@pytest.mark.parametrize(
    ("regions", "said"),
    [
        (changed(0, "x", "10"), r"picture 0 region 0: expected a number as 'x', got '10'"),
        (changed(0, "width", float("nan")), r"picture 0 region 0: expected a number as 'width'"),
        (changed(2, "phrase", None), r"picture 2 region 0: expected text as 'phrase', got null"),
        (changed(1, "id", 9), r"picture 1: .*image_data\.json has no picture 9; give the files of one release"),
        (changed(1, "id", 1), "the key '1'"),
        ({"images": []}, "expected a list of pictures, got an object"),
        ([], "expected a list of pictures, got a list"),
    ],
)
def test_what_is_wrong_with_region_descriptions_is_named(tmp_path, regions, said):
    write(tmp_path, regions)
    with pytest.raises(UsageError, match=said):
        len(genome(tmp_path))


def test_files_and_splits_that_are_missing_or_wrong_are_named(tmp_path):
    write(tmp_path)
    with pytest.raises(UsageError, match="image_data: none given"):
        VisualGenome(str(tmp_path), str(tmp_path / "region_descriptions.json"), None, "train")
    with pytest.raises(UsageError, match="split: expected train, val, test; got 'dev'"):
        genome(tmp_path, "dev")
    (tmp_path / "splits.json").write_text('{"train": [1], "test": [1]}')
    with pytest.raises(UsageError, match="picture 1 is in train and again in test"):
        len(genome(tmp_path))
    (tmp_path / "splits.json").write_text('{"train": [1]}')
    with pytest.raises(UsageError, match="no pictures in split 'val'"):
        len(genome(tmp_path, "val", val=0.0))


# triplets ------------------------------------------------------------------------------------------------------------

LINES = [
    {"image": "b.png", "box": [0, 0, 0.5, 1], "caption": "red square", "n_words": 2},
    {"image": "a.png", "box": [0.25, 0.25, 0.75, 1.0], "caption": "a dog"},
    {"image": "b.png", "box": [0.5, 0, 0.5, 1], "caption": "thin", "score": 0.3},
    {"image": "b.png", "box": [0.5, 0, 1, 1], "caption": "blue circle"},
]


def triplets(folder, lines=LINES):
    path = folder / "triplets.jsonl"
    path.write_text("\n\n".join(json.dumps(line) for line in lines))
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(folder / name)
    return Triplets(str(folder), str(path))


def test_triplets_of_one_picture_are_its_regions_wherever_they_stand(tmp_path):
    source = triplets(tmp_path)
    assert [source.record(k).key for k in range(len(source))] == ["b.png", "a.png"]
    assert [(r.box, r.text) for r in source.record(0).regions] == [
        ((0.0, 0.0, 0.5, 1.0), "red square"),
        ((0.5, 0.0, 0.5, 1.0), "thin"),
        ((0.5, 0.0, 1.0, 1.0), "blue circle"),
    ]
    data = CaptionDataModule(train=source, val=source, captions_of="regions", transform=ImageTransform(4))
    assert next(iter(data.eval_dataloader("val"))).references == [["red square", "blue circle"], ["a dog"]]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"box": [0, 0, 30, 40]}, "line 3: expected a box with 0 <= x0 <= x1 <= 1"),
        ({"box": [0.5, 0, 0.25, 1]}, "line 3: expected a box with 0 <= x0 <= x1 <= 1"),
        ({"box": [0, 0, 1]}, "line 3: expected a box of 4 numbers"),
        ({"box": [0, 0, 1, float("nan")]}, "line 3: expected a number as 'box'"),
        ({"box": [0, 0, 1, True]}, "line 3: expected a number as 'box', got true"),
        ({"caption": None}, "line 3: expected text as 'caption', got null"),
        ({"image": 3}, "line 3: expected text as 'image'"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, changes, said):
    with pytest.raises(UsageError, match=said):
        len(triplets(tmp_path, [LINES[0], LINES[1] | changes]))


def test_an_empty_file_and_a_missing_path_are_told(tmp_path):
    with pytest.raises(UsageError, match="no triplets"):
        len(triplets(tmp_path, []))
    with pytest.raises(UsageError, match="path: none given"):
        Triplets(str(tmp_path), None)
