"""CapsFusion's released files: the example's JSON, and parquet tables of several row groups."""

import json

import pytest

from capkit.data.fingerprint import fingerprint
from capkit.data.images import BadImage
from capkit.data.sources.capsfusion import CapsFusionTexts
from capkit.errors import UsageError

ROWS = [{"laion_2b": f"alt {number}", "laion_coco": f"a picture of {number}"} for number in range(7)]


def read(path):
    source = CapsFusionTexts(str(path))
    return [source.record(index) for index in range(len(source))]


def json_file(tmp_path, rows, name="example.json"):
    (tmp_path / name).write_text(json.dumps(rows))
    return tmp_path / name


def texts(record):
    return {caption.source: caption.text for caption in record.captions}


def test_every_row_of_the_json_is_read_and_the_misspelt_third_key_too(tmp_path):
    """The released program reads len // 10 of its rows: of these seven, none."""
    keys = ["capsfusion", "capsfuion_official", "capsfusion_official"]
    rows = [{**row, **({keys[number]: f"fused {number}"} if number < 3 else {})} for number, row in enumerate(ROWS)]
    records = read(json_file(tmp_path, rows))
    assert len(records) == len(ROWS) == 7 != len(ROWS) // 10
    assert [record.key for record in records] == [f"example/{number:08d}" for number in range(7)]
    for number, record in enumerate(records):
        fused = {"capsfusion": f"fused {number}"} if number < 3 else {}
        assert texts(record) == {"alt_text": f"alt {number}", "synthetic": f"a picture of {number}", **fused}
    with pytest.raises(BadImage, match="no pictures"):
        CapsFusionTexts(str(tmp_path / "example.json")).image(0)


def test_captions_that_are_null_or_empty_are_left_out_and_the_rows_stay(tmp_path):
    records = read(json_file(tmp_path, [{**ROWS[0], "laion_2b": None, "capsfusion": " "}, ROWS[1]]))
    assert [texts(record) for record in records] == [
        {"synthetic": "a picture of 0"},
        {"alt_text": "alt 1", "synthetic": "a picture of 1"},
    ]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ({"laion_2b": "a", "laion_coco": "b"}, "expected a list"),
        ([ROWS[0], ["a"]], r"row 1: expected an object"),
        ([ROWS[0], {"laion_2b": "a"}], r"row 1: expected laion_2b, laion_coco.*laion_coco missing"),
        ([{**ROWS[0], "laion_coco": 3}], "row 0: expected text as 'laion_coco'"),
        ([{**ROWS[0], "capsfusion": "a", "capsfuion_official": "b"}], "expected one fused caption"),
        ([{**ROWS[0], "laion_2b": "half \ud83d"}], "row 0: expected text as 'laion_2b'"),
        ([{**ROWS[0], "image_url": 3}], "row 0: expected text as 'image_url'"),
    ],
)
def test_other_json_is_refused_with_its_row(tmp_path, rows, reason):
    with pytest.raises(UsageError, match=reason):
        read(json_file(tmp_path, rows))


@pytest.fixture
def tables(tmp_path):
    """Two tables in one folder, of row groups of three and of one, the second without the fused caption."""
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"image_url": f"http://x/{n}.jpg", **row, "capsfusion": f"fused {n}"} for n, row in enumerate(ROWS)]
    parquet.write_table(arrow.Table.from_pylist(rows[:5]), tmp_path / "capsfusion_1.parquet", row_group_size=3)
    rest = [{name: value for name, value in row.items() if name != "capsfusion"} for row in rows[5:]]
    parquet.write_table(arrow.Table.from_pylist(rest), tmp_path / "capsfusion_2.parquet", row_group_size=1)
    return tmp_path


def test_tables_are_read_in_order_over_files_and_row_groups_and_in_any_order(tables):
    records = read(tables)
    assert [record.key for record in records] == [
        *(f"capsfusion_1/{number:08d}" for number in range(5)), "capsfusion_2/00000000", "capsfusion_2/00000001"
    ]  # fmt: skip
    assert [texts(record)["alt_text"] for record in records] == [row["laion_2b"] for row in ROWS]
    assert [texts(record).get("capsfusion") for record in records] == [*(f"fused {n}" for n in range(5)), None, None]
    assert [record.metadata["url"] for record in records] == [f"http://x/{number}.jpg" for number in range(7)]
    source = CapsFusionTexts(str(tables))
    assert [source.record(index) for index in (6, 0, 4, 3)] == [records[index] for index in (6, 0, 4, 3)]
    with pytest.raises(IndexError):
        source.record(7)
    assert read(tables / "capsfusion_1.parquet") == records[:5]


def test_the_fingerprint_is_of_the_files_and_reads_no_row(tables, tmp_path, monkeypatch):
    def read_one(*_):
        raise AssertionError("a row was read")

    monkeypatch.setattr(CapsFusionTexts, "record", read_one)
    before = fingerprint(CapsFusionTexts(str(tables)))
    assert (
        before
        == fingerprint(CapsFusionTexts(str(tables)))
        != fingerprint(CapsFusionTexts(str(tables / "capsfusion_1.parquet")))
    )


def test_tables_of_other_columns_and_other_files_are_refused(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.Table.from_pylist([{"url": "a", "caption": "b"}]), tmp_path / "t.parquet")
    with pytest.raises(UsageError, match=r"t\.parquet: expected laion_2b, laion_coco.*it has 'url', 'caption'"):
        read(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.csv").write_text("laion_2b,laion_coco\n")
    for path, reason in (
        ("empty", "no .parquet file"),
        ("a.csv", "expected a .json or .parquet file"),
        ("b", "no file"),
    ):
        with pytest.raises(UsageError, match=reason):
            CapsFusionTexts(str(tmp_path / path))
