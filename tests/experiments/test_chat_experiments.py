"""The experiments of chat models: two steps of each with a tiny Qwen2.5-VL, and a stand-in for the reader."""

import json

import numpy as np
import pytest
from PIL import Image

from capkit.cli import main
from capkit.run.folder import RunFolder
from capkit.testing.stand_in_server import StandInServer

pytestmark = pytest.mark.nightly

TEXT = "{hidden_size:16,num_hidden_layers:1,num_attention_heads:2,num_key_value_heads:1,intermediate_size:24,"
TEXT += "max_position_embeddings:1200,rope_parameters:{rope_type:default,mrope_section:[1,1,2],rope_theta:10000.0}}"
VISION = "{depth:1,num_heads:2,patch_size:7,intermediate_size:24,hidden_size:16,out_hidden_size:16,"
VISION += "fullatt_block_indexes:[0]}"
TINY = [
    "model.name=null", f"model.config={{model_type:qwen2_5_vl,text_config:{TEXT},vision_config:{VISION}}}",
    "model.tokenizer=word", "model.image_size=28", "trainer=cpu", "trainer.devices=1", "data.num_workers=0",
    "debug=tiny", "decoding.max_length=6",
]  # fmt: skip
SENTENCES = ["a dog on a beach", "two people ride horses", "a plate of food", "a red bus"]


@pytest.fixture
def photos(tmp_path):
    names, splits = [], ["train"] * 6 + ["val"] * 2 + ["test"] * 2
    for number in range(len(splits)):
        pixels = np.random.default_rng(number).integers(0, 255, (30, 40, 3), dtype=np.uint8)
        names.append(f"{number}.jpg")
        Image.fromarray(pixels).save(tmp_path / names[-1])
    images = [
        {
            "filepath": "", "filename": name, "cocoid": number, "imgid": number, "split": split,
            "sentences": [{"raw": SENTENCES[number % 4], "tokens": SENTENCES[number % 4].split(), "sentid": number}],
        }
        for number, (name, split) in enumerate(zip(names, splits, strict=True))
    ]  # fmt: skip
    (tmp_path / "coco.json").write_text(json.dumps({"dataset": "coco", "images": images}))
    for split in ("train", "val", "test"):
        rows = [
            {"key": row["filename"], "image": row["filename"], "captions": [row["sentences"][0]["raw"]]}
            for row in images
            if row["split"] == split
        ]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def ran(words, photos):
    assert main([*words, *TINY, f"run_dir={photos / 'run'}"]) == 0
    run = RunFolder(photos / "run")
    assert run.metrics()["train/steps"] == 2
    return run


@pytest.mark.parametrize(
    ("experiment", "words"),
    [
        ("qwen_sft", ["data.max_length=30", "metric=[bleu]"]),
        ("qwen_grpo_caption", ["reward=[cider]", "metric=[bleu]", "objective.rollout.max_length=6"]),
    ],
)
def test_an_experiment_runs_two_steps(experiment, words, photos):
    data = [f"data.train.images={photos}", f"data.train.captions={photos / 'coco.json'}"]
    assert "test/bleu_4" in ran([f"experiment={experiment}", *data, *words], photos).metrics()


def test_caprl_runs_two_steps_against_a_stand_in_for_its_reader(photos):
    asked = [{"question": f"how {number}?", "choices": ["so", "not so"], "answer": "so"} for number in range(3)]
    questions = {f"{number}.jpg": asked for number in range(6)}
    (photos / "questions.json").write_text(json.dumps(questions))
    data = [f"data.{split}.path={photos / split}.jsonl" for split in ("train", "val", "test")]
    with StandInServer(lambda prompt: "The answer is A") as server:
        words = ["experiment=caprl", *data, f"question_set.path={photos / 'questions.json'}"]
        words += [f"reader.model.url={server.url}", "objective.rollout.max_length=6", "objective.num_samples=2"]
        run = ran(words, photos)
        body = server.requests[0]["body"]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("Qwen/Qwen2.5-3B-Instruct", 0.6, 10)
    rows = [row for row in run.current_rows() if "reward/question_answering" in row]
    assert rows and all(row["reward/question_answering_unread"] == 0 for row in rows)
