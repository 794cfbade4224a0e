"""DreamLIP's tables: a row a picture, a column for each kind of caption."""

import csv

import numpy as np
import pytest
from PIL import Image

from capkit.data.sources.long_captions import LongCaptions
from capkit.errors import UsageError

HEADER = ["image", "raw", "longIB", "url", "shortIB"]
ROWS = [
    ["a.png", "dog pic", 'A dog sits.\nIt says "woof, woof".', "http://a", "A dog."],
    ["b.png", "chat noir é", "A cat, black.", "http://b", ""],
]


def source(tmp_path, rows=ROWS, header=HEADER, name="table.csv", **settings):
    for row in rows:
        Image.new("RGB", (4, 3), (9, 0, 0)).save(tmp_path / row[0])
    with (tmp_path / name).open("w", newline="") as file:
        csv.writer(file, delimiter="," if name.endswith("csv") else "\t").writerows([header, *rows])
    return LongCaptions(str(tmp_path), str(tmp_path / name), **{"val": 0, "test": 0, **settings})


@pytest.mark.parametrize("name", ["table.csv", "table.tsv"])
def test_columns_are_sources_in_the_order_of_the_table_and_empty_cells_are_counted(tmp_path, name):
    found = source(tmp_path, name=name)
    with pytest.warns(UserWarning, match="1 cells of captions are empty and left out"):
        assert len(found) == 2
    first, second = found.record(0), found.record(1)
    assert [(c.source, c.text) for c in first.captions] == [
        ("raw", "dog pic"), ("longIB", 'A dog sits.\nIt says "woof, woof".'), ("shortIB", "A dog.")
    ]  # fmt: skip
    assert [(c.source, c.text) for c in second.captions] == [("raw", "chat noir é"), ("longIB", "A cat, black.")]
    assert (first.key, first.image) == ("a.png", "a.png") and np.asarray(found.image(1)).shape == (3, 4, 3)


def test_splits_are_drawn_by_picture_and_have_their_own_texts(tmp_path):
    rows = [[f"{n}.png", f"picture {n}", f"Long {n}.", "", f"Short {n}."] for n in range(20)]
    splits = [source(tmp_path, rows, split=s, val=0.2, test=0.1) for s in ("train", "val", "test")]
    keys = [[s.record(i).key for i in range(len(s))] for s in splits]
    assert [len(part) for part in keys] == [14, 4, 2] and len({key for part in keys for key in part}) == 20
    record = splits[1].record(0)
    assert record.captions[0].text == f"picture {record.key.split('.')[0]}"


def test_a_byte_order_mark_and_line_ends_of_windows_are_read(tmp_path):
    source(tmp_path)
    text = (tmp_path / "table.csv").read_text()
    (tmp_path / "table.csv").write_bytes(b"\xef\xbb\xbf" + text.replace("\r\n", "\n").replace("\n", "\r\n").encode())
    found = LongCaptions(str(tmp_path), str(tmp_path / "table.csv"), val=0, test=0)
    with pytest.warns(UserWarning, match="1 cells"):
        assert found.record(1).captions[1].text == "A cat, black."


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (
            ROWS,
            ["file", *HEADER[1:]],
            r"line 1: expected a header with image and some of raw, shortIB.*; got file, raw",
        ),
        (ROWS, ["image", "a", "b", "c", "d"], "line 1: expected a header with image and some of"),
        (ROWS, ["image", "raw", "raw", "c", "d"], "line 1: a column stands there twice"),
        ([["a.png", "", " ", "u", ""]], HEADER, "line 2: no caption for 'a.png'; take the row out"),
        ([ROWS[0], ROWS[0]], HEADER, "line 4: 'a.png' stands in two rows"),
        ([ROWS[1], ["a.png", "x"]], HEADER, "line 3: 2 cells for 5 columns"),
        ([], HEADER, "expected a header and rows of pictures; got none"),
    ],
)
def test_what_a_table_must_be(tmp_path, rows, header, message):
    with pytest.raises(UsageError, match=message):
        len(source(tmp_path, rows, header))


def test_an_open_quote_and_other_files_are_refused(tmp_path):
    (tmp_path / "open.csv").write_text('image,raw\na.png,"a dog\n')
    with pytest.raises(UsageError, match="line 2: a quote opens a cell that does not end"):
        len(LongCaptions(str(tmp_path), str(tmp_path / "open.csv")))
    (tmp_path / "table.xlsx").write_text("x")
    with pytest.raises(UsageError, match=r"expected a \.csv or \.tsv file, got 'table\.xlsx'"):
        LongCaptions(str(tmp_path), str(tmp_path / "table.xlsx"))
