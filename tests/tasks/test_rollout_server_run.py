"""A run whose captions a vLLM server writes, by the command line: export, serve, fit_rl, a server that dies."""

import json

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
from vllm_stand_in import VLLMStandIn

from capkit.checkpoint.files import load_checkpoint
from capkit.cli import main
from capkit.run.folder import RunFolder

ROPE = "{rope_type:default,mrope_section:[1,1,2],rope_theta:10000.0}"
TEXT = "{hidden_size:16,num_hidden_layers:2,num_attention_heads:2,num_key_value_heads:1,intermediate_size:24,"
TEXT += f"max_position_embeddings:96,initializer_range:.3,rope_parameters:{ROPE}}}"
VISION = "{depth:2,num_heads:2,patch_size:7,intermediate_size:24,hidden_size:16,out_hidden_size:16,"
VISION += "initializer_range:.3,fullatt_block_indexes:[1]}"
COMMON = [
    "data=sceneworld", "data.train.count=16", "data.val.count=4", "data.test.count=4", "debug=tiny", "trainer=cpu",
    "trainer.devices=1", "metric=[bleu]", "decoding.max_length=6",
]  # fmt: skip
START = [
    *COMMON, "model=chat_vlm", "model.name=null", "model.tokenizer=word", "model.image_size=28", "model.max_length=48",
    f"model.config={{model_type:qwen2_5_vl,text_config:{TEXT},vision_config:{VISION}}}",
    "model.question=what is near the red circle ?", "max_steps=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A run without adapters, and its export, which is what is served."""
    path = tmp_path_factory.mktemp("served")
    assert main([*START, f"run_dir={path / 'run'}"]) == 0
    assert main(["export", f"ckpt={path / 'run'}", f"out={path / 'exported'}"]) == 0
    return path


def served(start, **settings):
    parts = (cls.from_pretrained(start / "exported") for cls in (AutoModelForImageTextToText, AutoProcessor))
    return VLLMStandIn(*parts, name="exported", **settings)


def words(start, server, run_dir):
    return [
        "fit_rl", f"init_from={start / 'run'}", "model.lora.model={rank:2}", "objective=grpo",
        "objective.num_samples=2", "reward=[cider]", *COMMON,
        "max_steps=4", "val_every=4", "optimizer.lr=1e-2", "callback.checkpoints.every_steps=10", "rollout=vllm",
        "callback.recorder.every_steps=1", f"rollout.url={server.url}", "rollout.model=exported",
        "rollout.num_attempts=2", "rollout.first_wait_s=0.01", f"run_dir={run_dir}",
    ]  # fmt: skip


def adapters(run_dir):
    return load_checkpoint(sorted((run_dir / "checkpoints").glob("*4*"))[-1])["state_dict"]


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@pytest.mark.integration
def test_a_run_goes_on_after_its_server_was_away_as_if_it_had_not_been(start, capfd):
    with served(start) as server:
        assert main(words(start, server, start / "whole")) == 0
        whole = RunFolder(start / "whole")
        rows = [row for row in whole.current_rows() if "rl/server_ratio" in row]
        assert len(rows) == 4 and all(row["rl/logprob_gap"] < 1e-3 for row in rows)
        assert whole.metrics()["test/bleu_4"] >= 0 and len(server.loaded) == 4
        per_step = (len(server.asked) - 1) // 4  # one is the question about a grey picture
        server.asked.clear()
        server.away_after = 1 + 2 * per_step
        assert main(words(start, server, start / "cut")) == 86
        assert "rollout: no answer from" in capfd.readouterr().err
        (kept,) = (start / "cut/checkpoints").glob("*.ckpt")
        assert "2" in kept.name
        server.away_after = None
        assert main(words(start, server, start / "cut")) == 0
    first, second = adapters(start / "whole"), adapters(start / "cut")
    assert first and first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_weights_that_no_server_takes_are_refused_with_what_works(start, tmp_path, capfd):
    with served(start) as server:
        given = words(start, server, tmp_path / "run")
        given.remove("model.lora.model={rank:2}")
        assert main(given) == 2
        assert "give model.lora.model={rank:16,alpha:32} for init_from=RUN" in capfd.readouterr().err
        assert not server.asked


@pytest.mark.integration
def test_a_server_serves_a_run_without_a_start(start, tmp_path):
    named = ["init_from=null", "model=chat_vlm", f"model.name={start / 'exported'}", "model.image_size=28"]
    named += [word for word in START if word.startswith(("model.max_length", "model.question"))]
    adapters = ["model.lora={rank:2}", "model.freeze=[vision,projector]"]
    with served(start) as server:
        given = words(start, server, tmp_path / "run")
        given = [word for word in given if not word.startswith(("init_from", "model.lora", "max_steps", "val_every"))]
        assert main([*given, *named, *adapters, "max_steps=1", "val_every=1"]) == 0
    assert len(server.loaded) == 1


def test_a_server_that_is_absent_ends_the_run_before_data_is_read(start, capfd):
    with served(start) as server:
        pass
    assert main(words(start, server, start / "absent")) == 2
    told = capfd.readouterr().err
    assert "no connection to" in told and "rollout.url" in told and "Traceback" not in told


def test_captions_that_answer_prompts_of_their_own_end_the_run_before_a_step(start, tmp_path, capfd):
    Image.new("RGB", (28, 28)).save(tmp_path / "a.png")
    captions = [{"text": "a red circle ."}, {"text": "a star .", "prompt": "what is near ?"}]
    rows = [{"image": "a.png", "captions": captions}, {"image": "a.png", "key": "b", "captions": captions[:1]}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = ["data=manifest", *(f"data.{split}.path={tmp_path / 'rows.jsonl'}" for split in ("train", "val", "test"))]
    with served(start) as server:
        given = [word for word in words(start, server, tmp_path / "run") if not word.startswith("data")]
        assert main([*given, *data, "data.batch_size=2", "data.captions_per_image=1"]) == 2
    told = capfd.readouterr().err
    assert "expected captions without prompts of their own, got 'what is near ?'" in told and not server.loaded


def test_cached_features_are_refused_since_pictures_are_sent(start, tmp_path, capfd):
    pictures = [word for word in COMMON if word.startswith("data")]
    cached = f"data.features={tmp_path / 'features'}"
    pictures += [cached, "data.transform.size=28"]
    pictures += [f"data.transform.{name}=[0.5,0.5,0.5]" for name in ("mean", "std")]
    encoder = ["image_encoder._target_=capkit.checkpoint.loading.load_image_encoder", "~image_encoder.weights"]
    assert main(["prepare", *pictures, *encoder, f"image_encoder.ckpt={start / 'run'}"]) == 0
    with served(start) as server:
        assert main([*words(start, server, tmp_path / "run"), cached]) == 2
    assert "sends pictures, got cached features; set data.features=null" in capfd.readouterr().err


def test_a_rollout_server_belongs_to_fit_rl(capfd):
    assert main([*START, "rollout=vllm", "rollout.url=http://127.0.0.1:9/v1", "rollout.model=a"]) == 2
    assert "expected none for task=fit" in capfd.readouterr().err
    assert main(["fit_rl", "init_from=null", "reward=[cider]", *START, "rollout=vllm", "rollout.model=a"]) == 2
    assert "rollout.url" in capfd.readouterr().err
