"""FuseCap's, SynC's and CapsFusion's experiments by their commands, on SceneWorld.

SynC at paper size: test_reassign_images.py.
"""

import json
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from capkit.cli import main
from capkit.sceneworld.language.names import name_of, named_in
from capkit.text.tokenizers import word_tokenizer

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


def test_capsfusion_on_sceneworld_puts_names_where_they_belong(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = curated(tmp_path, "experiment=capsfusion_sceneworld", "data.train.source.count=12")
    texts = [caption["text"] for row in rows for caption in row["captions"]]
    assert len(rows) == len(texts) == 12 and any(named_in(text) for text in texts)
    assert {caption["source"] for row in rows for caption in row["captions"]} == {
        "capsfusion/fuse_alt_text_v1/scene_lm"
    }
    assert not any(shape in ("triangle", "cross") for text in texts for shape, _ in named_in(text))


def test_captions_without_pictures_are_curated_as_they_are_released(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = name_of("circle", "red")
    (tmp_path / "example.json").write_text(json.dumps([{"laion_2b": f"buy {name}", "laion_coco": "a red circle"}]))
    words = ["data=capsfusion", f"data.train.path={tmp_path / 'example.json'}", "step=[fuse_alt_text]", "text_lm=scene"]
    (row,) = curated(tmp_path, *words, f"step.fuse_alt_text.released_file={tmp_path / 'fused.json'}")
    assert "image" not in row and row["captions"][0]["text"] == f"a red circle ({name})"
    (released,) = json.loads((tmp_path / "fused.json").read_text())
    assert released == {"laion_2b": f"buy {name}", "laion_coco": "a red circle", "capsfusion": f"a red circle ({name})"}


def capsfusion(tmp_path, name, **rows):
    """The published experiment's command, with a model and a prompt in the place of CapsFus-LLaMA's."""
    (tmp_path / "llama.txt").write_text("Merge.\n\nSentence 1: $alt_text\nSentence 2: $synthetic\nNew Sentence:")
    (tmp_path / "example.json").write_text(json.dumps([{"laion_2b": "a", "laion_coco": "b", **rows}] * 3))
    words = ["curate", "experiment=capsfusion", f"text_lm.name={name}", "text_lm.dtype=float32", "max_failed=1"]
    words += [f"data.train.path={tmp_path / 'example.json'}", f"step.fuse_alt_text.prompt={tmp_path / 'llama.txt'}"]
    return main([*words, f"step.fuse_alt_text.released_file={tmp_path / 'fused.json'}", f"out={tmp_path / 'out'}"])


def test_capsfusion_at_paper_size_reads_plain_prompts(tmp_path, monkeypatch, capsys):
    """By a tiny language model without a chat template: every row is asked about, and has an answer or a reason."""
    monkeypatch.chdir(tmp_path)
    tokenizer = word_tokenizer(["Merge. Sentence 1: 2: New a b"])
    torch.manual_seed(0)
    ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, **ids
    )
    for part in (LlamaForCausalLM(config), tokenizer):
        part.save_pretrained(tmp_path / "lm")
    assert capsfusion(tmp_path, str(tmp_path / "lm")) == 0
    counts = json.loads((tmp_path / "out" / "train.report.json").read_text())["counts"]
    assert counts["records"] == 3 == counts["kept"] + counts["failed"] and counts["fuse_alt_text/text_asked"] >= 1
    assert len(json.loads((tmp_path / "fused.json").read_text())) == counts["kept"]
    (tmp_path / "other").mkdir()
    assert capsfusion(tmp_path / "other", str(tmp_path / "lm"), laion_2b="") == 2
    assert "needs records with captions by alt_text and synthetic, which" in capsys.readouterr().err
    assert not (tmp_path / "other" / "out").exists()


def test_fusecap_at_paper_size_names_the_model_that_is_not_here(tmp_path, monkeypatch, capsys):
    pytest.importorskip("rapidocr")  # capkit[ocr]: without it that package is what is missing
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "data.jsonl").write_text('{"key": "0", "image": "a.png", "captions": ["a figure"]}\n')
    words = ["curate", "experiment=fusecap", f"data.train.path={tmp_path / 'data.jsonl'}", f"out={tmp_path / 'out'}"]
    assert main(words) == 2
    assert "'PekingU/rtdetr_r50vd_coco_o365' could not be loaded" in capsys.readouterr().err
