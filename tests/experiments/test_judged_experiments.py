"""KnowAda's and MLBCAP's experiments by their commands: on SceneWorld whole, at paper size as far as their prices."""

import json

import pytest

from capkit.cli import main

pytestmark = pytest.mark.integration


def curated(folder, *words):
    assert main(["curate", *words, f"out={folder / 'out'}"]) == 0
    rows = [json.loads(line) for line in (folder / "out" / "train.jsonl").read_text().splitlines()]
    return rows, json.loads((folder / "out" / "train.report.json").read_text())["counts"]


def test_knowada_on_sceneworld_rewrites_captions_without_their_colours(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows, counts = curated(tmp_path, "experiment=knowada_sceneworld", "data.train.count=6")
    assert len(rows) == 6 and counts["adapt_to_student/captions_rewritten"] > 0
    for row in rows:
        for questions in row["metadata"].get("unknown_questions", []):
            assert all(question.startswith("what color") for question in questions)


def test_mlbcap_on_sceneworld_writes_a_long_and_a_short_caption(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows, counts = curated(tmp_path, "experiment=mlbcap_sceneworld", "data.train.count=8")
    assert len(rows) == 8 and counts["judge_candidates_short/pick_cached"] == 8
    for row in rows:
        assert len(row["metadata"]["mlbcap_long"].split()) <= 50 and len(row["metadata"]["mlbcap_short"].split()) <= 30
        sources = [caption["source"].split("/")[0] for caption in row["captions"]]
        assert sources[-2:] == ["mlbcap", "mlbcap"] and set(sources[:-2]) == {"candidate"}


@pytest.mark.parametrize(("experiment", "variable"), [("knowada", "GEMINI_API_KEY"), ("mlbcap", "OPENAI_API_KEY")])
def test_at_paper_size_it_wants_a_key_before_anything_is_asked(experiment, variable, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv(variable, raising=False)
    (tmp_path / "data.jsonl").write_text('{"key": "0", "image": "a.png", "captions": ["a figure"]}\n')
    words = [
        "curate",
        f"experiment={experiment}",
        f"data.train.path={tmp_path / 'data.jsonl'}",
        f"out={tmp_path / 'out'}",
    ]
    assert main(words) == 2
    assert variable in capsys.readouterr().err
