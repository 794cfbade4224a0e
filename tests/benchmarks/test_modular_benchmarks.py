"""Benchmarks of modular captioners: the page's table, and what words cost, at a tiny size."""

import json

import pytest
from test_guided_effects import NUMBER, record

from benchmarks import modular_decoding, modular_step
from benchmarks.guided_effects import END, with_tables
from benchmarks.modular_decoding import KINDS, Sizes
from benchmarks.modular_effects import BEGIN, FILE, table


def test_the_table_has_each_seed_beside_what_is_wanted():
    text = table([record(FILE, seed) for seed in (0, 1)])
    assert f"| {NUMBER['what']} | >= 0.15 | 0.2 | 1.2 |" in text
    page = with_tables(f"# Modular\n\n{BEGIN}\n\nold\n\n{END}\n\nbehind\n", text, BEGIN)
    assert "old" not in page and page.endswith(f"{END}\n\nbehind\n")
    with pytest.raises(SystemExit, match=r"expected rows of test_modular\.py"):
        table([record("test_noc.py", 0)])


def test_costs_of_words_are_measured_at_a_tiny_size(capsys):
    modular_decoding.main(Sizes(width=16, vocabulary=200, images=2, regions=3, length=4, places=(0, 2)), 1)
    printed = capsys.readouterr().out
    rows = [line.strip("|").split("|") for line in printed.splitlines() if line.startswith(("| C", "| E"))]
    names = [*KINDS, "EncoderDecoder like CNM", "EncoderDecoder like CVLNM", *KINDS]
    assert [row[0].strip() for row in rows] == names
    assert all(float(cell.replace(",", "")) > 0 for row in rows for cell in row[1:])


def test_a_self_critical_step_is_measured_at_a_tiny_size(capsys, tmp_path):
    rows = modular_step.main(modular_step.TINY, 1, tmp_path / "rows.json")
    assert [(row.captioner, row.micro_batch) for row in rows] == [("CNM", 1), ("CNM", 2), ("CVLNM", 1), ("CVLNM", 2)]
    assert all(0 < row.fastest_ms <= row.median_ms and row.images_per_second == 2e3 / row.median_ms for row in rows)
    printed = capsys.readouterr().out
    assert "2 images of 3 regions" in printed and printed.count("| CVLNM |") == 2
    assert len(json.loads((tmp_path / "rows.json").read_text())) == 4
