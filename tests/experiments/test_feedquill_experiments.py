"""FeedQuill at paper size by its commands, with a tiny LLaVA, a tiny BLIP, and a stand-in for its judges."""

import json

import numpy as np
import pytest
from PIL import Image

from capkit.cli import main
from capkit.run.folder import RunFolder
from capkit.testing.stand_in_server import StandInServer

pytestmark = pytest.mark.nightly

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
VISION = {**SIZES, "image_size": 28, "patch_size": 14}
TEXT = {**SIZES, "max_position_embeddings": 700}
LLAVA = {
    "model_type": "llava",
    "text_config": {"model_type": "llama", "num_key_value_heads": 1, **TEXT},
    "vision_config": {"model_type": "clip_vision_model", **VISION},
}
BLIP = {"vision_config": VISION, "text_config": {**TEXT, "encoder_hidden_size": 16}}
TINY = ["model.name=null", "model.tokenizer=word", "trainer=cpu", "trainer.devices=1", "data.num_workers=0"]
TINY += ["debug=tiny", "data.batch_size=4", "eval_limit=null"]
CHAT = [*TINY, "model.image_size=28", "decoding.max_length=6"]
FACTS = ["a red bus", "a red bus by a tree", "a blue bus"]


def config(sizes):
    return f"model.config={json.dumps(sizes).replace(chr(34), '')}"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """The words of ten pictures' manifest, and pairs about them by both criteria."""
    folder = tmp_path_factory.mktemp("photos")
    rows, pairs = [], []
    for number in range(10):
        pixels = np.random.default_rng(number).integers(0, 255, (28, 28, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append({"key": str(number), "image": f"{number}.png", "captions": FACTS[1:2]})
        for criterion, chosen, rejected in (("true_claims", 0, 2), ("num_true_claims", 1, 0)):
            sides = {"chosen": FACTS[chosen], "rejected": FACTS[rejected]}
            pairs.append({"image": str(number), **sides, "criterion": criterion})
    for name, written in (("rows", rows), ("pairs", pairs)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in written))
    return folder, [f"data.{split}.path={folder / 'rows.jsonl'}" for split in ("train", "val", "test")]


@pytest.fixture(scope="module")
def raters(photos):
    """The words that name two raters, one of each criterion."""
    folder, data = photos
    named = []
    for criterion in ("true_claims", "num_true_claims"):
        words = ["experiment=feedquill_rater", *data, *TINY, config(BLIP), "model.max_length=32", "held_out=0.3"]
        words += ["model.frozen_share=0.5", f"ratings={folder / 'pairs.jsonl'}", f"criterion={criterion}"]
        assert main([*words, f"run_dir={folder / criterion}"]) == 0
        assert "held_out/accuracy" in RunFolder(folder / criterion).metrics()
        named.append(f"reward.rater_{criterion}.scorer.rater.ckpt={folder / criterion}")
    return named


def test_feedquill_learns_from_two_raters_by_adapters(photos, raters, tmp_path):
    words = ["experiment=feedquill", *photos[1], *CHAT, config(LLAVA), "objective.rollout.max_length=6"]
    assert main([*words, *raters, f"run_dir={tmp_path / 'run'}"]) == 0
    run = RunFolder(tmp_path / "run")
    assert run.metrics()["train/steps"] == 2
    rows = [row for row in run.rows() if "reward/rater_true_claims" in row]
    assert rows and all(
        row["reward/total"] == pytest.approx(row["reward/rater_true_claims"] + row["reward/rater_num_true_claims"] / 2)
        for row in rows
    )


def test_feedquill_dpo_learns_from_the_pairs_of_both_criteria(photos, tmp_path, capsys):
    folder, data = photos
    words = ["experiment=feedquill_dpo", *data, *CHAT, config(LLAVA), f"pairs={folder / 'pairs.jsonl'}"]
    assert main([*words, "held_out=0.3", f"run_dir={tmp_path / 'run'}"]) == 0
    numbers = RunFolder(tmp_path / "run").metrics()
    assert numbers["train/steps"] == 2


def test_feedquill_without_raters_asks_a_decomposer_and_a_verifier(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # answers are kept in the working folder
    claims = json.dumps({"claims": [{"claim": "There is a bus.", "seen": True}, {"claim": "It is red.", "seen": True}]})
    with (
        StandInServer(lambda prompt: claims) as lists,
        StandInServer(lambda prompt: json.dumps({"1": "true", "2": "false"})) as sees,
    ):
        words = ["experiment=feedquill_verifier", *photos[1], *CHAT, config(LLAVA), "objective.rollout.max_length=6"]
        for group, server in (("text_lm", lists), ("vision_chat", sees)):
            words += [f"{group}.url={server.url}", f"{group}.model=judge"]
        assert main([*words, f"run_dir={tmp_path / 'run'}"]) == 0
    rows = [row for row in RunFolder(tmp_path / "run").rows() if "reward/total" in row]
    assert rows and all(row["reward/total"] == pytest.approx(0.5 + 0.1) for row in rows)
