import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from benchmarks.speed import growth, training, vocabulary
from benchmarks.speed.__main__ import main
from benchmarks.speed.plain_cider import PlainCiderD
from benchmarks.speed.rollout import FULL
from capkit.scorers.cider import CiderD
from capkit.types import CaptionBatch, Samples


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
@pytest.mark.parametrize("section", ["mle", "update"])
def test_tiny_training_steps_take_turns_with_transformers(section, tmp_path, monkeypatch):
    """capkit's are whole steps of a Trainer: the run ends with the section."""
    out = tmp_path / "speed.json"
    monkeypatch.setattr(sys, "argv", ["speed", section, "--tiny", "--rounds", "2", "--no-static", "--out", str(out)])
    main()
    rows = json.loads(out.read_text())["rows"]
    assert [row["name"] for row in rows] == ["capkit", "transformers"]
    assert all(row["per_second"] == pytest.approx(4000 / row["ms"]) and row["share"] > 0 for row in rows)


@pytest.mark.integration
def test_tiny_guided_captions_take_turns_with_plain_ones(tmp_path, monkeypatch):
    out = tmp_path / "speed.json"
    monkeypatch.setattr(sys, "argv", ["speed", "guided", "--tiny", "--rounds", "1", "--out", str(out)])
    main()
    rows = json.loads(out.read_text())["rows"]
    assert [row["name"] for row in rows] == ["capkit", "capkit, guided"] * 2


@pytest.mark.integration
def test_commands_are_timed_as_processes_of_their_own(tmp_path, monkeypatch):
    out = tmp_path / "speed.json"
    monkeypatch.setattr(sys, "argv", ["speed", "startup", "--tiny", "--rounds", "1", "--out", str(out)])
    main()
    rows = json.loads(out.read_text())["rows"]
    assert [row["name"] for row in rows] == ["capkit", "import hydra.compose"] * 2
    assert all(row["ms"] > 50 for row in rows)  # a process that fails at once takes less


def test_operations_of_a_training_step_by_hand():
    """Width 768, 12 layers, 197 image tokens, 32 tokens a caption, 50,257 words: 149 GFLOP an image.

    An image: 12 (24 x 197 x 768^2 + 4 x 197^2 x 768) + 2 x 196 x 768^2 = 35.1e9, keys and values
    12 x 4 x 197 x 768^2 = 5.6e9. A caption: 12 x 32 (28 x 768^2 + 4 x 32 x 768 + 4 x 197 x 768) = 6.6e9, head
    2 x 32 x 768 x 50,257 = 2.5e9. Forward and backward: 3 x 49.8e9.
    """
    one, five = (training.Row("mle", 1, captions, 32).flop(FULL) for captions in (1, 5))
    assert one == pytest.approx(149.3e9, rel=0.002)
    assert five - one == pytest.approx(3 * 4 * (6.6e9 + 2.5e9), rel=0.01)


@pytest.mark.integration
def test_an_unknown_section_is_named(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["speed", "rollouts"])
    with pytest.raises(SystemExit):
        main()
    assert "rollouts" in capsys.readouterr().err


@pytest.mark.integration
def test_a_tiny_step_of_each_kind_takes_its_turn_with_a_plain_loop(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["speed", "step", "--tiny", "--rounds", "1"])
    main()
    told = capsys.readouterr().out
    assert told.count("| self-critical encoder_decoder 3 x 5 x 4 |") == 2
    assert told.count("| self-retrieval clip_prefix 3 x 1 x 4 |") == 2


def test_the_plain_cider_is_capkits():
    """Else the two sides of a step would not do the same work."""
    corpus = vocabulary.references_of(300, 40, length=6)
    scorer = CiderD()
    scorer.fit(corpus)
    plain = PlainCiderD(corpus)
    captions = [references[0].rsplit(" ", 2)[0] for references in corpus[:5]]
    batch = CaptionBatch([str(number) for number in range(5)], references=corpus[:5])
    found = scorer(batch, Samples.from_texts([[caption] for caption in captions]))[:, 0]
    wanted = [plain.score(caption, references) for caption, references in zip(captions, corpus[:5], strict=True)]
    assert min(wanted) > 1
    torch.testing.assert_close(found, torch.tensor(wanted), rtol=1e-5, atol=1e-6)


@pytest.mark.integration
def test_a_tiny_run_of_growth_draws_its_curves_and_says_what_does_not_fit(tmp_path, monkeypatch, capsys):
    out, plot = tmp_path / "growth.json", tmp_path / "growth.svg"
    words = ["growth", "--tiny", "--rounds", "1", "--out", str(out), "--plot", str(plot)]
    whole = growth.rollout

    def rollout(row, *rest):
        if row.samples == 2:
            raise torch.OutOfMemoryError
        return whole(row, *rest)

    monkeypatch.setattr(growth, "rollout", rollout)
    monkeypatch.setattr(sys, "argv", ["speed", *words])
    main()
    rows = json.loads(out.read_text())["rows"]
    assert [row["work"].partition(",")[0] for row in rows[::2]] == list(growth.WORKS)
    assert [row["out_of_memory"] for row in rows] == [False, True, False, False, False, False]
    printed = capsys.readouterr().out
    assert "| rollout, samples 2 | capkit | out of memory |" in printed
    assert "| samples 2 | out of memory |" in printed and "| samples 1 | " in printed
    drawn = ElementTree.fromstring(plot.read_text())
    assert len(drawn.findall(".//{*}polyline")) == 6  # ms and GiB of three works


@pytest.mark.integration
def test_a_tiny_run_of_data_reads_the_pictures_in_every_way(tmp_path, monkeypatch):
    out = tmp_path / "data.json"
    monkeypatch.setattr(sys, "argv", ["speed", "data", "--tiny", "--rounds", "1", "--out", str(out)])
    main()
    rows = json.loads(out.read_text())["rows"]
    sides = ["capkit", "capkit, scaled", "capkit, folder", "capkit, folder, Pillow", "Pillow and torchvision"]
    for part in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
        assert [row["name"] for row in part][:5] == sides
        assert all(row["ms"] > 0 for row in part)


PROGRAM = """
import os
from concurrent.futures.process import BrokenProcessPool
from benchmarks.speed.measure import apart
if __name__ == "__main__":
    assert apart(os.getpid) != os.getpid()
    try:
        apart(os.abort)
    except BrokenProcessPool:
        print("told")
"""


def test_what_dies_in_a_process_of_its_own_is_told(tmp_path):
    # By a program: the fork server of this process is that of all tests.
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, tmp_path / "program.py"], env=environment, capture_output=True, text=True)
    assert done.stdout == "told\n", done.stderr
