import html
import json
import re
import xml.dom.minidom
from itertools import pairwise

import numpy as np
import pytest

from capkit.errors import UsageError
from capkit.reports.charts import line_chart, ticks
from capkit.reports.numbers import EXPLAINED, KEY, explained, metric_table, shown_number, tiles
from capkit.reports.page import write_report
from capkit.reports.retrieval import Query, retrieval_grid
from capkit.reports.samples import samples_section
from capkit.run.folder import RunFolder
from capkit.utils.console import note_command


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


def cells(table, name):
    (line,) = re.findall(rf"<tr[^>]*><td>{name}</td>(.*?)<td class=\"explained\">", table)
    return [re.sub("<[^>]+>", "", cell) for cell in re.findall("<td>(.*?)</td>", line)]


def test_the_table_has_a_column_for_each_captioner():
    table = metric_table({"train/seconds": 9.0, "test/shuffled/cider": 0.25, "test/cider": 1.5, "test/bleu_3": 0.5})
    assert re.findall("<th>([^<]+)", table)[:3] == ["metric", "test", "test/shuffled"]
    assert cells(table, "cider") == ["1.500", "0.250"] and cells(table, "bleu_3") == ["0.500", ""]
    assert '<tr class="key"><td>cider' in table and "1 more number<" in table and "seconds" not in table


def test_intervals_stand_beside_the_number_that_they_are_of_and_no_control():
    table = metric_table({"test/cider": 1.5, "test/shuffled/cider": 0.25}, {"cider": (1.25, 1.75)})
    assert cells(table, "cider") == ["1.500 1.250 to 1.750", "0.250"]


def test_counts_are_counts_and_what_does_not_exist_is_a_dash():
    assert shown_number("vocabulary_size", 1234.0) == "1,234" and shown_number("retrieval_pool", 100.0) == "100"
    assert shown_number("cider", float("nan")) == "–" and shown_number("cider", None) == ""
    assert shown_number("bleu_4", 7e-11) == "0.000" and shown_number("length", 12.25) == "12.250"


def test_numbers_that_matter_are_explained():
    assert [name for name in KEY if not explained(name)] == []
    assert explained("bleu_2").startswith("BLEU-2") and "among the 5 nearest" in explained("retrieval_t2i_r5")
    assert explained("no_such_number") == "" and all(text for _, text in EXPLAINED)


def test_tiles_show_a_number_beside_its_controls_and_leave_out_what_a_run_lacks():
    shown = tiles({"test/cider": 1.5, "test/initial/cider": 1.0, "test/length": 9.0}, {"cider": (1.25, 1.75)})
    assert shown.count('class="tile"') == 1 and "before training: 1.000" in shown and "1.250 to 1.750" in shown
    assert tiles({"test/length": 9.0}) == tiles({"train/seconds": 1.0}) == ""


def test_captions_are_escaped(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_metrics({"test/cider": 1.0})
    row = {"key": 'k"><b>', "caption": "<script>", "references": ["a & b"], "metadata": {}}
    write_report(folder, "<run>", [(row, np.zeros((300, 10, 3), np.uint8))])
    page = folder.report.read_text()
    assert "<script>alert" not in page and "&lt;script&gt;" in page and "a &amp; b" in page and "<b>&" not in page
    assert "&lt;run&gt;" in page and page.count("<script") == 1, "the page's own"


def row(key, **more):
    return {"key": key, "caption": f"caption {key}", "references": [f"r{n}" for n in range(4)], "metadata": {}, **more}


def test_the_best_and_the_worst_have_parts_of_their_own_and_references_open():
    picture = np.zeros((8, 8, 3), np.uint8)
    extremes = [
        row("b", shown="best", score=7.0, scored_by="CIDEr"),
        row("w", shown="worst", score=0.5, scored_by="CIDEr"),
    ]
    section = samples_section([(one, picture) for one in [*(row(str(n)) for n in range(8)), *extremes]])
    assert re.findall("<h3>([^<]+)", section) == ["As they come", "The best", "The worst"]
    best, worst = section.index("CIDEr 7.00"), section.index("CIDEr 0.50")
    assert section.index("The best") < best < section.index("The worst") < worst
    assert "<summary>2 more</summary>" in section and section.count("2 more references") == 10


def test_without_a_choice_the_pictures_have_one_part_and_a_prompt_stands_in_a_pictures_place():
    picture = np.zeros((8, 8, 3), np.uint8)
    section = samples_section([(row("1", metadata={"prompt": "why <b>?"}, before="caption 1"), picture)])
    assert "<h3>" not in section and "<img" not in section and "why &lt;b&gt;?" in section
    assert "before: the same" in section


def test_the_page_says_what_ran_and_what_it_changes_of_its_start(tmp_path):
    start, folder = RunFolder(tmp_path / "start"), RunFolder(tmp_path / "lower-lr")
    note_command("capkit fit init_from=start text_lm.api_key=abc123")
    model = {"_target_": "capkit.models.captioners.gru.GRUCaptioner", "image_encoder": {"name": "clip-b32"}}
    start.open({"seed": 0, "optimizer": {"lr": 0.1}, "model": model, "torch_threads": 1})
    folder.open({
        "init_from": str(start.checkpoints / "step-00000004.ckpt"), "seed": 3, "optimizer": {"lr": 0.01},
        "model": {"_target_": "capkit.train.build.load_captioner_to_tune"}, "torch_threads": 8,
    })  # fmt: skip
    folder.write_metrics({"test/cider": 1.0, "train/steps": 20, "train/seconds": 65.0})
    write_report(folder, "capkit", [])
    page = folder.report.read_text()
    assert "<title>lower-lr</title>" in page and "viewport" in page and "20 steps in 1:05" in page
    assert "GRUCaptioner (clip-b32)" in page, "the model of the run that it goes on from"
    assert "api_key=..." in page and "abc123" not in page and "torch " in page
    changed = re.findall('<td><code>([^<]+)</code></td><td class="text">([^<]*)</td><td class="text">([^<]*)', page)
    assert ("optimizer.lr", "0.1", "0.01") in changed and ("seed", "0", "3") in changed
    assert not {"torch_threads", "run_dir"} & {key for key, *_ in changed}


def test_damaged_intervals_are_an_error_that_says_what_to_do(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_metrics({"test/cider": 1.0})
    (tmp_path / "intervals.json").write_text('{"cider": 3}')
    with pytest.raises(UsageError, match="evaluate again"):
        write_report(folder, "run", [])


def test_names_of_lines_stand_at_their_ends_and_apart():
    svg = line_chart("t", {"train": [(0, 1.0), (9, 0.5)], "val": [(0, 1.0), (9, 0.5)], "c": [(0, 1.0), (9, 0.49)]})
    heights = sorted(float(y) for y in re.findall(r"<text x='\d+.0' y='([\d.]+)' style=", svg))
    assert len(heights) == 3 and min(b - a for a, b in pairwise(heights)) >= 12.9
    assert heights[-1] <= 220 - 34 + 4, "none below the axis"
    assert "style=" not in line_chart("t", {"train": [(0, 1.0), (9, 0.5)]}), "one line needs no name"


def test_a_series_has_one_colour_whatever_stands_beside_it():
    def colour(svg, number):
        return re.findall(r"<polyline [^>]*stroke='([^']+)'", svg)[number]

    points = [(0, 1.0), (1, 2.0)]
    both, alone = line_chart("t", {"train": points, "val": points}), line_chart("t", {"val": points})
    assert colour(both, 1) == colour(alone, 0) != colour(both, 0)


def test_a_chart_tells_its_points_under_the_pointer():
    svg = line_chart("t", {"<a>": [(step, step / 1000) for step in range(1000)]})
    (series,) = json.loads(html.unescape(re.search(r"data-lines='([^']+)'", svg)[1]))
    assert series["name"] == "<a>" and series["points"][-1][1:] == [999, 0.999] and 200 < len(series["points"]) <= 300


def test_a_retrieval_grid_frames_the_right_picture_or_adds_it_with_its_place():
    queries = [Query("a <dog>", ["1", "2"], "2", 2), Query("a cat", ["1", "2"], "3", 7)]
    grid = retrieval_grid(queries, 500, lambda key: np.full((4, 4, 3), int(key), np.uint8))
    assert re.findall(r'<figure class="right"><img [^>]*alt="(\d)"><figcaption>(\d)', grid) == [("2", "2"), ("3", "7")]
    assert "a &lt;dog&gt;" in grid and grid.count("<img") == 5 and "500 pictures" in grid
    assert retrieval_grid([], 0, lambda key: np.zeros((4, 4, 3), np.uint8)) == ""
