"""The matrix of runs and data sets: what its page, its table and its file say."""

import json
import math

from rich.console import Console

from capkit.reports.matrix import Cell, matrix_table, metrics_of, write_matrix

CELLS = [
    Cell("pt", "native", "pt.ckpt", {"cider": 1.2, "fact_f1": 0.5, "shuffled/cider": 0.1}, {"cider": (1.1, 1.3)}),
    Cell("pt", "photos [2]", "pt.ckpt", {"cider": 0.4, "rouge_l": math.nan}, {"cider": (0.3, 0.5)}),
    Cell("<en>", "native", "en.ckpt", {"cider": 0.0, "fact_f1": 0.25}, {"cider": (math.nan, math.nan)}),
    Cell("<en>", "photos [2]", "en.ckpt", {"cider": 0.8, "rouge_l": 0.6}, {}),
]


def table_lines():
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(matrix_table(CELLS))
    return [line.split() for line in console.export_text().splitlines() if line.strip()]


def test_every_number_that_a_cell_has_is_a_matrix_without_controls():
    assert metrics_of(CELLS) == ["cider", "fact_f1", "rouge_l"]


def test_the_table_tells_numbers_intervals_and_what_is_missing():
    head, _, *lines = table_lines()
    assert head == ["metric", "run", "native", "photos", "[2]"]
    assert lines == [
        ["cider", "pt", "1.200", "[1.100,", "1.300]", "0.400", "[0.300,", "0.500]"],
        ["<en>", "0.000", "0.800"],
        ["fact_f1", "pt", "0.500", "–"],
        ["<en>", "0.250", "–"],
        ["rouge_l", "pt", "–", "nan"],
        ["<en>", "–", "0.600"],
    ]


def test_the_file_says_null_of_what_is_undefined_and_nothing_of_what_is_missing(tmp_path):
    write_matrix(tmp_path, "mine", CELLS, 0.9)
    content = json.loads((tmp_path / "cross.json").read_text())
    assert content["confidence"] == 0.9
    native, photos, english, _ = content["cells"]
    assert (native["run"], native["data"], native["ckpt"]) == ("pt", "native", "pt.ckpt")
    assert native["numbers"]["shuffled/cider"] == 0.1 and native["intervals"] == {"cider": [1.1, 1.3]}
    assert photos["numbers"] == {"cider": 0.4, "rouge_l": None} and english["intervals"] == {}


def test_the_page_has_a_matrix_for_each_metric_and_shades_by_value(tmp_path):
    write_matrix(tmp_path, "a & b", CELLS, 0.9)
    page = (tmp_path / "cross.html").read_text()
    assert "a &amp; b" in page and "90 % bootstrap intervals" in page
    assert page.count("<table") == 3 and "<en>" not in page and page.count("&lt;en&gt;") == 4  # and its checkpoint
    _, cider, facts, _ = page.split("<h2>")[:4]
    shades = [part.split(")")[0] for part in cider.split("235, ")[1:]]
    assert shades == ["0.40", "0.13", "0.00", "0.27"]  # of 0.4 x (value - 0) / 1.2
    assert facts.count(">–") == 2
