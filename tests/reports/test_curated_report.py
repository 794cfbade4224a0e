"""report.html of a curate run: steps, questions and money, failures by reason, records before and after."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from capkit.reports.curated import CuratedSplit, write_curated

COUNTS = {
    "records": 1000,
    "kept": 990,
    "failed": 15,
    "gather/records": 998,
    "gather/objects": 2500,
    "fuse/records": 991,
    "fuse/text_cached": 98,
    "fuse/text_asked": 900,
    "fuse/text_refused": 6,
    "fuse/text_failed": 7,
    "fuse/text_tokens_in": 90_000,
    "fuse/text_tokens_out": 45_000,
    "fuse/text_money": 1.25,
    "fuse/judge_cached": 0,
    "fuse/judge_asked": 500,
    "fuse/judge_refused": 0,
    "fuse/judge_failed": 0,
    "fuse/judge_tokens_in": 10_000,
    "fuse/judge_tokens_out": 500,
    "fuse/dropped": 12,
}
FAILURES = [
    *(
        {"key": f"r{i}", "step": "fuse", "reason": f"{200 + i} words, more than 'x{i}'", "said": "I'm <b>"}
        for i in range(7)
    ),
    *({"key": f"g{i}", "step": "gather", "reason": "picture: empty file", "said": None} for i in range(2)),
    *({"key": f"c{i}", "step": "curate", "reason": "picture: gone", "said": None} for i in range(6)),
]
CAPTION = {"source": "human", "score": None, "added": []}
BOX = {"kind": "object", "text": "red <cube>", "box": [0.25, 0.0, 0.75, 0.5], "score": 0.9, "expert": "detector"}
SHINY = {**BOX, "kind": "attribute", "text": "shiny"}
TAG = {"kind": "tag", "text": "toy", "box": None, "score": 0.5, "expert": "tagger"}
ADDED = {"text": "cube", "expert": "detector", "score": 0.9}
SAMPLES = [
    {
        "key": "a",
        "image": "a.png",
        "findings": [BOX, TAG, SHINY],
        "before": [{**CAPTION, "text": "a toy"}, {**CAPTION, "text": "kept & true"}],
        "after": [
            {**CAPTION, "text": "a red cube", "source": "fused", "added": [ADDED]},
            {**CAPTION, "text": "kept & true"},
            {**CAPTION, "text": "a red cube", "source": "fused", "added": [ADDED]},
        ],
    },
    {"key": "b", "image": "torn.png", "findings": [], "before": [], "after": [{**CAPTION, "text": "x", "score": 0.25}]},
]
MODELS = {"fuse/text": "small", "fuse/judge": "large"}


class Cells(HTMLParser):
    """Rows of all tables, each as its cells' texts; and whether tags are closed in the order of their opening."""

    def __init__(self, page):
        super().__init__()
        self.rows, self.open, self.is_sound = [], [], True
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag not in ("link", "meta", "img", "br", "col"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self.is_sound &= bool(self.open) and self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


@pytest.fixture
def written(tmp_path):
    def write(**changed):
        report = {"counts": COUNTS, "models": MODELS, "samples": SAMPLES} | changed
        pixels = {"a.png": np.full((32, 64, 3), 200, np.uint8)}
        write_curated(tmp_path / "report.html", "fused & <more>", [CuratedSplit("train", report, FAILURES)], pixels.get)
        return (tmp_path / "report.html").read_text()

    return write


def test_steps_have_what_came_in_what_left_and_what_failed(written):
    page = written()
    cells = Cells(page)
    assert cells.is_sound and "fused &amp; &lt;more&gt;" in page and "990 of 1,000 records were kept" in page
    assert ["gather", "1,000", "998", "2", "objects 2,500"] in cells.rows
    assert ["fuse", "998", "991", "7", "dropped 12"] in cells.rows, "counts of questions stand in their own table"
    assert ["pictures for the manifest", "991", "990", "6", ""] in cells.rows


def test_tokens_and_money_by_step_and_model_and_together(written):
    rows = Cells(written()).rows
    assert ["fuse/text", "small", "98", "900", "6", "7", "90,000", "45,000", "1.2500"] in rows
    assert ["fuse/judge", "large", "0", "500", "0", "0", "10,000", "500", ""] in rows, "no price, no money"
    assert ["all", "", "98", "1,400", "6", "7", "100,000", "45,500", "1.2500"] in rows
    of_one = Cells(written(models=dict.fromkeys(MODELS, "one") | {"fuse/other": "two"})).rows
    assert ["together", "one", "98", "1,400", "6", "7", "100,000", "45,500", "1.2500"] in of_one


def test_failures_are_counted_by_reason_without_what_differs_between_records(written):
    rows = Cells(written()).rows
    assert rows[rows.index(["failures", "step", "reason", "example, and what was said"]) + 1 :][:3] == [
        ["7", "fuse", "200 words, more than 'x0'", "r0I'm <b>"],
        ["6", "curate", "picture: gone", "c0"],
        ["2", "gather", "picture: empty file", "g0"],
    ]


def test_records_are_shown_with_findings_and_captions_before_and_after(written):
    page = written()
    first, second = Cells(page).rows[-2:]
    found = "red <cube> shiny object, 0.90, detectortoy tag, 0.50, tagger"
    after = "a red cube fused+ cube 0.90 (detector) · 2 timeskept & true human"
    assert first == ["a", found, "a toy humankept & true human", after]
    assert second == ["cannot be readb", "none", "none", "x 0.25, human"]
    assert page.count("width=128 height=64") == page.count("src='data:image/png") == 1
    assert "left: 25.0%; top: 0.0%; width: 50.0%; height: 50.0%" in page
    assert len(re.findall("class='new'>a red cube<", page)) == 1 and "class='same'>kept &amp; true<" in page


def test_a_run_without_steps_models_and_failures_has_a_page(tmp_path):
    report = {"counts": {"records": 2, "kept": 2, "failed": 0}, "models": {}, "samples": []}
    splits = [CuratedSplit(name, report, []) for name in ("test", "val")]
    write_curated(tmp_path / "r.html", "plain", splits, {}.get)
    page = (tmp_path / "r.html").read_text()
    assert Cells(page).is_sound and page.count("<h2>Failures</h2>") == 2 and "<h2>val</h2>" in page
