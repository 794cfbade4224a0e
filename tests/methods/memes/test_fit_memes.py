"""`fit_memes` from the command line's `main`, on a handful of synthetic memes."""

import json

import pytest
from interrupted import assert_equal_weights, interrupt_and_resume
from PIL import Image

from capkit.checkpoint.loading import model_from_checkpoint, read_checkpoint
from capkit.cli import main
from capkit.methods.memes.model import Camu
from capkit.run.folder import RunFolder
from capkit.text.tokenizers import word_tokenizer

pytestmark = pytest.mark.integration

SMALL = ["trainer=cpu", "trainer.devices=1", "data.train.count=16", "data.val.count=8", "data.test.count=8"]


BEST = ["callback.checkpoints.monitor=val/auroc"]
STOPPING = "callback=[progress,watchdog,memory,guard,recorder,checkpoints,preemption,early_stopping]"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder") / "run"
    tiny = ["max_steps=2", "val_every=2", "data.batch_size=8"]
    assert main(["experiment=camu_encoder_sceneworld", *SMALL, *tiny, f"run_dir={folder}"]) == 0
    return folder


def command(encoder, folder, *words):
    run = ["experiment=camu_sceneworld", *SMALL, "data.batch_size=8", "micro_batch_size=4", "controls=4", *BEST]
    steps = ["max_steps=4", "val_every=2", "callback.checkpoints.every_steps=1", "callback.recorder.every_steps=1"]
    return [*run, *steps, f"model.encoder.ckpt={encoder}", f"run_dir={folder}", *words]


@pytest.fixture(scope="module")
def folder(encoder, tmp_path_factory):
    path = tmp_path_factory.mktemp("memes") / "run"
    assert main(command(encoder, path)) == 0
    return path


def test_a_run_leaves_numbers_curves_checkpoints_and_a_report(folder):
    run = RunFolder(folder)
    names = ("auroc", "accuracy", "macro_f1", "selection_accuracy", "without_caption")
    assert {f"{split}/{name}" for name in names for split in ("test", "test/untrained")} <= run.metrics().keys()
    assert run.metrics()["train/steps"] == 4 and run.metrics()["train/stopped_early"] == 0
    assert [row["step"] for row in run.rows() if "train/classification" in row] == [1, 2, 3, 4]
    assert [row["step"] for row in run.rows() if "val/auroc" in row] == [2, 4]
    assert {"best.ckpt", "step-00000004.ckpt"} <= {path.name for path in run.checkpoints.iterdir()}
    page = run.report.read_text()
    assert page.count("data:image/png;base64,") == 8 and " words" in page


def test_every_test_meme_has_a_line_that_says_what_was_read(folder):
    rows = [json.loads(line) for line in (folder / "predictions" / "test.jsonl").read_text().splitlines()]
    assert len(rows) == 8 and len({row["key"] for row in rows}) == 8
    right = [row["selected"] == row["metadata"]["informative"] for row in rows]
    assert RunFolder(folder).metrics()["test/selection_accuracy"] == sum(right) / 8
    assert all(row["scores"][row["selected"]] == max(row["scores"]) and 0 < row["probability"] < 1 for row in rows)


def test_the_same_command_again_trains_no_further(encoder, folder, capsys):
    assert main(command(encoder, folder)) == 0
    assert "all 4 steps were done before" in capsys.readouterr().out


def test_a_resumed_run_ends_as_the_uninterrupted_one(encoder, folder, tmp_path, monkeypatch):
    from capkit.methods.memes.module import MemeModule

    interrupt_and_resume(command(encoder, tmp_path / "run"), MemeModule, monkeypatch)
    assert_equal_weights(RunFolder(tmp_path / "run"), RunFolder(folder))


def test_a_run_that_no_longer_improves_stops_and_tests_its_best_checkpoint(encoder, tmp_path, capsys):
    stop = ["callback.early_stopping.patience=1", "callback.early_stopping.min_delta=2"]
    words = ["max_steps=40", "val_every=1", STOPPING, *stop]
    assert main(command(encoder, tmp_path / "run", *words)) == 0
    numbers = RunFolder(tmp_path / "run").metrics()
    assert numbers["train/steps"] == 2 and numbers["train/stopped_early"] == 1
    best = read_checkpoint(tmp_path / "run/checkpoints/best.ckpt")
    assert best["global_step"] in (1, 2)
    capsys.readouterr()
    assert main(command(encoder, tmp_path / "run", *words)) == 0
    assert "stopped early before" in capsys.readouterr().out


def test_the_classifier_is_built_again_from_its_checkpoint(folder):
    checkpoint = read_checkpoint(folder / "checkpoints" / "best.ckpt")
    model = model_from_checkpoint(checkpoint)
    assert isinstance(model, Camu)
    encoder = {name for name in checkpoint["state_dict"] if name.startswith("model.encoder.")}
    assert any("text_tower.model.layers.2" in name for name in encoder), "what was tuned"
    assert not [name for name in encoder if "image" in name or "layers.0." in name], "frozen"


def test_two_ranks_end_where_one_does(encoder, folder, tmp_path):
    assert main([*command(encoder, tmp_path / "run"), "trainer.devices=2", "micro_batch_size=2"]) == 0
    one, two = RunFolder(folder).metrics(), RunFolder(tmp_path / "run").metrics()
    for name in ("test/auroc", "test/accuracy", "test/selection_accuracy"):
        assert two[name] == pytest.approx(one[name], abs=1e-6)


def test_other_models_and_data_are_refused(encoder, tmp_path, capsys):
    words = command(encoder, tmp_path / "run")
    assert main([*words, "data=sceneworld", "model=sceneworld_clip"]) == 2
    assert "error:" in capsys.readouterr().err


def test_the_paper_s_recipe_runs_on_a_small_set_of_its_format(tmp_path):
    """A CLIP from a config in place of the hub's; some captions are empty, one meme has none."""
    texts = ["they are here", "look at this", "so it goes", "again"]
    word_tokenizer([*texts, "a dog", "a cat on a mat"]).save_pretrained(tmp_path / "tokenizer")
    rows = []
    for number in range(16):
        Image.new("RGB", (40, 30), (number * 10, 0, 0)).save(tmp_path / f"{number}.png")
        captions = {"ivl": "" if number % 4 == 0 else "a dog", "gemini": "a cat on a mat" if number % 8 else None}
        split = "train" if number < 8 else "val" if number < 12 else "test"
        meme = {"img": f"{number}.png", "text": texts[number % 4], "label": number % 2, "split": split}
        rows.append({**meme, **captions})
    (tmp_path / "memes.json").write_text(json.dumps(rows))
    data = [f"data.train.images={tmp_path}", f"data.train.annotations={tmp_path / 'memes.json'}"]
    parts = "{hidden_size:16,intermediate_size:32,num_hidden_layers:4,num_attention_heads:2,%s}"
    text, vision = parts % "max_position_embeddings:16", parts % "image_size:224,patch_size:56"
    clip = f"model.encoder.config={{model_type:clip,projection_dim:16,text_config:{text},vision_config:{vision}}}"
    model = ["model.encoder.name=null", f"model.encoder.tokenizer={tmp_path / 'tokenizer'}", clip]
    words = ["experiment=camu", "debug=tiny", "data.train.candidates=[ivl,gemini]", "data.num_workers=0", "trainer=cpu"]
    run = [f"run_dir={tmp_path / 'run'}", "trainer.devices=1", "model.fusion_width=16", "model.num_heads=2"]
    assert main([*words, *data, *model, *run]) == 0
    lines = (tmp_path / "run/predictions/test.jsonl").read_text().splitlines()
    assert [json.loads(line)["metadata"]["candidates"] for line in lines] == [["ivl", "gemini"]] * 4
    assert 0 <= RunFolder(tmp_path / "run").metrics()["test/auroc"] <= 1


def test_curated_memes_are_trained_on(encoder, tmp_path):
    """The whole way: candidate captions by `capkit curate`, then CAMU on the manifests that it left."""
    words = [
        "data=scene_memes",
        "data.train.count=8",
        "data.val.count=8",
        "data.test.count=8",
        "splits=[train,val,test]",
    ]
    steps = ["step=[locate_scene,meme_caption]", f"step.meme_caption.cache_dir={tmp_path / 'answers'}"]
    assert main(["curate", *words, *steps, f"out={tmp_path / 'memes'}"]) == 0
    manifests = [f"data.{split}.path={tmp_path / 'memes' / split}.jsonl" for split in ("train", "val", "test")]
    run = ["experiment=camu_sceneworld", "data=curated_memes", *manifests, "data.num_workers=0", "data.batch_size=8"]
    size = ["data.transform.size=32", "max_steps=1", "val_every=1", "controls=0", "trainer=cpu", "trainer.devices=1"]
    assert main([*run, *size, f"model.encoder.ckpt={encoder}", f"run_dir={tmp_path / 'run'}"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "run/predictions/test.jsonl").read_text().splitlines()]
    assert [len(row["candidates"]) for row in rows] == [3] * 8
    assert all(row["metadata"]["candidates"][2] == "memecaption/meme_v1/scene_vision" for row in rows)
