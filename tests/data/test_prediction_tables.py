import json

import pytest

from capkit.data.prediction_files import read_captions
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
        (["image,words", "x,a dog"], "expected a table with one of the columns generated_caption"),
        ([""], r"got the columns \(none\)"),
        (["image,caption", "x,a,dog"], "line 2: expected 2 cells, as the header has, got 3"),
        (["image,caption"], "no captions in it"),
    ],
)
def test_other_tables_are_refused(tmp_path, lines, reason):
    with pytest.raises(UsageError, match=reason):
        read_captions(table(tmp_path, *lines), "predictions")
