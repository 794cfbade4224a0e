"""Every experiment trains two steps, and the COCO recipes plan a run with their real sizes, without a hub."""

import json

import numpy as np
import pytest
from PIL import Image

from capkit.cli import main
from capkit.config.locations import config_dir
from capkit.run_folder import RunFolder

SENTENCES = ["a dog on a beach", "two people ride horses", "a plate of food", "a red bus", "a cat asleep on a chair"]
GPT2 = "model.lm={model_type:gpt2,n_embd:32,n_layer:2,n_head:2}"
CLIP = (
    "model.image_encoder.config={model_type:clip_vision_model,hidden_size:16,num_hidden_layers:1,"
    "num_attention_heads:2,intermediate_size:24,projection_dim:16,image_size:224,patch_size:32}"
)
SMALL = {
    "coco_clipcap": ["model.tokenizer=word", GPT2, "model.image_encoder.name=null", CLIP],
    "coco_transformer": ["model.image_encoder.name=resnet18", "model.image_encoder.weights=null", "model.width=32"],
}
FULL = {
    "coco_clipcap": [
        "model.tokenizer=word", "model.lm={model_type:gpt2}", "model.image_encoder.name=null",
        "model.image_encoder.config={model_type:clip_vision_model,patch_size:32,projection_dim:512}",
    ],
    "coco_transformer": ["model.image_encoder.weights=null"],
}  # fmt: skip


@pytest.fixture(scope="module")
def karpathy(tmp_path_factory):
    """Twelve JPEG files with a dataset_coco.json, as Karpathy's download has them."""
    root = tmp_path_factory.mktemp("coco set")
    splits = ["train"] * 6 + ["restval"] * 2 + ["val"] * 2 + ["test"] * 2
    images = []
    for number, split in enumerate(splits):
        folder = "val2014" if split != "train" else "train2014"
        (root / folder).mkdir(exist_ok=True)
        name = f"COCO_{folder}_{number:012d}.jpg"
        noise = np.random.default_rng(number).integers(0, 255, (60 + number, 80, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((160, 120)).save(root / folder / name, quality=85)
        sentences = [{"raw": f"{s} {number % 3}.", "tokens": s.split(), "sentid": i} for i, s in enumerate(SENTENCES)]
        row = {"filepath": folder, "filename": name, "cocoid": number, "imgid": number, "split": split}
        images.append({**row, "sentences": sentences})
    (root / "dataset_coco.json").write_text(json.dumps({"dataset": "coco", "images": images}))
    return root


def words(experiment, karpathy, folder):
    inputs = [f"data.train.images={karpathy}", f"data.train.captions={karpathy / 'dataset_coco.json'}"]
    cpu = ["trainer=cpu", "trainer.devices=1", "data.num_workers=0"]
    return [f"experiment={experiment}", *inputs, *cpu, f"run_dir={folder / 'run'}"]


@pytest.mark.parametrize("experiment", SMALL)
def test_a_coco_recipe_runs_two_steps_on_a_small_set_of_its_format(experiment, karpathy, tmp_path):
    tiny = ["debug=tiny", "decoding.max_length=5", "decoding.num_beams=2"]
    assert main([*words(experiment, karpathy, tmp_path), *tiny, *SMALL[experiment]]) == 0
    run = RunFolder(tmp_path / "run")
    assert run.metrics()["train/steps"] == 2 and "test/cider" in run.metrics()
    assert len(json.loads((run.predictions / "test.json").read_text())) == 2


@pytest.mark.parametrize("experiment", FULL)
def test_a_coco_recipe_plans_a_run_with_its_real_sizes(experiment, karpathy, tmp_path, capsys):
    assert main([*words(experiment, karpathy, tmp_path), "dry_run=true", *FULL[experiment]]) == 0
    printed = capsys.readouterr().out
    # 8 training images (train and restval): one step an epoch.
    expected = {
        "coco_clipcap": ["batch   40 images a step", "steps   10 = 10.00 epochs", "lm", "87,849,216"],
        "coco_transformer": ["10 images a step = 1 ranks x 1 micro-batches of 10, 5 captions an image", "23,508,032"],
    }
    for text in expected[experiment]:
        assert text in printed


def test_no_experiment_is_left_out():
    shipped = {path.stem for path in (config_dir() / "experiment").glob("*.yaml")}
    assert shipped == {*SMALL, "stamps_mle"}  # stamps_mle runs in tests/tasks/test_stamps_run.py
