"""Metrics by claims by `capkit score`: on SceneWorld's words whole, at paper size as far as their keys and costs."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from capkit.cli import main

pytestmark = pytest.mark.integration

SCENE = ["decomposer=scene", "matcher=scene", "verifier=scene", "nouns=scene", "text_lm=scene", "metrics=[]"]
DENSE = "There are two shapes. A large red circle is in the top left. A small blue star is in the center."
WRONG = "There are two shapes. A large red circle is in the top left. A small green star is in the center. And a moon."


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Captions and references as the programs of DNLI and OpenCHAIR read them: the first caption is its reference."""
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "captions.csv").open("w", newline="") as file:
        columns = ["image", "original_description", "generated_description"]
        rows = [columns, ["0.png", DENSE, DENSE], ["1.png", DENSE, WRONG]]
        csv.writer(file).writerows(rows)
    return [f"predictions={tmp_path / 'captions.csv'}", f"references={tmp_path / 'captions.csv'}"]


def test_captions_in_a_table_are_scored_and_the_programs_files_written(table, tmp_path):
    assert main(["score", *table, *SCENE, "metric=[dcscore,dnli,open_chair]", "out=numbers.json"]) == 0
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    # WRONG: 9 true claims of the reference's 9 but for a colour, and a moon, of which one fact more is claimed.
    f1 = 2 * (8 / 10) * (8 / 9) / (8 / 10 + 8 / 9)
    assert numbers["dcscore"] == pytest.approx(100 * (1 + f1) / 2)
    assert numbers["dnli_contradicted_precision"] == pytest.approx((0 + 2 / 10) / 2)
    assert numbers["open_chair"] == 1 / 5 and numbers["open_chair_mentions"] == 5
    assert numbers["dcscore_asked"] == numbers["dnli_asked"] == 2 and numbers["open_chair_failed"] == 0
    assert numbers["intervals"]["dcscore"] == pytest.approx([100 * f1, 100])
    folder = tmp_path / "numbers.judged"
    assert (folder / "eval_details" / "1.json").exists() and (folder / "propositions_metrics.json").exists()
    assert len((folder / "open_chair_mentions.csv").read_text().splitlines()) == 6
    judges = json.loads((folder / "judges.json").read_text())
    assert judges["dcscore"]["verifier"] == {"verifier": "scene", "by": "text"}


def write_facts(folder, *names):
    rows = [{"image_name": name, "oracle_caption": DENSE, "oracle_facts": ["There is a circle."]} for name in names]
    (folder / "facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "pictures").mkdir()
    for name in names:
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(folder / "pictures" / name)
    return ["images=pictures", f"metric.dcscore.oracle_facts={folder / 'facts.jsonl'}"]


def test_decapbench_counts_its_questions_and_what_they_cost(table, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("COLUMNS", "200")
    words = write_facts(tmp_path, "0.png", "1.png")
    cost = ["text_lm.price=[5,15]", "vision_chat.price=[5,15]", "dry_run=true"]
    assert main(["score", "experiment=decapbench", table[0], *words, *cost]) == 0
    said = capsys.readouterr().out
    assert "dcscore/claims" in said and "dcscore/match" in said and "dcscore/verify" in said
    counts = [line.split("│")[4].strip() for line in said.splitlines() if "dcscore/" in line]
    assert counts == ["2", "6", "6"], "7 questions a caption"


def test_facts_of_other_pictures_are_told_before_anything_is_asked(table, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    words = [word for word in write_facts(tmp_path, "8.png", "9.png") if not word.startswith("images=")]
    assert main(["score", "experiment=decapbench", table[0], *words]) == 2
    assert "2 of 2 of none or several of them: 0.png, 1.png; it has 8.png" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (["experiment=decapbench", "metric.dcscore.oracle_facts=facts.jsonl"], "OPENAI_API_KEY"),
        (["experiment=dnli"], "GEMINI_API_KEY"),
    ],
)
def test_at_paper_size_it_wants_a_key_before_anything_is_asked(words, missing, table, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv(missing, raising=False)
    write_facts(tmp_path, "0.png", "1.png")
    assert main(["score", *words, *table]) == 2
    assert missing in capsys.readouterr().err


def test_open_chair_wants_its_tagger_before_a_model_is_loaded(table, tmp_path, monkeypatch, capsys):
    (tmp_path / "ratings.csv").write_text("dog,4.8\n")
    found = __import__("importlib.util").util.find_spec
    hide = lambda name, *rest: None if name.startswith(("spacy", "en_core_web")) else found(name, *rest)  # noqa: E731
    monkeypatch.setattr("capkit.config.extras.importlib.util.find_spec", hide)
    assert main(["score", "experiment=open_chair", *table, "metric.open_chair.concreteness=ratings.csv"]) == 2
    assert "capkit[tagger]" in capsys.readouterr().err
