import json
import sys

import pytest

from benchmarks.speed.__main__ import main


@pytest.mark.integration
def test_a_tiny_run_prints_a_table_and_keeps_its_numbers(tmp_path, monkeypatch, capsys):
    out = tmp_path / "speed.json"
    words = ["rollout", "--tiny", "--rounds", "2", "--no-static", "--rows", "greedy", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["speed", *words])
    main()
    rows = json.loads(out.read_text())["rows"]
    assert [row["name"] for row in rows] == ["capkit", "transformers"]
    assert rows[0]["ratio"] == 1 and all(row["ms"] > 0 for row in rows)
    assert capsys.readouterr().out.count("| encoder_decoder 2 x 2 + greedy x 4 |") == 2


@pytest.mark.integration
def test_an_unknown_section_is_named(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["speed", "rollouts"])
    with pytest.raises(SystemExit):
        main()
    assert "rollouts" in capsys.readouterr().err
