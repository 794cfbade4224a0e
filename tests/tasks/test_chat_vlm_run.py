"""A chat model by the command line: fit, go on, rewards, caption, export, and transformers alone on the export."""

import json
import subprocess
import sys

import pytest
import torch
from PIL import Image

from capkit.checkpoint.files import load_checkpoint
from capkit.cli import main
from capkit.run.folder import RunFolder

ROPE = "{rope_type:default,mrope_section:[1,1,2],rope_theta:10000.0}"
TEXT = "{hidden_size:16,num_hidden_layers:2,num_attention_heads:2,num_key_value_heads:1,intermediate_size:24,"
TEXT += f"max_position_embeddings:96,initializer_range:.3,rope_parameters:{ROPE}}}"
VISION = "{depth:2,num_heads:2,patch_size:7,intermediate_size:24,hidden_size:16,out_hidden_size:16,"
VISION += "initializer_range:.3,fullatt_block_indexes:[1]}"
ONE_CORE = ["trainer=cpu", "trainer.devices=1"]
SCENES = ["data=sceneworld", "data.train.count=16", "data.val.count=4", "data.test.count=4", "debug=tiny", *ONE_CORE]
MODEL = [
    "model=chat_vlm", "model.name=null", "model.tokenizer=word", "model.image_size=28", "model.max_length=48",
    f"model.config={{model_type:qwen2_5_vl,text_config:{TEXT},vision_config:{VISION}}}",
    "model.question=what is near the red circle ?",
]  # fmt: skip
TINY = [
    *SCENES, *MODEL, "metric=[bleu]", "max_steps=4", "val_every=2", "optimizer.lr=1e-2", "scheduler=constant",
    "decoding.max_length=8", "callback.checkpoints.every_steps=2", "callback.recorder.every_steps=1",
]  # fmt: skip
ADAPTED = ["model.lora={rank:2}", "model.freeze=[vision,projector]"]
# What a user has without capkit: plain transformers on the exported folder and a picture of its size.
ALONE = """
import json, sys
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
folder, question, *pictures = sys.argv[1:]
processor, model = (cls.from_pretrained(folder) for cls in (AutoProcessor, AutoModelForImageTextToText))
texts, settings = [], {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
for picture in pictures:
    content = [{"type": "image", "image": Image.open(picture)}, {"type": "text", "text": question}]
    inputs = processor.apply_chat_template([{"role": "user", "content": content}], **settings)
    out = model.eval().generate(**inputs, max_new_tokens=8, do_sample=False)
    texts.append(processor.tokenizer.decode(out[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True).strip())
print(json.dumps([texts, "capkit" in sys.modules]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("chat")
    assert main([*TINY, *ADAPTED, f"run_dir={path / 'run'}"]) == 0
    (path / "photos").mkdir()
    for number, color in enumerate(((200, 30, 30), (20, 90, 220))):
        picture = Image.effect_noise((28, 28), 120).convert("RGB")
        Image.blend(picture, Image.new("RGB", (28, 28), color), 0.5).save(path / f"photos/{number}.png")
    return path


def weights(run):
    return load_checkpoint(sorted((run / "checkpoints").glob("*4*"))[-1])["state_dict"]


@pytest.mark.nightly
def test_a_run_that_went_on_from_a_checkpoint_ends_as_one_that_was_left_alone(folder):
    for steps in ("max_steps=2", "max_steps=4"):
        assert main([*TINY, *ADAPTED, f"run_dir={folder / 'stopped'}", steps]) == 0
    first, second = weights(folder / "stopped"), weights(folder / "run")
    assert first and all("lora_" in name for name in first)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def captions(folder, ckpt, name):
    assert main(["caption", f"ckpt={ckpt}", f"images={folder / 'photos'}", f"out={folder / name}", *ONE_CORE]) == 0
    return [json.loads(line)["caption"] for line in (folder / name).read_text().splitlines()]


@pytest.mark.integration
def test_rewards_go_on_from_it_and_an_export_writes_the_same_with_transformers_alone(folder):
    rl, out = folder / "rl", folder / "exported"
    words = ["fit_rl", f"init_from={folder / 'run'}", "objective=grpo", "objective.num_samples=2", "reward=[cider]"]
    words += ["max_steps=2", "optimizer.lr=1e-2", "decoding.max_length=8", "val_every=2", *SCENES]
    assert main([*words, f"run_dir={rl}"]) == 0
    assert RunFolder(rl).metrics()["test/bleu_4"] >= 0
    assert main(["export", f"ckpt={rl}", f"out={out}"]) == 0
    assert (out / "adapters/model/adapter_model.safetensors").is_file()
    written = captions(folder, rl, "of_run.jsonl")
    assert written == captions(folder, out, "of_export.jsonl")
    pictures = map(str, sorted((folder / "photos").iterdir()))
    command = [sys.executable, "-c", ALONE, str(out), "what is near the red circle ?", *pictures]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [written, False]


@pytest.mark.nightly
@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize("objective", ["likelihood", "grpo"])
def test_two_processes_under_zero_take_the_steps_of_one(stage, objective, folder, tmp_path):
    words = [word for word in TINY if word not in ONE_CORE]
    if objective == "grpo":
        words += [
            "task=fit_rl",
            "init_from=null",
            "objective=grpo",
            "objective.num_samples=2",
            "reward=[cider]",
            *ADAPTED,
        ]
    runs = {}
    for name, trainer in (("one", ONE_CORE), ("two", [f"trainer=deepspeed_{stage}_cpu", "trainer.devices=2"])):
        assert main([*words, *trainer, f"run_dir={tmp_path / name}"]) == 0
        runs[name] = weights(tmp_path / name)
    for name, value in runs["one"].items():
        torch.testing.assert_close(value, runs["two"][name], atol=2e-4, rtol=1e-3)
