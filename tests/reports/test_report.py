import re
import xml.dom.minidom

import numpy as np

from capkit.reports.charts import line_chart, ticks
from capkit.reports.page import metric_table, write_report
from capkit.run.folder import RunFolder


def test_ticks_are_round_and_span_the_range():
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(3, 47) == [10, 20, 30, 40]
    assert ticks(2.0, 2.0) == [2.0]


def test_a_chart_is_valid_svg_with_one_line_a_series():
    svg = line_chart("a < b", {"train": [(0, 1.0), (10, 0.5)], "val": [(10, float("nan")), (10, 0.7)]})
    parsed = xml.dom.minidom.parseString(svg)
    assert len(parsed.getElementsByTagName("polyline")) == 2
    assert "a &lt; b" in svg


def test_a_chart_maps_larger_values_higher():
    svg = line_chart("t", {"x": [(0, 0.0), (1, 1.0)]})
    (x0, y0), (x1, y1) = (tuple(map(float, p.split(","))) for p in re.search(r"points='([^']+)'", svg)[1].split())
    assert x1 > x0 and y1 < y0  # SVG's y points down


def test_no_finite_point_gives_no_chart():
    assert line_chart("t", {"x": [(0, float("inf"))]}) == ""


def test_the_table_has_a_column_for_each_captioner():
    table = metric_table({"train/seconds": 9.0, "test/cider": 1.5, "test/shuffled/cider": 0.25, "test/bleu_4": 0.5})
    assert "<th>test</th><th>test/shuffled</th>" in table
    assert "<td>cider</td><td>1.5000</td><td>0.2500</td>" in table
    assert "<td>bleu_4</td><td>0.5000</td><td></td>" in table


def test_captions_are_escaped(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_metrics({"test/cider": 1.0})
    row = {"key": "k", "caption": "<script>", "references": ["a & b"], "metadata": {}}
    write_report(folder, "run", [(row, np.zeros((300, 10, 3), np.uint8))])
    page = folder.report.read_text()
    assert "<script>" not in page and "&lt;script&gt;" in page and "a &amp; b" in page
