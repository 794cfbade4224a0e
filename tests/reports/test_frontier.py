"""The frontier of guidance: which numbers are drawn, and what the files say."""

import json
import math
import re

from capkit.reports.charts import path_chart
from capkit.reports.frontier import Place, frontier_charts, recalls, write_frontier

PLACES = [
    Place("1", 1.0, {"cider": 1.2, "rd20_r1": 0.4, "text_r1": 0.3, "shuffled/rd20_r1": 0.05, "length": 5.0}),
    Place("2", 2.0, {"cider": 0.9, "rd20_r1": 0.6, "text_r1": 0.5, "shuffled/rd20_r1": 0.05, "length": math.nan}),
    Place("<rl>", None, {"cider": 1.1, "rd20_r1": 0.7, "length": 6.0}),
]


def test_recalls_are_those_of_all_places_without_controls():
    assert recalls(PLACES) == ["rd20_r1"]
    assert recalls(PLACES[:2]) == ["rd20_r1", "text_r1"]


def test_guided_places_are_joined_and_other_runs_stand_alone():
    (chart,) = frontier_charts(PLACES)
    points = chart.split("polyline points='")[1].split("'")[0].split()
    assert len(points) == 2 and chart.count("<circle") == 3
    assert "&lt;rl&gt;" in chart and "<rl>" not in chart


def test_no_chart_without_cider_or_recall():
    assert frontier_charts([Place("1", 1.0, {"rd20_r1": 0.5})]) == []
    assert frontier_charts([Place("1", 1.0, {"cider": 0.5})]) == []


def test_the_files_hold_all_numbers_and_null_where_there_is_none(tmp_path):
    write_frontier(tmp_path, "mine", PLACES)
    rows = json.loads((tmp_path / "frontier.json").read_text())
    assert [row["scale"] for row in rows] == [1.0, 2.0, None]
    assert rows[1]["numbers"]["length"] is None and rows[0]["numbers"]["shuffled/rd20_r1"] == 0.05
    page = (tmp_path / "frontier.html").read_text()
    assert "<td>&lt;rl&gt;</td><td>1.100</td><td>0.700</td><td>6.000</td>" in page


def test_the_page_explains_the_columns_that_it_has(tmp_path):
    write_frontier(tmp_path, "mine", PLACES)
    assert "R@1" in (page := (tmp_path / "frontier.html").read_text()) and "Length in words" in page
    write_frontier(tmp_path, "mine", [Place("1", 1.0, {"cider": 1.2, "repetition": 0.1})])
    assert "R@1" not in (page := (tmp_path / "frontier.html").read_text())
    assert "Repetition: share" in page and "Length" not in page


def test_the_name_of_a_point_at_the_right_ends_before_it():
    svg = path_chart("t", [(0.0, 1.0), (1.0, 0.0)], ["left", "a long name at the right"], "x")
    ends = {text: attributes for attributes, text in re.findall(r"<text ([^>]*)>(left|a long name at the right)<", svg)}
    assert "text-anchor" not in ends["left"] and "text-anchor='end'" in ends["a long name at the right"]
