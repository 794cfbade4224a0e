import json
import math

from capkit.reports.sweep import write_sweep


def test_a_sweep_has_a_row_a_bin_and_a_column_in_its_page(tmp_path):
    numbers = {0: {"test/cider": 0.5, "test/shuffled/cider": 0.1}, 1: {"test/cider": math.nan}}
    write_sweep(tmp_path, "<noc>", "alignment", numbers)
    rows = json.loads((tmp_path / "sweep.json").read_text())
    assert rows == [
        {"alignment": 0, "numbers": {"test/cider": 0.5, "test/shuffled/cider": 0.1}},
        {"alignment": 1, "numbers": {"test/cider": None}},
    ]
    page = (tmp_path / "sweep.html").read_text()
    assert "&lt;noc&gt;" in page and "<th>alignment 0</th><th>alignment 1</th>" in page
    assert ">0.500<" in page and ">0.100<" not in page  # controls are in the file alone
