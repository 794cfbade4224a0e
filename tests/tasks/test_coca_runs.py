"""CoCa by commands: likelihood, a resume, rewards, adapters, and an export that plain open_clip captions with."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import capkit
from capkit.cli import main
from capkit.decoding.config import Decoding

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(importlib.util.find_spec("open_clip") is None, reason="needs capkit[openclip]"),
]

TEXT = "width: 16, heads: 2, layers: 1, context_length: 40"
TINY = [
    "model=coca",
    "model.name=null",
    "model.weights=null",
    "model.tokenizer=word",
    "model.max_length=40",
    "model.config={embed_dim: 16, vision_cfg: {image_size: 32, patch_size: 16, layers: 1, width: 16, head_width: 8, "
    "attentional_pool: true, attn_pooler_heads: 2, attn_pooler_queries: 5}, "
    f"text_cfg: {{{TEXT}, embed_cls: true}}, multimodal_cfg: {{{TEXT}}}}}",
]
SMALL = ["data=sceneworld", *(f"data.{split}.count=8" for split in ("train", "val", "test")), "data.train.size=32"]
BRIEF = [*SMALL, "data.batch_size=4", "controls=0", "metric=[cider]", "decoding.max_length=8", "trainer=cpu"]
BRIEF += ["trainer.devices=1"]

# What a user has without capkit: open_clip, the exported folder, and picture files. Its own `generate` is refused
# beside transformers 5, so the loop is written out.
ALONE = """
import json, sys
import open_clip, torch
from PIL import Image
folder, *pictures = sys.argv[1:]
model, _, transform = open_clip.create_model_and_transforms("local-dir:" + folder)
words = open_clip.get_tokenizer("local-dir:" + folder).tokenizer
pixels = torch.stack([transform(Image.open(picture)) for picture in pictures])
text = torch.full((len(pixels), 1), words.bos_token_id)
with torch.no_grad():
    for _ in range(8):
        logits = model.eval()(pixels, text, output_labels=False)["logits"]
        text = torch.cat([text, logits[:, -1].argmax(-1, keepdim=True)], 1)
rows = [row[1 : row.index(words.eos_token_id) if words.eos_token_id in row else None] for row in text.tolist()]
print(json.dumps([[words.decode(row, skip_special_tokens=True).strip() for row in rows], "capkit" in sys.modules]))
"""


def rows_of(run):
    return [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]


def captions_of(checkpoint, run):
    assert main(["evaluate", f"ckpt={checkpoint}", *BRIEF[1:], f"run_dir={run}"]) == 0
    return json.loads(Path(run, "predictions", "test.json").read_text())


def test_likelihood_a_resume_rewards_and_an_export(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    words = [*BRIEF, "optimizer.lr=0.02", "val_every=2"]
    assert main([*TINY, *words, "max_steps=2", "run_dir=runs/first"]) == 0
    assert main(["resume=true", *TINY, *words, "max_steps=3", "run_dir=runs/first"]) == 0
    assert any(row.get("resumed_from") == 2 for row in rows_of("runs/first"))
    rewarded = ["fit_rl", "init_from=runs/first", "reward=[cider]", *words, "max_steps=2", "objective.num_samples=2"]
    assert main([*rewarded, "run_dir=runs/rl"]) == 0
    assert any("reward/cider" in row for row in rows_of("runs/rl"))
    capfd.readouterr()
    assert main(["export", "ckpt=runs/rl", "out=exported"]) == 0
    assert "open_clip: create_model_and_transforms('local-dir:exported')" in capfd.readouterr().out
    captions = captions_of("runs/rl", "runs/of_rl")
    assert len(captions) == 8 and captions == captions_of("exported", "runs/of_exported")
    assert any(row["caption"] for row in captions)

    pictures = [str(tmp_path / f"{number}.png") for number in range(3)]
    for number, path in enumerate(pictures):
        pixels = np.random.default_rng(number).integers(0, 256, (48, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    ours = capkit.load("exported").caption(pictures, decoding=Decoding(max_length=8))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", ALONE, "exported", *pictures]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    theirs, has_capkit = json.loads(done.stdout.splitlines()[-1])
    assert theirs == ours and any(ours) and not has_capkit


def test_adapters_are_merged_into_an_export_and_saved_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [*BRIEF, "optimizer.lr=0.05", "val_every=2", "max_steps=3"]
    assert main([*TINY, *words, "model.lora={rank: 2}", "model.freeze=[text_tower]", "run_dir=runs/lora"]) == 0
    assert main(["export", "ckpt=runs/lora", "out=exported"]) == 0
    assert captions_of("runs/lora", "runs/of_lora") == captions_of("exported", "runs/of_exported")
    adapters = json.loads(Path("exported/adapters/model/adapter_config.json").read_text())
    assert set(adapters["target_modules"]) == {"query_key_value", "query", "key_value"}
    plain = capkit.load("exported").model
    assert not any("lora" in name for name, _ in plain.named_parameters())
