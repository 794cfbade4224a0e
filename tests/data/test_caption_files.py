import json

import pytest

from capkit.data.caption_files import read_captions
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
        ("c.json", b"3", "wanted an object or a list"),
        ("c.json", b'{"a.jpg": 3}', "image 'a.jpg': wanted a caption"),
        ("c.json", b'[{"caption": "x"}]', "item 0: no column named file"),
        ("c.json", b'{"images": [], "dataset": "coco"}', "data=karpathy"),
        ("c.json", b'{"images": [], "annotations": [{"image_id": 1, "caption": "x"}]}', "not a COCO captions file"),
        ("c.jsonl", b'{"file": "a", "caption": "x"}\n[]\n', "line 2: wanted an object"),
        ("c.jsonl", b'{"key": "a", "bog": "x"}\n', "line 1: unknown field 'bog'"),
        ("c.jsonl", b'{"key": "a"}\n{"key": "a"}\n', "line 2: two records have the key 'a'"),
    ],
)
def test_wrong_file_says_where_and_what(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_captions(tmp_path / name)
    assert message in str(caught.value)
