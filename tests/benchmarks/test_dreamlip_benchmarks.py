"""Benchmarks of DreamLIP: the page's table, and what more texts of an image cost, at a tiny size."""

import json

import pytest
from test_guided_effects import NUMBER, record
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.contrastive import __main__ as contrastive
from benchmarks.contrastive import slots
from benchmarks.contrastive.run_capkit import build, module_of
from benchmarks.contrastive.workloads import TINY, Row
from benchmarks.dreamlip_effects import FILE
from benchmarks.modular_effects import table


def test_the_table_has_each_seed_beside_what_is_wanted():
    assert f"| {NUMBER['what']} | >= 0.15 | 0.2 | 1.2 |" in table([record(FILE, seed) for seed in (0, 1)], FILE)
    with pytest.raises(SystemExit, match=r"expected rows of test_dreamlip\.py"):
        table([record("test_noc.py", 0)], FILE)


def counted(num_texts):
    """Operations of a step's forward and backward pass, as torch counts them; None: of InfoNCE with one text."""
    module = module_of(build(TINY), compiled=False, objective=slots.dreamlip() if num_texts else None)
    with FlopCounterMode(display=False) as counter:
        module.objective(module.embed(slots.batch_of(TINY, num_texts or 1, "cpu")), 0).loss.backward()
    return counter.get_total_flops()


def test_the_image_tower_runs_once_however_many_texts_there_are():
    plain = counted(None)
    for number in (1, 4, 8):
        expected = (TINY.image_gflop + number * TINY.text_gflop) / (TINY.image_gflop + TINY.text_gflop)
        assert 0.9 * counted(number) / plain <= expected


def test_shares_compare_with_arithmetic():
    rows = [
        Row("tiny", work, "capkit", 16, 16, gflop, seconds, 0.0, 0.0, 1.0)
        for work, gflop, seconds in ((slots.PLAIN, 10.0, 1.0), ("DreamLIP, 4 texts", 20.0, 2.5))
    ]
    assert slots.shares(rows) == pytest.approx([1, 0.8])  # twice the work, 2.5 times the time
    assert "| 2.50 | 2.00 | 0.80 |" in slots.table(rows) and "| 26 |" in slots.table(rows)  # 4 x 16 pairs in 2.5 s


@pytest.mark.nightly
def test_it_runs_at_a_tiny_size(tmp_path):
    contrastive.main(["--objective", "dreamlip", "--tiny", "--texts", "1", "2", "--out", str(tmp_path / "out.json")])
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row["work"] for row in rows] == [slots.PLAIN, "DreamLIP, 1 texts", "DreamLIP, 2 texts"]
    assert all(row["seconds"] > 0 for row in rows)
