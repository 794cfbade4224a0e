"""The pages in headless Chromium, on a desk and on a phone, light and dark; skipped where there is no browser."""

import numpy as np
import pytest
from page_browser import look

from capkit.reports.compare import Compared, Difference, write_compared
from capkit.reports.inspected import Inspected, write_inspected
from capkit.reports.matrix import Cell, write_matrix
from capkit.reports.page import write_report
from capkit.reports.preferences import write_preferences_report
from capkit.reports.retrieval import Query, retrieval_grid
from capkit.reports.rl import write_rl_report
from capkit.run.folder import RunFolder

pytestmark = [pytest.mark.nightly, pytest.mark.unchecked]
LONG = "a word-that-has-no-place-to-break-" * 6
PATH = "/no_place_to_break" * 9


def picture(key="0"):
    return np.random.default_rng(len(key)).integers(0, 255, (300, 500, 3), dtype=np.uint8)


def run(path, **config):
    folder = RunFolder(path)
    config |= {"data": {"train": {"_target_": "a.Folder", "images": PATH}}, "init_from": PATH}
    folder.open({"seed": 0, "callback": {"degeneration": {"limits": {"rl/repetition": "<= 0.3"}}}, **config})
    for step in range(0, 200, 10):
        row = {"train/loss": 1 / (step + 1), "rl/repetition": 0.1, "reward/total": 0.5, "reward/cider": 1.0}
        folder.append(step, {**row, "reward/cider_weighted": 1.0})
    for step in (0, 100, 190):
        folder.append(step, {"val/loss": 0.5, "val/cider": 1 + step, "val/retrieval_t2i_r1": step / 200})
    columns = ("test", "test/initial", "test/shuffled", "test/untrained")
    folder.write_metrics({f"{c}/{n}": 0.25 for c in columns for n in ("cider", "bleu_4", "repetition", "length", LONG)})
    return folder


def samples():
    row = {"caption": LONG, "references": [LONG, "b", "c", "d"], "metadata": {}}
    return [({**row, "key": f"{n} {LONG}", "before": "a dog", "rewards": {"cider": 0.5}}, picture()) for n in range(9)]


def fit_page(path):
    folder = run(path)
    grid = retrieval_grid([Query(LONG, [str(n) for n in range(9)], "x", 12)], 500, picture)
    write_report(folder, "a run", samples(), section=grid)
    return folder.report


def rl_page(path):
    folder = run(path)
    write_rl_report(folder, "a run", samples())
    return folder.report


def questions_page(path):
    """A reward that asks questions: right, wrong, abstained and unread answers, long ones among them."""
    folder = run(path)
    for step in (200, 210):
        term = "reward/question_answering"
        folder.append(step, {term: 0.5, f"{term}_right_color": 0.5, f"{term}_read_seconds": 1.0, "rl/length": 9.0})
    said = [
        {"said": LONG, "abstained": False, "right": True}, {"said": "a dog", "abstained": False, "right": False},
        {"said": "cannot", "abstained": True, "right": False}, {"said": None, "abstained": False, "right": False},
    ]  # fmt: skip
    answers = [{"question": f"{n} {LONG}?", "answer": LONG, "before": said[n - 1], "now": said[n]} for n in range(4)]
    write_rl_report(folder, "a run", samples(), answers=[({**row, "answers": answers}, p) for row, p in samples()])
    return folder.report


def preferences_page(path):
    """Pairs with a long side, one that was turned, and an alarm."""
    folder = run(path)
    sides = ("chosen", "rejected")
    for step in range(0, 200, 10):
        row = {f"preference/{side}_logprob": -5 - step / (40 if side == "chosen" else 10) for side in sides}
        row |= {"preference/chosen_drop": step / 250, "preference/accuracy": 0.8, "preference/margin": step / 1000}
        folder.append(step, {f"{split}/{name}": value for split in ("train", "val") for name, value in row.items()})
    pair = {"chosen": "a red circle", "rejected": LONG, "criterion": "true_claims", "scores": [1.0, 0.5]}
    numbers = {"before": [-5.0, -6.5], "now": [-4.5, -8.0], "margin": 2.0}
    pairs = [({**pair, **numbers, "key": f"{n} {LONG}", "margin": 2.0 - n}, picture()) for n in range(5)]
    write_preferences_report(folder, "a run", pairs, samples(), 0.5)
    return folder.report


def compare_page(path):
    """Two runs that differ in captions, numbers and a long key."""
    folders = {"a": run(path / "a"), "b": run(path / "b", **{LONG: LONG})}
    rows = {
        name: [{"key": f"{n}", "caption": f"{name} {LONG}", "references": [LONG], "metadata": {}} for n in range(20)]
        for name in folders
    }
    numbers = {name: {"cider": 1.0, LONG: 2.0} for name in folders}
    scores = {"a": np.zeros(20), "b": np.arange(20.0)}
    found = Compared("test", 0.95, folders, numbers, {"b": {"cider": Difference(0.5, 0.25, 0.75)}}, rows, scores)
    write_compared(path, found, picture)
    return path / "compare.html"


def inspect_page(path):
    """A data set with long names, findings, pictures that look alike and a note."""
    rows = {"images": 1000, LONG: "5 (1 to 9)", "languages": {"en": 3000, "pt-BR": 12}}
    lengths, sides = {split: np.arange(5, 40) for split in ("train", "val")}, {"train": [300, 500, 500]}
    found = Inspected(
        LONG, {"train": rows, "val": rows}, [(LONG, [LONG, LONG]), ("odd", [])], [(LONG, 12)], lengths, sides, 32,
        samples(), [], [[(LONG, picture()), (PATH, picture())]], [LONG],
    )  # fmt: skip
    write_inspected(path, found)
    return path / "inspect.html"


def cross_page(path):
    """A matrix whose cells are shaded from the lowest to the highest."""
    cells = [
        Cell(run, data, PATH, {"cider": value}, {"cider": (value - 1, value + 1)})
        for run, data, value in ((LONG, PATH, 1.0), ("b", PATH, 9.0), (LONG, "x", 5.0), ("b", "x", 3.0))
    ]
    write_matrix(path, "runs", cells, 0.95)
    return path / "cross.html"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize(
    "page", [fit_page, rl_page, questions_page, preferences_page, compare_page, inspect_page, cross_page]
)
def test_a_page_fits_is_readable_answers_and_says_nothing_in_the_console(page, width, dark, tmp_path):
    found = look(page(tmp_path), width, dark)
    assert found["width"] == width and found["scroll"] <= width, found["wide"]
    assert found["wide"] == [] and found["pale"] == [] and found["console"] == []
    assert page is cross_page or (found["opened"] and found["closed"])  # it has no picture
    if page in (fit_page, rl_page, questions_page, preferences_page):
        assert found["told"].startswith("step ") and found["quiet"]


def test_the_look_sees_what_it_is_to_see(tmp_path):
    page = fit_page(tmp_path)
    bad = "<p style='width: 2000px; color: #999'>pale and wide</p><script>console.error('wrong')</script>"
    page.write_text(page.read_text().replace("</body>", f"{bad}</body>"))
    found = look(page, 390)
    assert found["scroll"] > 390 and "P." in found["wide"] and found["pale"][0].startswith("pale and wide: 2.8")
    assert len(found["console"]) == 1 and "wrong" in found["console"][0]
