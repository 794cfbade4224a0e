"""JSON lines of views: pictures, boxes, objects and captions; .npz files are refused."""

import json

import numpy as np
import pytest
from PIL import Image

from capkit.data.images import BadImage
from capkit.data.records import Caption, Record
from capkit.data.sources.object_crops import ObjectCrops, crop
from capkit.errors import UsageError


def row(image="a.png", box=(0.25, 0.5, 0.5, 1.0), name="e1/3", caption="a sofa", **more):
    return {"image": image, "box": list(box), "object": name, "caption": caption, **more}


@pytest.fixture
def picture():
    return np.arange(40 * 20 * 3, dtype=np.uint32).astype(np.uint8).reshape(20, 40, 3)


def source(tmp_path, *rows, **settings):
    (tmp_path / "views.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return ObjectCrops(str(tmp_path), str(tmp_path / "views.jsonl"), **settings)


def test_lines_of_one_object_are_views_next_to_each_other(tmp_path, picture):
    for name in ("a.png", "b.png"):
        Image.fromarray(picture).save(tmp_path / name)
    found = source(tmp_path, row(), row(name="e1/4", caption="a bed"), row("b.png", caption="a couch", extra=1))
    assert [found.record(i).key for i in range(len(found))] == ["e1/3#0", "e1/3#1", "e1/4#0"]
    assert found.record(1) == Record(
        "e1/3#1",
        captions=[Caption("a couch", "captioner")],
        metadata={"view_of": "b.png", "box": [0.25, 0.5, 0.5, 1.0]},
        object="e1/3",
    )
    assert source(tmp_path, row(), source="coca").record(0).captions[0].source == "coca"


def test_a_crop_is_wider_than_the_box_by_the_margin_and_ends_with_the_picture(tmp_path, picture):
    """40 x 20 pixels; the box is 10 to 20 by 10 to 20. A tenth more each side: 9 to 21 by 9 to 20, the lower edge."""
    Image.fromarray(picture).save(tmp_path / "a.png")
    assert np.array_equal(source(tmp_path, row()).image(0), picture[9:20, 9:21])
    assert np.array_equal(source(tmp_path, row(), margin=0.0).image(0), picture[10:20, 10:20])
    assert np.array_equal(crop(picture, [0.0, 0.0, 1.0, 1.0], 0.5), picture)
    assert crop(picture, [0.5, 0.5, 0.5001, 0.5001], 0.0).shape == (1, 1, 3)


def test_a_picture_that_is_not_there_is_a_bad_image(tmp_path):
    with pytest.raises(BadImage):
        source(tmp_path, row("gone.png")).image(0)


@pytest.mark.parametrize("suffix", ["npz", "jsonl"])
def test_npz_files_are_refused_with_the_reason_whatever_their_name(tmp_path, suffix):
    np.savez(tmp_path / "views.npz", arr_0=np.array({"image": 1}, dtype=object))
    (tmp_path / "views.npz").rename(tmp_path / f"views.{suffix}")
    with pytest.raises(UsageError, match="pickles: reading them can run any code; convert files that you trust"):
        ObjectCrops(str(tmp_path), str(tmp_path / f"views.{suffix}"))


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (row(box=(10, 20, 30, 40)), "line 2: expected a box with 0 <= x0 < x1 <= 1 .* write shares"),
        (row(box=(0.5, 0.5, 0.5, 1)), "line 2: expected a box with 0 <= x0 < x1"),
        (row(box=(0.5, 0.5, 1)), "line 2: expected a box of 4 numbers"),
        (row(box=(0.5, 0.5, 1, "1")), "line 2: expected a number as 'box'"),
        (row(name=" "), "line 2: expected the name of an object"),
        (row(name=3), "line 2: expected text as 'object'"),
        ({"image": "a.png", "box": [0, 0, 1, 1], "caption": "a bed"}, "line 2: no 'object'"),
        (row(caption=None), "line 2: expected text as 'caption'"),
        (row(image=""), "line 2: no file name"),
        ([1], "line 2: expected an object"),
    ],
)
def test_a_wrong_line_is_refused_with_its_number(tmp_path, wrong, problem):
    with pytest.raises(UsageError, match=problem):
        len(source(tmp_path, row(), wrong))


def test_without_a_file_or_views_it_says_so(tmp_path):
    with pytest.raises(UsageError, match="path: none given"):
        ObjectCrops(str(tmp_path), None)
    with pytest.raises(UsageError, match="no views; write"):
        len(source(tmp_path))
