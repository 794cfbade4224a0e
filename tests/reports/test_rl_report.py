import math
import re
import xml.dom.minidom

import numpy as np
import pytest

from capkit.reports.charts import line_chart, path_chart
from capkit.reports.rl import frontier, limits_of, monitor_charts, reward_charts, write_rl_report
from capkit.reports.samples import card
from capkit.run.folder import RunFolder

VALIDATIONS = [
    {"step": 0, "val/cider": 1.2, "val/retrieval_t2i_r1": 0.2, "val/reward/clip_score": 0.6},
    {"step": 50, "val/cider": 1.0, "val/retrieval_t2i_r1": 0.4, "val/reward/clip_score": 0.7},
    {"step": 100, "val/cider": 0.2, "val/retrieval_t2i_r1": 0.5, "val/reward/clip_score": 0.9},
]
STEPS = [
    {
        "step": step, "reward/clip_score": 0.6 + step / 1000, "reward/clip_score_weighted": 1.2 + step / 500,
        "reward/total": 1.2 + step / 500, "reward/std": 0.1, "reward/greedy": 0.6, "rl/repetition": step / 200,
        "rl/entropy": 2.0, "train/loss": 0.5,
    }
    for step in (10, 60, 100)
]  # fmt: skip
PICTURE = np.zeros((8, 8, 3), np.uint8)
ROW = {
    "key": "k<1>", "caption": "a cat & a <hat>", "before": "a cat", "references": ["one cat", "a <cat>"],
    "rewards": {"clip_score": 0.8125, "grammar": math.nan},
}  # fmt: skip


def points(svg):
    return [tuple(map(float, point.split(","))) for point in re.search(r"points='([^']+)'", svg)[1].split()]


def circles(svg, radius):
    found = re.findall(rf"<circle cx='([\d.]+)' cy='([\d.]+)' r='{radius}'", svg)
    return [(float(x), float(y)) for x, y in found]


def titles(svgs):
    return re.findall(r"font-weight='600' font-size='13'>([^<]*)<", svgs)


def test_the_frontier_joins_validations_in_order_of_steps_and_marks_the_start():
    chart = frontier(VALIDATIONS + STEPS, selected_step=50)
    (x0, y0), (x50, y50), (x100, y100) = points(chart)
    assert x0 > x50 > x100 and y0 > y50 > y100  # CIDEr falls to the left; R@1 rises, which in SVG is a smaller y
    assert circles(chart, "7") == [(x0, y0), (x50, y50)]
    assert "start (MLE)" in chart and "selected" in chart and "retrieval_t2i_r1" in titles(chart)[0]


def test_without_retrieval_the_frontier_shows_clip_score():
    rows = [{k: v for k, v in row.items() if "t2i" not in k} for row in VALIDATIONS]
    assert titles(frontier(rows))[0].startswith("reward/clip_score (up)")


def test_a_frontier_with_nothing_in_it_is_not_drawn():
    assert frontier(STEPS) == frontier([{"step": 1, "val/cider": 1.0}]) == frontier(VALIDATIONS[:1]) == ""


def test_a_run_that_starts_later_marks_no_start():
    assert "MLE" not in frontier(VALIDATIONS[1:])


def test_each_reward_term_has_a_chart_of_raw_scores_beside_its_greedy_ones():
    drawn = reward_charts(VALIDATIONS + STEPS)
    assert titles(drawn) == ["reward/clip_score", "reward/total"]
    assert drawn.count("<polyline") == 3 and ">greedy<" in drawn


def test_monitors_show_their_limits():
    drawn = monitor_charts(STEPS, {"rl/repetition": "<= 0.3"})
    assert titles(drawn) == ["rl/repetition", "reward/std", "rl/entropy"], "those with limits first, in sight"
    assert drawn.index("<details>") > drawn.index("rl/repetition")
    assert drawn.count("stroke-dasharray") == 1 and "&lt;= 0.3" in drawn


def test_a_level_lies_where_a_value_of_its_size_lies():
    svg = line_chart("t", {"x": [(0, 0.0), (1, 0.3), (2, 1.0)]}, levels={"limit": 0.3})
    (level,) = re.findall(r"M48 ([\d.]+)H\d+' stroke='var\(--bad\)'", svg)
    assert float(level) == points(svg)[1][1]


def test_a_level_outside_the_values_is_still_in_the_picture():
    svg = line_chart("t", {"x": [(0, 0.0), (1, 0.1)]}, levels={"limit": 5.0})
    (level,) = re.findall(r"M48 ([\d.]+)H\d+' stroke='var\(--bad\)'", svg)
    assert 30 <= float(level) <= 186


def test_a_path_leaves_out_what_is_not_finite_and_keeps_its_labels_straight():
    svg = path_chart("t", [(0, 0), (1, math.nan), (2, 1)], ["first", "second", "third"], "x", {"b": 1, "c": 2})
    xml.dom.minidom.parseString(svg)
    assert len(points(svg)) == 2 and "second" not in svg and "third" in svg
    assert circles(svg, "7") == [points(svg)[1]] and "◯ b" not in svg
    assert path_chart("t", [(0, math.inf)], ["a"], "x") == ""


def test_a_caption_stands_above_the_one_before_with_each_reward():
    shown = card({**ROW, "before_rewards": {"clip_score": 0.5}}, PICTURE)
    assert shown.index("a cat &amp; a &lt;hat&gt;") < shown.index('<div class="before" dir="auto">a cat</div>')
    assert "<td>clip_score</td><td>0.500</td><td>0.812</td>" in shown
    assert "<td>grammar</td><td></td><td>no score</td>" in shown and '<li dir="auto">a &lt;cat&gt;</li>' in shown


def test_the_page_holds_every_section_and_nothing_from_outside(tmp_path):
    folder = RunFolder(tmp_path)
    folder.open({"callback": {"degeneration": {"limits": {"rl/repetition": "<= 0.3", "rl/length": None}}}})
    for row in VALIDATIONS + STEPS:
        folder.append(row["step"], {name: value for name, value in row.items() if name != "step"})
    folder.write_metrics(
        {"test/cider": 1.0, "test/initial/cider": 1.2, "train/selected_step": 50, "train/seconds": 2.0}
    )
    assert limits_of(folder) == {"rl/repetition": "<= 0.3"}
    write_rl_report(folder, "a run", [(ROW, PICTURE)])
    page = folder.report.read_text()
    assert re.findall(r"<h2>([^<]+)</h2>", page) == [
        "Captions", "Numbers", "Frontier", "Rewards", "Monitors", "How it was run",
    ]  # fmt: skip
    assert "checkpoint, of step 50" in page and "test/initial" in page
    assert page.count("data:image/png;base64,") == 1 and not re.search(r"(src|href)=['\"](?!data:)", page)
    assert "<hat>" not in page


def test_a_run_that_ended_early_says_so_and_whose_weights_it_shows(tmp_path):
    folder = RunFolder(tmp_path)
    folder.open({"max_steps": 200})
    folder.append(70, {"train/loss": 1.0})
    folder.write_metrics({"test/cider": 1.0, "train/restored_step": 50})
    write_rl_report(folder, "a run", [(ROW, PICTURE)])
    page = folder.report.read_text()
    assert "ended at step 70 of 200" in page and "the weights of step 50 came back" in page
    folder.append(200, {"train/loss": 1.0})
    write_rl_report(folder, "a run", [(ROW, PICTURE)])
    assert "ended at step" not in folder.report.read_text()


def test_a_run_without_any_validation_or_limit_still_has_a_page(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_metrics({"test/cider": 1.0})
    write_rl_report(folder, "a run", [(ROW, PICTURE)])
    page = folder.report.read_text()
    assert "Frontier" not in page and "Monitors" not in page and "<h2>Captions" in page


@pytest.mark.parametrize("limit", ["<= 0.3", "<=0.3", ">= 3e-1"])
def test_a_limit_is_read_as_the_callback_reads_it(limit):
    assert "stroke-dasharray" in monitor_charts(STEPS, {"rl/repetition": limit})
