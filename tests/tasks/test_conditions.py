"""`fit`, `evaluate`, `caption`, `export` and `fit_rl` of a captioner with conditions, by the command line."""

import json

import numpy as np
import pytest
import tiny_fit_run
import torch
from PIL import Image
from tiny_fit_run import caches

from benchmarks.starts import folder_of
from capkit.checkpoint.files import load_checkpoint
from capkit.checkpoint.loading import load_captioner
from capkit.cli import main
from capkit.run.folder import RunFolder
from capkit.types import CaptionBatch

TINY = [*tiny_fit_run.TINY, "max_steps=2"]
CONDITIONS = ["model.conditions={length:{kind:length,longest:40},box:box}", "data.conditions={length:length,box:box}"]
CONDITIONS += ["data.condition_dropout=0.5", "data.captions_per_image=2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("conditions")
    assert main([*TINY, *CONDITIONS, *caches(path), f"run_dir={path / 'run'}", "conditions.length=3"]) == 0
    (path / "photos").mkdir()
    for name in ("a", "b"):
        pixels = np.random.default_rng(ord(name)).integers(0, 255, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path / f"photos/{name}.png")
    return path


def evaluate(folder, name, *words):
    tiny = [word for word in TINY if not word.startswith("model.")]  # the model is the checkpoint's
    command = ["evaluate", *tiny, *caches(folder), f"ckpt={folder / 'run'}", f"run_dir={folder / name}", *words]
    assert main(command) == 0
    return RunFolder(folder / name)


@pytest.mark.integration
def test_evaluate_under_the_value_of_the_run_gives_its_numbers(folder):
    trained = RunFolder(folder / "run").metrics()
    evaluated = evaluate(folder, "eval", "conditions.length=3").metrics()
    names = [name for name in evaluated if name.count("/") == 1]
    assert names and all(evaluated[name] == trained[name] for name in names)


@pytest.mark.integration
def test_evaluate_writes_a_caption_under_each_value_of_the_data(folder):
    numbers = evaluate(folder, "of_data", "conditions.length=data", "data.captions_per_image=1").metrics()
    assert numbers["test/length"] >= 0


@pytest.mark.integration
def test_caption_writes_under_what_is_asked_for_and_goes_on_with_nothing_else(folder, tmp_path, capsys):
    command = ["caption", f"ckpt={folder / 'run'}", f"images={folder / 'photos'}", f"out={tmp_path / 'out.jsonl'}"]
    assert main([*command, "decoding.max_length=6", "conditions.length=4", "conditions.box=[0,.1,.5,1]"]) == 0
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 2
    about = json.loads((tmp_path / "out.jsonl.about.json").read_text())
    assert about["conditions"] == {"length": 4.0, "box": [0.0, 0.1, 0.5, 1.0]}
    assert main([*command, "decoding.max_length=6", "conditions.length=5", "conditions.box=[0,.1,.5,1]"]) == 2
    assert "conditions.length is 4.0, wanted 5.0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "words", "said"),
    [
        ("caption", "conditions.lenght=4", "expected one of length, box"),
        ("caption", "conditions.length=41", "expected 1 to 40 words, as in training, got 41"),
        ("caption", "conditions.box=[.5,0,.5,1]", "expected a box x0,y0,x1,y1"),
        ("evaluate", "conditions.box=[0,0,1,1.5]", "expected a box x0,y0,x1,y1"),
        ("evaluate", "conditions.length=data", "expected data that gives length"),
    ],
)
@pytest.mark.integration
def test_what_cannot_be_asked_for_is_told_before_any_weights_load(folder, task, words, said, monkeypatch, capsys):
    def read(*_):
        raise AssertionError("weights were read")

    for module in ("capkit.tasks.caption", "capkit.train.evaluate_checkpoint"):
        monkeypatch.setattr(f"{module}.load_captioner", read)
    command = [task, f"ckpt={folder / 'run'}", words]
    command += [f"images={folder / 'photos'}"] if task == "caption" else ["data.conditions=null"]
    assert main(command) == 2
    assert said in capsys.readouterr().err


@pytest.fixture
def no_process(monkeypatch):
    def start(*_):
        raise AssertionError("processes were started")

    monkeypatch.setattr("capkit.train.session.start_ranks", start)


@pytest.mark.parametrize(
    ("task", "words", "said"),
    [
        ("fit", "conditions.length=41", "expected 1 to 40 words, as in training, got 41"),
        ("fit", "model.conditions.length.kind=lengths", "model.conditions.length: expected a kind (bins, length, box)"),
        ("fit_rl", "conditions.length=41", "expected 1 to 40 words, as in training, got 41"),
        ("frontier", "conditions.lenght=4", "expected one of length, box"),
        ("frontier with another run", "conditions.length=4", "this captioner was trained without any"),
        ("cross", "conditions.box=[0,0,1,1.5]", "expected a box x0,y0,x1,y1"),
    ],
)
@pytest.mark.integration
def test_what_cannot_be_asked_for_is_told_before_processes_are_started(folder, task, words, said, no_process, capsys):
    run = folder / "run"
    command = {
        "fit": [*TINY, *CONDITIONS],
        "fit_rl": [f"init_from={run}", "reward=[length]", "data.captions_per_image=1"],
        "frontier": [f"ckpt={run}"],
        "frontier with another run": [f"ckpt={run}", f"runs=[{folder_of('generic', 0)}]"],
        "cross": [f"runs=[{run}]", "data=[sceneworld]"],
    }[task]
    assert main([task.split()[0], *command, words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["blip", "git"])
def test_a_kind_of_captioner_that_takes_none_is_told_before_processes_are_started(name, no_process, capsys):
    words = ["model=blip", "~model.name", f"+model.config.model_type={name}", "model.tokenizer=word"]
    words += ["recommended.image_size=32", "debug=tiny", *CONDITIONS]
    assert main(["fit", *words]) == 2
    assert f"got {name}, which takes none: " in capsys.readouterr().err


def test_a_language_model_that_counts_its_own_positions_is_told_before_processes_are_started(no_process, capsys):
    words = ["model=clip_prefix", "model.lm={model_type:bloom}", "model.tokenizer=word", "debug=tiny", *CONDITIONS]
    assert main(["fit", *words]) == 2
    assert "bloom counts its own" in capsys.readouterr().err


@pytest.mark.integration
def test_an_export_and_a_resumed_run_keep_the_conditions(folder, tmp_path):
    assert main(["export", f"ckpt={folder / 'run'}", f"out={tmp_path / 'export'}"]) == 0
    models = [load_captioner(str(path))[0] for path in (folder / "run", tmp_path / "export")]
    batch = CaptionBatch(["a"], torch.randn(1, 3, 64, 64), conditions={"length": torch.tensor([4.0])})
    own, exported = (model.encode(batch).conditions for model in models)
    assert torch.equal(own, exported) and own.shape == (1, 1, 2, 32)
    command = [*TINY, *CONDITIONS, *caches(folder), f"run_dir={folder / 'run'}", "conditions.length=3"]
    assert main([*command, "max_steps=3"]) == 0
    state = load_checkpoint(folder / "run/checkpoints/step-00000003.ckpt")["state_dict"]
    assert {name for name in state if "conditions" in name} == {
        "model.conditions.parts.length.not_given",
        "model.conditions.parts.length.kind.embedding.weight",
        "model.conditions.parts.box.not_given",
        *(f"model.conditions.parts.box.kind.layers.{n}.{kind}" for n in (0, 2) for kind in ("weight", "bias")),
    }


@pytest.mark.integration
def test_a_captioner_without_conditions_gives_its_weights_to_one_with_and_not_the_other_way(folder, tmp_path, capsys):
    plain = [*TINY, *caches(folder), "data.captions_per_image=2"]
    assert main([*plain, f"run_dir={tmp_path / 'plain'}", "max_steps=1", "val_every=1"]) == 0
    command = [
        *plain,
        *CONDITIONS,
        f"init_from={tmp_path / 'plain'}",
        f"run_dir={tmp_path / 'run'}",
        "optimizer.lr=1e-9",
    ]
    assert main([*command, "max_steps=1", "val_every=1"]) == 0
    own, theirs = (
        load_checkpoint(tmp_path / run / "checkpoints/step-00000001.ckpt")["state_dict"] for run in ("run", "plain")
    )
    assert all(torch.allclose(own[name], theirs[name], atol=1e-6) for name in theirs)
    assert {name.split(".")[1] for name in own.keys() - theirs.keys()} == {"conditions"}
    assert main([*plain, f"init_from={folder / 'run'}", f"run_dir={tmp_path / 'back'}"]) == 2
    assert "unknown: conditions.parts" in capsys.readouterr().err


@pytest.mark.integration
def test_fit_rl_rolls_out_under_the_values_of_each_image(folder, tmp_path, capsys):
    command = ["fit_rl", *(word for word in TINY if not word.startswith("model.")), *caches(folder)]
    command += [f"init_from={folder / 'run'}", "reward=[length]", "objective.num_samples=2", "data.batch_size=4"]
    command += ["objective.rollout.max_length=6", f"run_dir={tmp_path / 'rl'}", "max_steps=1"]
    assert main(command) == 2
    assert "data.captions_per_image=2: expected 1 for task=fit_rl with data.conditions" in capsys.readouterr().err
    assert main([*command, "data.captions_per_image=1", "conditions.length=4"]) == 0
    rows = [row for row in RunFolder(tmp_path / "rl").rows() if "rl/logprob_gap" in row]
    assert rows and rows[0]["rl/logprob_gap"] < 1e-4
