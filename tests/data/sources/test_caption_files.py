import json
import warnings

import pytest

from capkit.data.sources.caption_files import read_captions
from capkit.errors import UsageError

WANTED = {"a.jpg": ["a dog, running", "one dog"], "sub/b c.jpg": ["ein Hund «ü»"]}


def texts(path) -> dict[str, list[str]]:
    return {row.record.key: [c.text for c in row.record.captions] for row in read_captions(path)}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.csv", 'file,caption\na.jpg,"a dog, running"\nsub/b c.jpg,ein Hund «ü»\n\na.jpg,one dog\n'),
        ("c.txt", 'image,caption\r\na.jpg,"a dog, running"\r\na.jpg,one dog\r\nsub/b c.jpg,ein Hund «ü»\r\n'),
        ("c.csv", "\ufeffFile_Name;Text\na.jpg;a dog, running\na.jpg;one dog\nsub/b c.jpg;ein Hund «ü»"),
        ("c.tsv", "caption\tpath\na dog, running\ta.jpg\none dog\ta.jpg\nein Hund «ü»\tsub/b c.jpg\n"),
        ("c.json", json.dumps({"a.jpg": WANTED["a.jpg"], "sub/b c.jpg": "ein Hund «ü»"})),
        ("c.json", json.dumps([{"file": k, "captions": v} for k, v in WANTED.items()])),
        ("c.jsonl", "\n".join(json.dumps({"file_name": k, "text": v}) for k, v in WANTED.items())),
        ("c.jsonl", "".join(json.dumps({"key": k, "image": k, "captions": v}) + "\n\n" for k, v in WANTED.items())),
    ],
    ids=["csv", "flickr txt", "excel csv", "tsv", "json object", "json list", "jsonl", "manifest"],
)
def test_every_documented_shape_gives_the_same_captions(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    assert texts(tmp_path / name) == WANTED


def test_caption_may_span_lines_of_a_csv_and_errors_count_them(tmp_path):
    (tmp_path / "c.csv").write_text('file,caption\na.jpg,"two\nlines\u2028x"\nb.jpg,one,two\n', encoding="utf-8")
    with pytest.raises(UsageError, match=r"c\.csv line 4: 3 cells for 2 columns; put captions with commas in quotes"):
        read_captions(tmp_path / "c.csv")


def test_coco_annotations_are_read_with_their_image_ids(tmp_path):
    content = {
        "info": {},
        "images": [{"id": 9, "file_name": "x.jpg"}, {"id": 4, "file_name": "y.jpg"}],
        "annotations": [{"image_id": 4, "id": 1, "caption": "why"}, {"image_id": 9, "id": 2, "caption": "ex"}],
    }
    (tmp_path / "c.json").write_text(json.dumps(content))
    first, second = (row.record for row in read_captions(tmp_path / "c.json"))
    assert (first.key, first.image, first.captions[0].text) == ("9", "x.jpg", "ex")
    assert second.metadata == {"image_id": 4}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.xml", b"", "should end in"),
        ("c.csv", b"file,caption\na.jpg,caf\xe9\n", "not UTF-8"),
        ("c.csv", b"", "no column named file"),
        ("c.csv", b"name,caption\n", "the columns are name, caption"),
        ("c.csv", b"file,caption\n", "no captions in it"),
        ("c.csv", b"file,caption\n,x\n", "line 2: no file name"),
        ("c.csv", b'file,caption\na.jpg,"x\n', "not CSV"),
        ("c.csv", b"file,caption,split\na,x,dev2\n", "split 'dev2' is unknown"),
        ("c.csv", b"file,caption,split\na,x,train\na,y,test\n", "give an image one split"),
        ("c.json", b"{", "not JSON"),
        ("c.json", b"3", "expected an object or a list"),
        ("c.json", b'{"a.jpg": 3}', "image 'a.jpg': expected a caption"),
        ("c.json", b'[{"caption": "x"}]', "item 0: no column named file"),
        ("c.json", b'{"images": [], "dataset": "coco"}', "data=karpathy"),
        (
            "c.json",
            b'{"images": [], "annotations": [{"image_id": 1, "caption": "x"}]}',
            "annotations, item 0: no item of 'images' has the id 1",
        ),
        ("c.jsonl", b'{"file": "a", "caption": "x"}\n[]\n', "line 2: expected an object"),
        ("c.jsonl", b'{"key": "a", "bog": "x"}\n', "line 1: unknown field 'bog'"),
        ("c.jsonl", b'{"key": "a"}\n{"key": "a"}\n', "line 2: two records have the key 'a'"),
    ],
)
def test_wrong_file_says_where_and_what(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_captions(tmp_path / name)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.json", "\ufeff" + json.dumps([{"filename": "a.jpg", "caption": "a dog"}])),
        ("c.json", '{"file": "a.jpg", "caption": "a dog"}'),
        ("c.json", '{"file": "a.jpg", "caption": "a dog"}\n{"file": "b.jpg", "caption": "a dog"}\n'),
        ("c.jsonl", '{"image": "a.jpg", "caption_0": "a dog"}'),
        ("c.json", '{"a.jpg": [{"caption": "a dog"}]}'),
        ("c.json", '{"a.jpg": {"raw": "a dog", "tokens": ["a", "dog"]}}'),
    ],
    ids=[
        "byte order mark",
        "one object",
        "JSON lines in .json",
        "numbered",
        "objects of captions",
        "Karpathy's sentences",
    ],
)
def test_shapes_that_sister_readers_take_are_taken(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert texts(tmp_path / name)["a.jpg"] == ["a dog"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.jsonl", '{"file": "%s", "caption": "x", "split": "%s"}'),
        ("c.csv", "file,caption,split\n%s,x,%s"),
    ],
)
def test_splits_of_any_spelling_are_the_three(tmp_path, name, text):
    head, _, row = text.rpartition("\n")
    rows = [row % pair for pair in (("a", "Train"), ("b", "dev"), ("c", "TEST"))]
    (tmp_path / name).write_text("\n".join([head, *rows]).strip())
    assert [row.split for row in read_captions(tmp_path / name)] == ["train", "val", "test"]


def coco(annotations, images=({"id": 1, "file_name": "a.jpg"},)) -> str:
    return json.dumps({"images": list(images), "annotations": annotations})


def test_coco_ids_are_compared_as_text(tmp_path):
    (tmp_path / "c.json").write_text(coco([{"image_id": "1", "caption": "a dog"}]))
    (row,) = read_captions(tmp_path / "c.json")
    assert row.record.metadata == {"image_id": 1} and row.record.captions[0].text == "a dog"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.json", '{"a.jpg": "x", "b.jpg": "x", "a.jpg": "y"}', "c.json: the key 'a.jpg' stands twice"),
        ("c.jsonl", '{"file": "a", "caption": "x", "caption": "y"}', "c.jsonl line 1: the key 'caption' stands twice"),
        ("c.jsonl", '{"image": "a", "caption": ["a", "dog", "."]}', "line 1: expected captions, got the words of one"),
        ("c.json", '{"results": [{"file": "a", "caption": "x"}]}', "image 'results': a list of entries"),
        (
            "c.json",
            coco([{"image_id": 1, "caption": None}]),
            "annotations, item 0, image 1: expected a caption as text",
        ),
        ("c.json", coco([{"image_id": 1, "caption": 5}]), "item 0, image 1: expected a caption as text, or a list"),
        ("c.json", coco([{"image_id": None, "caption": "x"}]), "item 0: expected text or a whole number as 'image_id'"),
        ("c.json", coco([{"image_id": 1, "bbox": []}]), "annotations, item 0: no 'caption'; give a file of captions"),
        ("c.json", coco(["x"]), "annotations, item 0: expected an object, got 'x'"),
        ("c.json", coco([], [{"id": 1, "file_name": "a"}] * 2), "images, item 1: two images have the id 1"),
        (
            "c.json",
            coco([], [{"id": True, "file_name": "a"}]),
            "images, item 0: expected text or a whole number as 'id'",
        ),
        ("c.json", coco([], [{"id": 1, "file_name": 3}]), "images, item 0: expected text as 'file_name', got 3"),
        ("c.json", coco([], 3 * [[]]), "images, item 0: expected an object, got a list []"),
        ("c.json", '{"images": [{"id": 1, "file_name": "a"}]}', "'images' without 'annotations'"),
        ("c.json", '{"images": 3, "annotations": []}', "expected a list as 'images', got 3"),
        ("c.json", '{"a\\u0000.jpg": "x"}', r"no file can be named 'a\x00.jpg'"),
        ("c.jsonl", '{"file": "a\\ud83d.jpg", "caption": "x"}', r"line 1: no file can be named 'a\ud83d.jpg'"),
        ("c.jsonl", '{"file": 3, "caption": "x"}', "line 1: expected text as 'file', got 3"),
        ("c.jsonl", '{"file": "a", "caption": "x", "split": 3}', "line 1: expected text as 'split', got 3"),
        ("c.json", "[" * 100_000, "c.json: lists or objects are nested too deep"),
        ("c.json", '{"a.jpg": 1' + "0" * 5000 + "}", "c.json: a whole number of more than 4,300 digits"),
        (
            "c.json",
            '[{"file": "a", "caption": "x"}, {"file": "./a", "caption": "x"}]',
            "two records of the picture 'a'",
        ),
    ],
)
def test_values_that_would_be_lost_or_misread_are_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError) as caught:
        read_captions(tmp_path / name)
    assert message in str(caught.value) and str(tmp_path / name) in str(caught.value)


def test_picture_in_two_splits_is_told(tmp_path):
    rows = [("p00.jpg", "train"), ("./p00.jpg", "test"), ("p01.jpg", "train"), ("p02.jpg", "val")]
    objects = [{"file": file, "caption": "a plate", "split": split} for file, split in rows]
    (tmp_path / "c.json").write_text(json.dumps(objects))
    with pytest.warns(UserWarning, match=r"1 pictures are in two splits.*: 'p00\.jpg' \(train and test\)"):
        assert len(read_captions(tmp_path / "c.json")) == 4


def test_images_without_a_split_beside_others_with_one_are_told(tmp_path):
    (tmp_path / "c.csv").write_text("file,caption,split\na.jpg,x,train\nb.jpg,x,\n")
    with pytest.warns(UserWarning, match=r"1 of 2 images have no split and are used in none, e\.g\. 'b\.jpg'"):
        read_captions(tmp_path / "c.csv")


def test_a_caption_row_without_split_joins_its_image(tmp_path):
    (tmp_path / "c.csv").write_text("file,caption,split\na.jpg,x,\na.jpg,y,val\na.jpg,z,\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (row,) = read_captions(tmp_path / "c.csv")
    assert row.split == "val" and len(row.record.captions) == 3
