"""The report's section on bags: its charts, and bags with the captions at the start and now."""

import re

import numpy as np
import pytest
import torch

from capkit.metrics.bags import Bags
from capkit.reports.bags import BagExample, bag_charts, bag_examples, bag_section
from capkit.reports.rl import write_rl_report
from capkit.run.folder import RunFolder

VALIDATIONS = [
    {
        "step": step, "val/truematch_3_r1": step / 100, "val/truematch_3_bags": 9.0, "val/truematch_12_r1": step / 200,
        "val/truematch_12_bags": 2.0, "val/second_3_r1": 0.4, "val/second_3_bags": 9.0, "val/rd100_r1": 0.1,
        "val/retrieval_t2i_r1": 0.3, "val/truematch_3_clip_score": 30.0 + step,
    }
    for step in (0, 50, 100)
]  # fmt: skip
STEPS = [{"step": step, "train/bag_size": size, "train/loss": 1.0} for step, size in ((10, 2.0), (20, 2.5), (30, 3.0))]


def titles(svgs):
    return re.findall(r"font-weight='600' font-size='13'>([^<]*)<", svgs)


def lines(svgs):
    found = re.findall(r"points='([^']*)'", svgs)
    return [[tuple(map(float, point.split(","))) for point in line.split()] for line in found]


def test_each_judge_has_a_chart_with_a_line_for_each_bag_size():
    drawn = bag_charts(VALIDATIONS)
    assert titles(drawn) == ["R@1 in bags: second", "R@1 in bags: truematch", "CLIP score in bags: truematch"]
    assert re.findall(r">(of \d+)<", drawn) == ["of 3", "of 12", "of 3", "of 3"]
    _, three, twelve, clip_score = lines(drawn)
    assert clip_score[0][1] > clip_score[1][1] > clip_score[2][1], "30, 80 and 130"
    heights = [[height for _, height in line] for line in (three, twelve)]
    assert heights[0][0] == heights[1][0] and heights[0][2] < heights[1][2], "up is a smaller y: R@1 of 1 and of .5"


def test_the_bag_size_is_drawn_as_stairs():
    (stairs,) = lines(bag_charts(STEPS))
    xs, ys = zip(*stairs, strict=True)
    assert len(stairs) == 6 and xs[0] == 48.0, "from step 0, where the chart begins"
    assert (xs[1], xs[3]) == (xs[2], xs[4]) and (ys[0], ys[2], ys[4]) == (ys[1], ys[3], ys[5])
    assert ys[0] > ys[2] > ys[4]


class NumberJudge:
    """Text "k" is picture k; any other text is as near to all."""

    name, prompt, max_length = "numbers", "", 16

    def preprocess(self, images):
        return torch.tensor([int(image[0, 0, 0]) for image in images])

    def encode_image(self, pixels):
        return torch.eye(16)[pixels]

    def encode_text(self, texts):
        return torch.stack([torch.eye(16)[int(t)] if t.isdigit() else torch.ones(16) / 4 for t in texts])

    def is_cut(self, texts):
        return [False] * len(texts)

    def to(self, device):
        return self


def picture(key):
    return np.full((4, 4, 3), int(key), np.uint8)


def rows(*captions):
    """Pictures 0, 1, 2 ... Of five in a row, two make a bag and three another."""
    names = [f"{i // 5}-{'pair' if i % 5 < 2 else 'three'}" for i in range(len(captions))]
    return [
        {"key": str(i), "caption": caption, "references": ["x"], "metadata": {"bag": name}}
        for i, (caption, name) in enumerate(zip(captions, names, strict=True))
    ]


@pytest.fixture
def examples():
    now = rows("0", "1", "<b>", "3", "5", *"56789")
    before = {row["key"]: "a thing" for row in now} | {"1": "0"}
    return bag_examples({"cider": object(), "bags": Bags(NumberJudge())}, now, before, picture)


def test_examples_take_bag_sizes_in_turn_and_say_what_was_found(examples):
    assert [[row["key"] for row in example.rows] for example in examples] == [
        ["0", "1"], ["2", "3", "4"], ["5", "6"], ["7", "8", "9"],
    ]  # fmt: skip
    pair, three = examples[:2]
    assert [row["found"] for row in pair.rows] == [1, 1]
    assert [row["found_before"] for row in pair.rows] == pytest.approx([1 / 2, 0])
    assert [row["found"] for row in three.rows] == pytest.approx([1 / 3, 1, 1 / 3])
    assert [int(image[0, 0, 0]) for image in three.images] == [2, 3, 4]


def test_bags_of_pictures_that_have_no_caption_at_the_start_are_no_examples():
    bags = {"bags": Bags(NumberJudge())}
    assert bag_examples(bags, rows(*"01234"), {"0": "a"}, picture) == []
    assert bag_examples({"cider": object()}, rows(*"01234"), {}, picture) == []


def test_pictures_stand_in_a_row_with_their_captions_below(examples):
    section = bag_section(VALIDATIONS + STEPS, examples[:2])
    assert section.count("<svg") == 4 and section.count("<table class='bag'>") == 2
    assert re.findall(r"<tr><th>([^<]*)</th>", section) == ["bag of 2", "before", "now", "bag of 3", "before", "now"]
    assert section.count("data:image/png;base64,") == 5 and "&lt;b&gt;" in section
    found, missed = "<span class='found'>✓</span>", "<span class='missed'>✗</span>"
    assert f"<th>before</th><td>{missed} a thing</td><td>{missed} 0</td>" in section
    assert f"<th>now</th><td>{found} 0</td><td>{found} 1</td>" in section


def test_an_empty_caption_is_shown_as_empty():
    row = {"key": "1", "caption": "", "before": "", "found": 0.0, "found_before": 0.0}
    assert bag_section([], [BagExample([row], [picture("1")])]).count("<i>(empty)</i>") == 2


def test_a_run_without_bags_has_no_such_section(tmp_path):
    rows = [{"step": 1, "train/loss": 1.0, "val/rd100_r1": 0.2}]
    assert bag_section(rows, []) == ""
    folder = RunFolder(tmp_path)
    folder.write_metrics({"test/cider": 1.0})
    write_rl_report(folder, "a run", [])
    assert "look-alikes" not in folder.report.read_text()


def test_the_page_of_a_run_on_bags_has_the_section_before_the_numbers(tmp_path, examples):
    folder = RunFolder(tmp_path)
    folder.write_metrics({"test/cider": 1.0})
    for row in VALIDATIONS + STEPS:
        folder.append(row["step"], {name: value for name, value in row.items() if name != "step"})
    write_rl_report(folder, "a run", [], examples)
    page = folder.report.read_text()
    sections = re.findall(r"<h2>([^<]+)</h2>", page)
    assert sections[:2] == ["Bags of look-alikes", "Numbers"]
    assert ".bag td" in page and not re.search(r"(src|href)=['\"](?!data:)", page)
    assert "bag_size" not in titles(page), "it is drawn once"
