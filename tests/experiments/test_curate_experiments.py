"""FuseCap's and SynC's experiments by their commands, on SceneWorld. SynC at paper size: test_reassign_images.py."""

import json
from pathlib import Path

import pytest

from capkit.cli import main

pytestmark = pytest.mark.integration
STARTS = Path(__file__).parents[1] / "effects" / "starts"


def curated(folder, *words):
    assert main(["curate", *words, "splits=[train]", f"out={folder / 'out'}"]) == 0
    return [json.loads(line) for line in (folder / "out" / "train.jsonl").read_text().splitlines()]


def test_fusecap_on_sceneworld_adds_what_the_experts_find(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = curated(tmp_path, "experiment=fusecap_sceneworld", "data.train.count=6")
    assert rows and all(row["metadata"]["findings"] for row in rows)
    assert any(caption.get("added") for row in rows for caption in row["captions"])


def test_sync_on_sceneworld_pairs_captions_with_pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    step = "step.reassign_scene_images"
    encoders = [f"{step}.encoder.ckpt={STARTS / 'judge-0'}", f"{step}.sentence_encoder.ckpt={STARTS / 'judge-1'}"]
    rows = curated(tmp_path, "experiment=sync_sceneworld", "data.train.source.count=40", *encoders)
    assert 0 < len(rows) <= 36 and sum(len(row["captions"]) for row in rows) == 36  # nine tenths of the captions


def test_fusecap_at_paper_size_names_the_model_that_is_not_here(tmp_path, monkeypatch, capsys):
    pytest.importorskip("rapidocr")  # capkit[ocr]: without it that package is what is missing
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "data.jsonl").write_text('{"key": "0", "image": "a.png", "captions": ["a figure"]}\n')
    words = ["curate", "experiment=fusecap", f"data.train.path={tmp_path / 'data.jsonl'}", f"out={tmp_path / 'out'}"]
    assert main(words) == 2
    assert "'PekingU/rtdetr_r50vd_coco_o365' could not be loaded" in capsys.readouterr().err
