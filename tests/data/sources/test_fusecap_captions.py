"""FuseCap's released lists: {image, caption} of COCO, {url, caption} of pictures that were downloaded."""

import json

import numpy as np
import pytest
from PIL import Image

from capkit.data.sources.conceptual_captions import picture_name
from capkit.data.sources.fusecap import FuseCapCaptions
from capkit.errors import UsageError

URL = "http://a.example/cat.jpg"


def captions_file(tmp_path, rows):
    (tmp_path / "fused.json").write_text(json.dumps(rows))
    return str(tmp_path / "fused.json")


def draw(path, color=9):
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (4, 3), (color, 0, 0)).save(path)


def source(tmp_path, rows, **settings):
    return FuseCapCaptions(
        str(tmp_path / "pictures"), captions_file(tmp_path, rows), **{"val": 0, "test": 0, **settings}
    )


def test_pictures_are_found_by_their_name_or_by_their_address(tmp_path):
    """Two rows of one picture are two captions of it, and the order is that of the list."""
    draw(tmp_path / "pictures" / "COCO_train2014_000000000009.jpg")
    draw(tmp_path / "pictures" / f"{picture_name(URL)}.png", 200)
    name = "COCO_train2014_000000000009.jpg"
    rows = [
        {"image": name, "caption": "a red plate"},
        {"url": URL, "caption": "a cat"},
        {"image": name, "caption": "food"},
    ]
    found = source(tmp_path, rows)
    records = [found.record(index) for index in range(len(found))]
    assert [(r.key, [(c.text, c.source) for c in r.captions]) for r in records] == [
        (name, [("a red plate", "fusecap"), ("food", "fusecap")]), (picture_name(URL), [("a cat", "fusecap")])
    ]  # fmt: skip
    assert records[1].metadata == {"url": URL}
    assert np.array_equal(found.image(1)[0, 0], [200, 0, 0]) and found.image(0).shape == (3, 4, 3)


def test_addresses_whose_picture_is_gone_are_left_out_up_to_a_share(tmp_path):
    draw(tmp_path / "pictures" / f"{picture_name(URL)}.png")
    rows = [{"url": URL, "caption": "a cat"}, {"url": "http://b/gone.jpg", "caption": "a dog"}]
    with pytest.warns(UserWarning, match="1 of 2 addresses are left out"):
        assert len(source(tmp_path, rows)) == 1
    with pytest.raises(UsageError, match=r"expected a share of at most 0\.2"):
        len(source(tmp_path, rows, max_missing=0.2))


def test_splits_are_drawn_by_picture(tmp_path):
    rows = [{"image": f"{number}.jpg", "caption": f"{number}"} for number in range(40)]
    (tmp_path / "pictures").mkdir()
    parts = [source(tmp_path, rows, split=split, val=0.2, test=0.3) for split in ("train", "val", "test")]
    keys = [{part.record(index).key for index in range(len(part))} for part in parts]
    assert sum(map(len, keys)) == 40 == len(set().union(*keys)) and min(map(len, keys)) > 3


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ({"image": "a", "caption": "b"}, "expected a list"),
        ([], "no captions in it"),
        ([["a"]], "item 0: expected an object"),
        ([{"image": "a.jpg"}], "item 0: no 'caption'"),
        ([{"caption": "a"}], "item 0: expected 'image' or 'url' beside 'caption', got none"),
        ([{"image": "a", "url": "b", "caption": "c"}], "got both"),
        ([{"url": 3, "caption": "c"}], "expected text as 'url'"),
        ([{"image": "a", "caption": "c"}, {"image": "./a", "caption": "d"}], "two records of the picture"),
        ([{"url": "http://b/gone.jpg", "caption": "c"}], "CRC-32 of the address"),
    ],
)
def test_other_lists_are_refused_with_the_item(tmp_path, rows, reason):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(UsageError, match=reason):
        len(source(tmp_path, rows))
