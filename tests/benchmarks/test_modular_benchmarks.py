"""Benchmarks of modular captioners: the page's table, and what words cost, at a tiny size."""

import pytest
from test_guided_effects import NUMBER, record

from benchmarks import modular_decoding
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
