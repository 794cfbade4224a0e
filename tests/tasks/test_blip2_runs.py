"""BLIP-2 by commands: likelihood, a resume, rewards, an export that is captioned with."""

import json
from pathlib import Path

import pytest

from capkit.cli import main

pytestmark = pytest.mark.integration

SIZES = "hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 24"
TINY = [
    "model=blip2",
    "model.name=null",
    "model.tokenizer=word",
    "model.config={model_type: blip-2, num_query_tokens: 3, "
    f"vision_config: {{{SIZES}, image_size: 32, patch_size: 16}}, "
    f"qformer_config: {{{SIZES}, cross_attention_frequency: 1}}, "
    f"text_config: {{model_type: opt, {SIZES}, ffn_dim: 24, word_embed_proj_dim: 16, max_position_embeddings: 80}}}}",
]
SMALL = ["data=sceneworld", *(f"data.{split}.count=8" for split in ("train", "val", "test")), "data.train.size=32"]
BRIEF = [*SMALL, "data.batch_size=4", "controls=0", "metric=[cider]", "decoding.max_length=8", "trainer=cpu"]


def rows_of(run):
    return [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]


def test_likelihood_a_resume_rewards_and_an_export(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [*BRIEF, "trainer.devices=1", "max_steps=2", "val_every=2"]
    assert main([*TINY, *words, "run_dir=runs/first"]) == 0
    assert main(["resume=true", *TINY, *words[:-2], "max_steps=3", "val_every=2", "run_dir=runs/first"]) == 0
    assert any(row.get("resumed_from") == 2 for row in rows_of("runs/first"))
    rewarded = ["fit_rl", "init_from=runs/first", "reward=[cider]", *words, "objective.num_samples=2"]
    assert main([*rewarded, "run_dir=runs/rl"]) == 0
    assert any("reward/cider" in row for row in rows_of("runs/rl"))
    assert main(["export", "ckpt=runs/rl", "out=exported"]) == 0
    captions = []
    for folder in ("runs/rl", "exported"):
        of = f"runs/of_{folder.replace('/', '_')}"
        assert main(["evaluate", f"ckpt={folder}", *BRIEF[1:], "trainer.devices=1", f"run_dir={of}"]) == 0
        captions.append(json.loads(Path(of, "predictions", "test.json").read_text()))
    assert len(captions[0]) == 8 and captions[0] == captions[1]
    assert any(row["caption"] for row in captions[0])
