import json

import pytest

from capkit.data.prediction_files import images_to_score, read_captions
from capkit.data.sources.caption_files import read_captions as for_training
from capkit.errors import UsageError


def table(tmp_path, *lines):
    path = tmp_path / "captions.CSV"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_one_table_has_captions_and_references_and_its_rows_are_numbered(tmp_path):
    path = table(tmp_path, "original_description,generated_description", '"a dog, and a cat",a dog', "a tree,")
    assert read_captions(path, "predictions").captions == {"0": ["a dog"], "1": [""]}
    assert read_captions(path, "references").captions == {"0": ["a dog, and a cat"], "1": ["a tree"]}


def test_a_column_of_images_names_them(tmp_path):
    path = table(tmp_path, "image,generated_caption", "x.jpg,a dog")
    assert read_captions(path, "predictions").captions == {"x.jpg": ["a dog"]}
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"image": "x.jpg", "text": "two dogs"}) + "\n")
    assert read_captions(rows, "references").captions == {"x.jpg": ["two dogs"]}


def test_rows_of_decapbench_are_read(tmp_path):
    rows = tmp_path / "rows.jsonl"
    lines = [{"image_path": f"{n}.jpg", "caption": "a dog", "oracle_caption": "two dogs"} for n in "ab"]
    rows.write_text("\n".join(map(json.dumps, lines)))
    assert read_captions(rows, "predictions").captions == {"a.jpg": ["a dog"], "b.jpg": ["a dog"]}


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["image,words", "x,a dog"], "no column named caption or text"),
        ([""], "the file is empty"),
        (["image,caption", "x,a,dog"], "line 2: expected 2 cells, as the header has, got 3"),
        (["image,caption"], "no captions in it"),
    ],
)
def test_other_tables_are_refused(tmp_path, lines, reason):
    with pytest.raises(UsageError, match=reason):
        read_captions(table(tmp_path, *lines), "predictions")


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("captions.csv", ["file,caption", "x.jpg,a dog", 'x.jpg,"two dogs, one cat"', "y.jpg,a tree"]),
        ("captions.csv", ["file;caption", "x.jpg;a dog", 'x.jpg;"two dogs, one cat"', "y.jpg;a tree"]),
        ("captions.tsv", ["file\tcaption", "x.jpg\ta dog", "x.jpg\ttwo dogs, one cat", "y.jpg\ta tree"]),
        ("results.token", ["x.jpg#0\ta dog", "x.jpg#1\ttwo dogs, one cat", "y.jpg#0\ta tree"]),
        ("captions.csv", ["x.jpg,a dog", 'x.jpg,"two dogs, one cat"', "y.jpg,a tree"]),
    ],
    ids=["commas", "semicolons", "tabs", "token", "without header"],
)
@pytest.mark.parametrize("what", ["predictions", "references"])
def test_tables_of_training_are_read_as_training_reads_them(tmp_path, name, lines, what):
    (tmp_path / name).write_text("\n".join(lines) + "\n")
    wanted = {"x.jpg": ["a dog", "two dogs, one cat"], "y.jpg": ["a tree"]}
    assert read_captions(tmp_path / name, what).captions == wanted
    of_training = {row.record.key: [c.text for c in row.record.captions] for row in for_training(tmp_path / name)}
    assert of_training == wanted


@pytest.mark.filterwarnings("ignore:.*captions are read from")
@pytest.mark.parametrize(
    "header, read",
    [("file_name,caption,generated_caption", ("b", "a")), ("filename,text,caption", ("b", "a"))],
    ids=["both", "text"],
)
def test_captions_and_references_of_one_table_with_files_are_not_taken_for_each_other(tmp_path, header, read):
    path = table(tmp_path, header, "x.jpg,a,b")
    found = [read_captions(path, what).captions for what in ("predictions", "references")]
    assert found == [{"x.jpg": [text]} for text in read]


def test_their_splits_choose_the_images_to_score(tmp_path):
    path = table(tmp_path, "file,caption,split", "x.jpg,a dog,test", "y.jpg,a tree,train")
    file = read_captions(path, "references")
    assert file.splits == {"x.jpg": "test", "y.jpg": "train"}
    assert images_to_score({"x.jpg": ["a cat"]}, file, "error") == ["x.jpg"]


def test_json_lines_keep_being_read_whatever_their_ending(tmp_path):
    (tmp_path / "rows.txt").write_text(json.dumps({"image": "x.jpg", "text": "two dogs"}) + "\n")
    assert read_captions(tmp_path / "rows.txt", "references").captions == {"x.jpg": ["two dogs"]}
