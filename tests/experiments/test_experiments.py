"""Every experiment trains two steps, and the COCO recipes plan a run with their real sizes, without a hub."""

import json

import numpy as np
import pytest
from PIL import Image

from capkit.cli import main
from capkit.config.locations import config_dir
from capkit.run.folder import RunFolder

pytestmark = pytest.mark.integration

SENTENCES = ["a dog on a beach", "two people ride horses", "a plate of food", "a red bus", "a cat asleep on a chair"]
GPT2 = "model.lm={model_type:gpt2,n_embd:32,n_layer:2,n_head:2}"
CLIP = (
    "model.image_encoder.config={model_type:clip_vision_model,hidden_size:16,num_hidden_layers:1,"
    "num_attention_heads:2,intermediate_size:24,projection_dim:16,image_size:224,patch_size:32}"
)
SMALL = {
    "coco_clipcap": ["model.tokenizer=word", GPT2, "model.image_encoder.name=null", CLIP],
    "coco_transformer": ["model.image_encoder.name=resnet18", "model.image_encoder.weights=null", "model.width=32"],
    "clip_reward_mle": [
        "model.image_encoder.weights=null",
        "model.image_encoder.layers=[1,1,1,1]",
        "model.image_encoder.stem=4",
        "model.width=32",
    ],
}
FULL = {
    "coco_clipcap": [
        "model.tokenizer=word", "model.lm={model_type:gpt2}", "model.image_encoder.name=null",
        "model.image_encoder.config={model_type:clip_vision_model,patch_size:32,projection_dim:512}",
    ],
    "coco_transformer": ["model.image_encoder.weights=null"],
    "clip_reward_mle": ["model.image_encoder.weights=null"],
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
    # CLIP's RN50 has 38,316,896 weights, of which attention pooling has 14,789,632 + 50 x 2,048.
    expected = {
        "clip_reward_mle": ["200 images a step = 1 ranks x 4 micro-batches of 50, 5 captions an image", "23,527,264"],
        "coco_clipcap": ["10 of 40 images; 10.00 epochs of 1", "lm", "87,849,216"],
        "coco_transformer": ["10 images a step = 1 ranks x 1 micro-batches of 10, 5 captions an image", "23,508,032"],
    }
    for text in expected[experiment]:
        assert text in printed


COUNTS = ["data.train.count=16", "data.val.count=8", "data.test.count=12"]
SMALL_COUNTS = ["data.train.source.count=16", "data.val.source.count=8", "data.test.source.count=12"]
ENCODERS = {
    "clip_pretrain_sceneworld": ["evaluator=[retrieval]", *COUNTS],
    "align_pretrain_sceneworld": ["data.train.source.count=16", *COUNTS[1:]],
    "sentence_gru_sceneworld": ["evaluator=[retrieval]", *COUNTS],
    "text_matching_sceneworld": COUNTS,
    "grammar_clip_sceneworld": COUNTS,
    "dreamlip_sceneworld": ["evaluator=[retrieval]", "data.train.source.count=16", *COUNTS[1:]],
    "judge_sceneworld": SMALL_COUNTS,
    "judge_grammar_sceneworld": ["evaluator=[grammar,retrieval]", *SMALL_COUNTS],
}


@pytest.mark.parametrize("experiment", ENCODERS)
def test_a_dual_encoder_trains_two_steps_on_sceneworld(experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny = ["debug=tiny", "trainer=cpu", "run_dir=run", "evaluator.retrieval.fold_size=null"]
    assert main([f"experiment={experiment}", *tiny, *ENCODERS[experiment]]) == 0
    numbers = RunFolder("run").metrics()
    assert numbers["train/steps"] == 2 and numbers["test/retrieval_images"] == 12


CAPTIONERS = ("generic_mle_sceneworld", "hallucinating_mle_sceneworld")


@pytest.mark.parametrize("experiment", CAPTIONERS)
def test_a_captioner_trains_two_steps_on_generic_captions(experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["debug=tiny", "trainer=cpu", "run_dir=run", *SMALL_COUNTS]
    assert main([f"experiment={experiment}", *words]) == 0
    numbers = RunFolder("run").metrics()
    assert numbers["train/steps"] == 2 and 0 <= numbers["test/color_recall"] <= 1


# Real sizes; tokenizers are made here and weights random, so that no hub is asked. A text of the plan tells each.
RANDOM = ["model.image_tower.weights=null"]
CLIP = ["model.name=null", "model.config={model_type: clip, projection_dim: 512}", "model.tokenizer=word"]
PLANS = {
    "clip_pretrain": (["model.tokenizer=word"], ["1 ranks x 32 micro-batches of 1024", "87,456,000"]),
    "align_pretrain": (["model.tokenizer=word"], ["1 ranks x 32 micro-batches of 512", "62,143,440"]),
    "grammar_clip": (CLIP, ["batch   1600 images a step", "263,168"]),  # the head: 512 x 512 + 512 x 2
    "grammar_clip_joint": (CLIP, ["images a step"]),
    "lora_text_encoder": (
        [*CLIP, "data.features=null"],
        ["4 micro-batches of 1024", "196,608"],
    ),
    "sentence_gru": (["model.image_tower.encoder.weights=null"], ["batch   32 images a step", "58,143,808"]),
    "text_matching": (RANDOM, ["batch   128 images a step", "14,714,688"]),
}


PLANNED_IN_CI = ("clip_pretrain", "grammar_clip", "lora_text_encoder")  # one of each kind of model


@pytest.mark.parametrize(
    "experiment", [pytest.param(name, marks=[pytest.mark.nightly] * (name not in PLANNED_IN_CI)) for name in PLANS]
)
def test_a_dual_encoder_plans_a_run_with_its_real_sizes(experiment, karpathy, tmp_path, capsys):
    changes, texts = PLANS[experiment]
    inputs = words(experiment, karpathy, tmp_path)
    if experiment in ("clip_pretrain", "align_pretrain"):
        inputs = [word for word in inputs if not word.startswith("data.train.")]
        inputs += [f"data.{split}.path={manifest(karpathy)}" for split in ("train", "val", "test")]
    assert main([*inputs, "dry_run=true", *changes]) == 0
    printed = capsys.readouterr().out
    for text in texts:
        assert text in printed, printed


def manifest(karpathy):
    """The same pictures as JSON lines."""
    rows = json.loads((karpathy / "dataset_coco.json").read_text())["images"]
    lines = [
        {"key": str(row["cocoid"]), "image": f"{row['filepath']}/{row['filename']}", "captions": ["a dog on a beach"]}
        for row in rows
    ]
    path = karpathy / "pairs.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_no_experiment_is_left_out():
    elsewhere = {
        "stamps_mle", "stamps_lora_text", "grammar_clip_stamps", "stamps_clip_reward", "stamps_sr",
        "stamps_sr_shuffled", "cfg_stamps", "captioner_ptbr_stamps", "stamps_qa", "stamps_qa_shuffled",
        "stamps_dreamlip", "stamps_rater", "stamps_preferences",  # tests/tasks/test_stamps_run.py
        "discritune", "discritune_whitened", "ndlb_mle", "ndlb_sr", "ndlb_sr_cider",
        "ndlb_bagcurri", "discritune_conceptual",
        "discritune_blip",  # tests/experiments/test_self_retrieval_experiments.py
        "discritune_whitened_sceneworld", "ndlb_mle_sceneworld", "ndlb_sr_sceneworld",
        "ndlb_sr_cider_sceneworld",  # tests/experiments/test_rl_experiments.py
        "camu", "camu_sceneworld", "camu_encoder_sceneworld",  # tests/methods/memes/test_fit_memes.py
        "cider_scst", "cider_nsc", "cider_scst_sceneworld", "cider_nsc_sceneworld", "clip_reward_sceneworld",
        "clip_reward_grammar_sceneworld", "clip_reward_shuffled_sceneworld",
        "mocha_sceneworld", "mocha_shuffled_sceneworld", "discritune_sceneworld", "discritune_shuffled_sceneworld",
        "ndlb_bagcurri_sceneworld",  # tests/experiments/test_rl_experiments.py
        "noc_sceneworld",  # tests/effects/test_noc.py
        "caprl", "qwen_sft", "qwen_grpo_caption",  # tests/experiments/test_chat_experiments.py
        "caprl_sceneworld", "caprl_shuffled_sceneworld",  # tests/effects/test_caprl.py
        "feedquill_dpo_sceneworld",  # tests/effects/test_preferences.py
        "feedquill_rater_sceneworld", "feedquill_sceneworld", "feedquill_verifier_sceneworld",
        "dico_sceneworld",  # tests/experiments/test_rl_experiments.py
        "dico",  # there too
        "feedquill", "feedquill_rater", "feedquill_dpo",
        "feedquill_verifier",  # tests/experiments/test_feedquill_experiments.py
        "compress_align_rater_sceneworld", "compress_align_sceneworld", "mlbcap_filter_rater_sceneworld",
        "mlbcap_filter_sceneworld",  # tests/effects/test_rater_effects.py
        "compress_align", "mlbcap_filter",  # tests/experiments/test_rater_experiments.py
        "compress_align_rater", "mlbcap_filter_rater",  # there too
        "fusecap", "fusecap_sceneworld", "sync_sceneworld",  # tests/experiments/test_curate_experiments.py
        "scalecap", "scalecap_sceneworld", "habit_mle_sceneworld",  # tests/experiments/test_scalecap_experiments.py
        "sync",  # tests/curation/steps/test_reassign_images.py
        "knowada", "knowada_sceneworld", "mlbcap", "mlbcap_sceneworld",  # tests/experiments/test_judged_experiments.py
        "caparena_auto",  # tests/tasks/test_arena_task.py
        "decapbench", "dnli", "open_chair",  # tests/experiments/test_claims_experiments.py
        "cnm", "cnm_scst", "cvlnm", "cvlnm_scst", "cnm_sceneworld", "cnm_scst_sceneworld", "cvlnm_sceneworld",
        "cvlnm_scst_sceneworld",  # tests/experiments/test_modular_experiments.py
        "caption_qa", "prism",  # tests/experiments/test_reader_experiments.py
        "caprl_questions", "caprl_questions_sceneworld",
        "caption_qa_questions",  # tests/experiments/test_question_experiments.py
        "dreamlip", "dreamlip_recaption",  # tests/experiments/test_dreamlip_experiments.py
        "promptcap_sceneworld",  # tests/effects/test_promptcap.py
        "promptcap",  # its models are on a hub: composed by tests/config/test_configs.py
        "capsfusion", "capsfusion_sceneworld",  # tests/experiments/test_curate_experiments.py
        "capsfusion_writer",  # its model is on a hub: composed by tests/config/test_configs.py
        "embodied", "embodied_sceneworld", "embodied_captioner",  # tests/experiments/test_view_experiments.py
        "embodied_captioner_sceneworld",  # there too
        "capsfusion_writer_sceneworld",  # tests/effects/test_text_writer.py
        "fusecap_writer", "fusecap_captioner",  # their models are on a hub: composed by tests/config/test_configs.py
        "fusecap_writer_sceneworld",  # tests/effects/test_fusecap_writer.py
        "flexcap_sceneworld",  # tests/effects/test_flexcap.py
        "cfg_sceneworld",  # tests/effects/test_guidance.py
        "captioner_ptbr",  # its models are on a hub: composed by tests/config/test_configs.py
        "captioner_ptbr_sceneworld",  # tests/effects/test_language.py
        "cfg", "noc", "flexcap", "clip_reward",
        "clip_reward_grammar", "clip_cider",  # their models are on a hub: composed by
        "mocha",  # tests/config/test_configs.py
        "mocha_bert_score_sceneworld",  # tests/effects/test_mocha.py
        "clip_reward_cider",  # tests/experiments/test_rl_experiments.py
        "clip_reward_degenerate_sceneworld", "clip_reward_degenerate_grammar_sceneworld",
        "clip_reward_degenerate_shuffled_sceneworld",  # tests/effects/test_rl_grammar_reward.py
    }  # fmt: skip
    shipped = {path.stem for path in (config_dir() / "experiment").glob("*.yaml")}
    assert shipped == {*SMALL, *ENCODERS, *CAPTIONERS, *PLANS, *elsewhere}
