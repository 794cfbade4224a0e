"""Commands of the documentation run whole, as written, on a few generated pictures, at night; the others have a reason.

What pages name lies in the reader's folder: photos, captions, and a small trained run under each name of a run.
"""

import json
import os
import re
import shutil
import sys

import pytest
from doc_blocks import SHELL, commands, words_for_capkit, write_files
from PIL import Image

from capkit.cli import main
from capkit.sceneworld.language.captions import references
from capkit.sceneworld.world.render import render
from capkit.sceneworld.world.scene import WorldOptions, make_scene

FEW = ["data.train.count=12", "data.val.count=4", "data.test.count=6"]
TINY = ["debug=tiny", *FEW, "max_steps=2", "val_every=2", "trainer=cpu", "trainer.devices=1", "decoding.max_length=5"]
FOLDER = [word for word in TINY if ".count" not in word]
EVALUATED = ["eval_limit=3", "trainer=cpu", "trainer.devices=1"]
DRY = ["dry_run=true", "trainer=cpu", "trainer.devices=1"]
# How each command that runs begins, and the words that make it small.
RUNS = {
    "caption ckpt=RUN images=photos out=captions.jsonl attention=true": [],
    "export ckpt=RUN out=DIR dtype": [],
    "fit model.conditions={length:length} data.conditions={length:length} data.condition_dropout": TINY,
    "fit init_from=runs/plain": [*TINY, "run_dir=runs/length-2"],
    "--cfg model=clip_prefix": [],
    "show experiment=clip_reward_sceneworld": [],
    "dry_run=true": DRY[1:],
    "--config-dir my_configs model=mine": DRY,
    "evaluate ckpt=runs/mine metric=[cider]": [*EVALUATED, "run_dir=runs/mine-evaluated"],
    "curate step=[mine_scene_regions]": FEW,
    "curate step=[score_filter]": FEW,
    "curate step=[gather_findings]": FEW,
    "curate experiment=knowada_sceneworld": ["data.train.count=4"],
    "curate experiment=mlbcap_sceneworld": ["data.train.count=4"],
    "curate experiment=caprl_questions_sceneworld": ["data.train.count=4"],
    "data=folder data.train.images=my photos": [*FOLDER, "data.val.val=0.2", "run_dir=runs/own"],
    "caption ckpt=runs/x": ["out=x.jsonl"],
    "inspect data=folder": [],
    "data.captions_of=regions": [*TINY, "run_dir=runs/regions"],
    "score predictions=results.json": [],
    "model=blip model.name=null": DRY,
    "model=encoder_decoder model.width=192": DRY,
    "plan ": [],
    "fit_rl init_from=RUN reward=[fact_f1]": [*TINY, "objective.num_samples=2", "run_dir=runs/fact"],
    "evaluate ckpt=RUN metric=[nli_scenes,length]": [*EVALUATED, "run_dir=runs/nli"],
    "evaluate ckpt=RUN decoding=rerank": [*EVALUATED, "run_dir=runs/reranked"],
    "task=fit_rl init_from=runs/mle reward=[cider]": [*TINY, "objective.num_samples=2", "run_dir=runs/rl"],
    "evaluate ckpt=RUN data=sceneworld_out_of_domain": [*EVALUATED, "run_dir=runs/out-of-domain"],
}
# Why another command is not run, and what in its words says so. They are checked all the same (test_doc_blocks.py).
REASONS = {
    "the reader adds words of their own": [r"\.\.\."],
    "it ends with an error, which test_doc_blocks.py sees": [
        "lerning_rate", "^batch_size=32$", "encoder_decodr", "lr=(fast|nan)$", "^images=photos$", "/checkpoint images",
        "fold_size=8$", "num_beams=1$",
    ],
    "a server of language models": ["server", "https?://", "URL"],
    "GPUs, a cluster, or several processes": ["deepspeed", "trainer=(ddp|gpu)", "launcher=slurm", "gpus_per_node"],
    "weights of a hub, or of another package": [
        "openai/", "model=coca ", "HuggingFaceTB", "neuralmind", "PekingU", "=gpt2", "text_lm=hf", "chat_vlm",
        r"reward=\[clip_score\]", "model_type:gpt2",
        "clip_vit_b32", "coco_clipcap", r"expert=\[ocr", "smollm2", "tag_words", "align_filter", "MINILM",
    ],
    "a data set that people fetch, or files that they have": [
        "data=(coco|conceptual_captions|nocaps|imagecode|vqa|stamps|emoji|flickr|memes|curated_memes|regions|shards)",
        "winoground", "docci", "_stamps", "experiment=stamps_", "battles=", "laion",
        "dataset_coco", "data=manifest", "data=answers",
        r"data\.(train|test)\.(path|images|root)=(figures|images|pictures|DIR|IMAGES|example_data|train|data)",
        "=classes.txt",
    ],
    "minutes of training on SceneWorld, which tests/effects do": [
        r"^experiment=\w+_sceneworld", "init_from=(GENERIC|runs/generic|runs/views)",
        "data=sceneworld_(flawed|aligned|mistaken_views)", "^curate experiment=(fusecap|scalecap|embodied)_sceneworld",
        "max_steps=3600",
        "ckpt=runs/(noc|flexcap|cfg|sr|clip|writer|fuser)",
    ],
    "tests of the task, or the README's, run the same on tiny data": [
        "^mine ", "^bags ", "curriculum=bags", "^evaluate_encoder ", "^prepare ", "^frontier ", "^cross ", "^demo ",
        "^arena ", "^export ", "^evaluate ckpt=DIR", "ckpt=runs/length", "capsfusion_scene",
        "model_type:swin",
        "^fit_preferences ", "sweeper=optuna", "^compare ", r"metric=\[(arena|caption_qa_scenes)\]",
        r"conditions\.box", "evaluated=", "push_to", "JUDGE", r"model\.lora\.lm", "question_answering",
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def heard(tmp_path_factory):
    """Words for capkit of each command of docs, once."""
    found = {}
    for block, words in commands(SHELL, tmp_path_factory.mktemp("empty")):
        given = words_for_capkit(words)
        if given is not None and block.page not in ("README.md", "docs/extending.md"):
            found.setdefault(" ".join(given), given)
    return found


def test_every_command_runs_or_has_a_reason(heard):
    starts = tuple(RUNS)
    why = [re.compile(words) for reason in REASONS.values() for words in reason]
    assert [line for line in heard if not line.startswith(starts) and not any(w.search(line) for w in why)] == []
    assert [start for start in RUNS if not any(line.startswith(start) for line in heard)] == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What a reader has who has trained a run: it stands under every name of a run."""
    folder = tmp_path_factory.mktemp("reader")
    here = os.getcwd()
    os.chdir(folder)
    try:
        assert main([*TINY, "run_dir=trained", "max_steps=4"]) == 0
    finally:
        os.chdir(here)
    (folder / "runs").mkdir()
    for name in ("RUN", "runs/mine", "runs/plain", "runs/x", "runs/mle"):
        (folder / name).symlink_to(folder / "trained")
    for photos in ("photos", "my photos", "my_photos"):
        (folder / photos).mkdir()
        rows = ["file,caption"]
        for index in range(20):
            scene = make_scene(WorldOptions(), 7, "test", index)
            Image.fromarray(render(scene, 64)).save(folder / photos / f"{index}.png")
            rows += [f'{index}.png,"{text}"' for text in references(scene)[:2]]
    for name in ("captions.csv", "my_captions.csv"):
        (folder / name).write_text("\n".join(rows) + "\n")
    predictions = folder / "trained/predictions"
    for name in ("a", "b", "c", "results"):
        shutil.copy(predictions / ("test_untrained.json" if name == "b" else "test.json"), folder / f"{name}.json")
    for name in ("captions", "captions_val2014"):
        shutil.copy(predictions / "test_references.json", folder / f"{name}.json")
    write_files(folder)
    return folder


@pytest.mark.nightly
@pytest.mark.unchecked
@pytest.mark.parametrize("start", RUNS)
def test_a_command_runs_as_written(start, heard, folder, monkeypatch, capfd):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for line, words in heard.items():
        if line.startswith(start):
            if "out=DIR" in words:
                shutil.rmtree("DIR", ignore_errors=True)
            assert main([*words, *RUNS[start]]) == 0, f"{line}: {capfd.readouterr().err}"
    if start.startswith("inspect"):
        assert json.loads((folder / "runs/inspected/inspect.json").read_text())["splits"]
