"""`capkit.load`, `score` and `train`: what the command line gives, from Python, and the process left as it was."""

import csv
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import jaxtyping
import lightning.pytorch  # noqa: F401  what a library does to loggers at its first import is not capkit's doing
import numpy as np
import pytest
import torch
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from PIL import Image
from process_state import differing, state
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoTokenizer,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    CLIPImageProcessor,
    CLIPModel,
)

import capkit
from capkit.checkpoint.files import write_checkpoint
from capkit.checkpoint.loading import checkpoint_extras
from capkit.cli import main
from capkit.config.arguments import Command
from capkit.config.compose import compose_config
from capkit.config.instantiate import build
from capkit.decoding.config import Decoding
from capkit.errors import RunFailure, UsageError
from capkit.loaded import NUM_BEAMS, LoadedCaptioner, LoadedEncoder
from capkit.models.captioners.chat_families import FAMILIES as CHAT_FAMILIES
from capkit.models.captioners.hf_families import FAMILIES
from capkit.models.weights import trainable_state
from capkit.testing.models import HF_CONFIGS, TEXT, VISION, two_tower
from capkit.text.tokenizers import word_tokenizer
from capkit.train.callbacks.recorder import Recorder

TINY = [
    "debug=tiny", "data.train.count=16", "data.val.count=6", "data.test.count=6", "val_every=2", "model.width=32",
    "model.num_layers=1", "model.image_encoder.channels=[8,8]", "model.image_encoder.blocks=[0,0]",
    "model.image_encoder.width=32", "decoding.max_length=6", "model.dropout=0.2",
]  # fmt: skip
CAPTIONS = ["a red ball", "two green stars and a ball"]
OWN = {
    "_target_": "capkit.models.captioners.encoder_decoder.EncoderDecoder", "width": 16, "num_layers": 1, "num_heads": 2,
    "image_encoder": {"_target_": "capkit.models.encoders.image.SmallCNN", "image_size": 32, "width": 16},
    "conditions": {"length": {"kind": "length", "longest": 9}}, "prompt": "a", "max_length": 20,
}  # fmt: skip
ENCODER = {
    "_target_": "capkit.models.dual_encoders.two_tower.TwoTower", "embed_dim": 12,
    "text_tower": {
        "_target_": "capkit.models.dual_encoders.text_towers.hf.HFTextTower", "max_length": 20,
        "config": {"model_type": "clip_text_model", **TEXT},
    },
    "image_tower": {
        "_target_": "capkit.models.encoders.image.SmallCNN", "image_size": 32, "channels": [8, 16], "blocks": [0, 0],
        "width": 16,
    },
    "transform": {"_target_": "capkit.data.transforms.ImageTransform", "size": 32},
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two steps beside another Hydra program, what it changed of the process, and a folder of scenes."""
    path = tmp_path_factory.mktemp("api")
    words = [*TINY, *(f"data.{split}.cache_dir={path / 'scenes'}" for split in ("train", "val", "test"))]
    filters, logger = list(warnings.filters), logging.getLogger("lightning.pytorch")
    level = logger.level
    warnings.filterwarnings("error", "of the program around it")
    logger.setLevel(logging.DEBUG)
    usual = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    checks = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)  # beartype draws from `random` what it checks
    try:
        with initialize_config_dir(str(tmp_path_factory.mktemp("other")), version_base="1.3"):
            before = state()
            run = capkit.train(
                *words, "data.num_workers=1", "logger=[csv,tensorboard]", max_steps=2, run_dir=path / "run"
            )
            changed = differing(before, state())
            assert GlobalHydra.instance().is_initialized()
    finally:
        jaxtyping.config.update("jaxtyping_disable", checks)
        warnings.filters[:] = filters
        logger.setLevel(level)
        signal.signal(signal.SIGUSR2, usual)
    return SimpleNamespace(run=run, changed=changed, words=words)


@pytest.fixture(scope="module")
def folder(trained):
    """The run, in `run`, and pictures."""
    path = trained.run.folder.parent
    (path / "pictures").mkdir()
    for name in ("a", "b"):
        Image.fromarray(pixels(ord(name))).save(path / f"pictures/{name}.png")
    return path


@pytest.fixture(scope="module")
def captioner(trained):
    return trained.run.load()


def save(model, node, folder, **config):
    """A run folder with one checkpoint of the model."""
    state = {f"model.{name}": value for name, value in trainable_state(model).items()}
    data = {"transform": {"_target_": "capkit.data.transforms.ImageTransform", "size": 32}}
    extras = checkpoint_extras(OmegaConf.create({"seed": 0, "model": node, "data": data, **config}), model)
    write_checkpoint(
        {"state_dict": state, "global_step": 1, "capkit": extras}, folder / "checkpoints/step-00000001.ckpt"
    )
    return folder


@pytest.fixture(scope="module")
def conditioned(tmp_path_factory):
    torch.manual_seed(0)
    node = OmegaConf.create(OWN)
    return capkit.load(save(build(node, tokenizer=word_tokenizer(CAPTIONS)), OWN, tmp_path_factory.mktemp("own")))


def pixels(seed=0):
    return np.random.default_rng(seed).integers(0, 255, (40, 60, 3), dtype=np.uint8)


# -- the package


def test_importing_capkit_imports_nothing_heavy():
    code = "import sys, capkit; print({'torch', 'numpy', 'lightning', 'hydra', 'rich'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def test_every_public_name_is_there_and_says_what_it_does():
    for name in capkit.__all__:
        assert callable(getattr(capkit, name)) and getattr(capkit, name).__doc__ and name in dir(capkit)


def test_train_is_the_function_whatever_was_imported_before():
    import capkit.train.session

    assert callable(capkit.train) and capkit.train.session.open_run
    with pytest.raises(UsageError, match=r"objective\.labl_smoothing"):
        capkit.train("objective.labl_smoothing=1")
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        capkit.trian  # noqa: B018


# -- train


def test_train_returns_the_run_and_its_numbers(trained):
    folder = trained.run.folder
    assert folder.name == "run" and (folder / "report.html").exists()
    assert trained.run.numbers == json.loads((folder / "metrics.json").read_text())
    assert {"test/cider", "train/seconds"} <= trained.run.numbers.keys()


def test_its_loggers_have_the_numbers_of_training_and_of_the_end(trained):
    table = trained.run.folder / "csv/version_0/metrics.csv"
    rows = [{name: cell for name, cell in row.items() if cell} for row in csv.DictReader(table.open())]
    assert float(rows[-1]["test/cider"]) == trained.run.numbers["test/cider"] and any(
        "train/loss" in row for row in rows
    )
    assert list((trained.run.folder / "tensorboard").glob("events.out.tfevents.*"))


def test_the_process_is_as_it_was_before(trained):
    """That this would notice: tests/utils/test_guest.py."""
    assert trained.changed == []


def test_another_process_may_write_to_the_folder_afterwards(folder):
    code = (
        f"from pathlib import Path; from capkit.run.lock import acquire_run_lock as a; a(Path({str(folder / 'run')!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_several_runs_in_one_call_are_refused():
    with pytest.raises(UsageError, match="expected one run, got --multirun"):
        capkit.train("-m", "seed=1,2")


@pytest.mark.parametrize("word", ["dry_run=true", "doctor"])
def test_what_trains_nothing_is_refused(word):
    with pytest.raises(
        UsageError, match=rf"expected a run that trains, got (task=)?{word}; use the command line: capkit {word}"
    ):
        capkit.train(word)


def test_values_are_written_as_on_the_command_line():
    from capkit.api import _word

    words = {None: "null", True: "true", 2: "2", 0.5: "0.5", "two words": "two words", (1, None): "[1,null]"}
    assert {value: _word(value) for value in words} == words
    assert _word({"kind": "bins", "on": False}) == "{kind:bins,on:false}"


@pytest.mark.integration
@pytest.mark.unchecked
def test_ctrl_c_saves_and_the_same_call_goes_on(trained, tmp_path, monkeypatch, request):
    given = signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored where tests run in the background
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, given))
    words = [*trained.words, "callback.recorder.every_steps=1", "controls=0", f"run_dir={tmp_path / 'run'}"]
    record = Recorder.on_train_batch_end

    def interrupt(self, trainer, *args):
        record(self, trainer, *args)
        if trainer.global_step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Recorder, "on_train_batch_end", interrupt)
    with pytest.raises(KeyboardInterrupt, match=r"the same call with run_dir=.*run goes on"):
        capkit.train(*words, "val_every=8", max_steps=8)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert 3 <= max(int(path.stem.split("-")[1]) for path in (tmp_path / "run/checkpoints").glob("step-*.ckpt")) < 8
    run = capkit.train(*words, "val_every=8", max_steps=8)
    assert run.numbers["train/steps"] == 8 and '"resumed_from"' in (tmp_path / "run/metrics.jsonl").read_text()


@pytest.mark.parametrize(
    "status, error, told",
    [
        (130, KeyboardInterrupt, "the same call with run_dir=here goes on from there"),
        (81, RunFailure, "training ended with status 81"),
        (75, SystemExit, "75"),
    ],
)
def test_what_ended_several_processes_is_told_as_of_one(status, error, told, monkeypatch):
    """As `start_ranks` leaves it."""

    def end(composed):
        raise SystemExit(status)

    monkeypatch.setattr("capkit.api.run_composed", end)
    with pytest.raises(error, match=told):
        capkit.train("debug=tiny", "run_dir=here")


@pytest.mark.parametrize(
    "place, told",
    [("compose_checked", "before the run had begun"), ("run_composed", "the same call with run_dir=here goes on")],
)
def test_ctrl_c_before_a_run_listens_is_told_in_a_few_lines(place, told, monkeypatch):
    monkeypatch.setattr(f"capkit.api.{place}", lambda given: os.kill(os.getpid(), signal.SIGINT))
    given = signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt, match=told) as caught:
        capkit.train("debug=tiny", "run_dir=here")
    signal.signal(signal.SIGINT, given)
    assert caught.value.__suppress_context__ and Path(caught.traceback[-1].path).name == "api.py"


@pytest.mark.integration
@pytest.mark.unchecked
def test_a_function_in_the_working_folder_rewards_but_no_run_names_it(trained, tmp_path, monkeypatch, capsys):
    (tmp_path / "my_rewards.py").write_text("def words(images, texts):\n    return [len(t.split()) for t in texts]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    words = [f"init_from={trained.run.folder}", "reward=[custom]", "reward.custom.function=my_rewards.words"]
    words += ["metric=[custom]", "metric.custom.function=my_rewards.words", "controls=0", "run_dir=rl", "max_steps=1"]
    assert main(["fit_rl", "debug=tiny", "decoding.max_length=6", *words]) == 0
    rows = [json.loads(line) for line in (tmp_path / "rl/metrics.jsonl").read_text().splitlines()]
    trains = next(row for row in rows if "reward/total" in row)
    assert trains["reward/total"] == trains["reward/custom"] > 1
    assert json.loads((tmp_path / "rl/metrics.json").read_text())["test/custom"] > 1
    by_likelihood = ["metric=[custom]", "metric.custom.function=my_rewards.words", "controls=0", "run_dir=mle"]
    assert main([*trained.words, *by_likelihood, "max_steps=1", "val_every=1"]) == 0  # validation has pictures too
    rows = [json.loads(line) for line in (tmp_path / "mle/metrics.jsonl").read_text().splitlines()]
    assert any(row.get("val/custom", 0) > 1 for row in rows)
    without = ["fit_rl", "debug=tiny", "decoding.max_length=6", *words[:3], "data.val=null", "max_steps=1"]
    assert main([*without, "controls=0", "run_dir=no-validation"]) == 0
    assert main(["evaluate", "ckpt=rl", "run_dir=evaluated"]) == 2
    assert "names 'capkit.scorers.custom.custom_metric' at metric.custom" in capsys.readouterr().err


# -- captions


@pytest.mark.parametrize("settings", [[], ["decoding=sample"], ["decoding=beam"]], ids=["run", "sample", "beam"])
def test_captions_are_those_of_capkit_caption(folder, captioner, tmp_path, settings):
    out = tmp_path / "out.jsonl"
    words = ["caption", f"ckpt={folder / 'run'}", f"images={folder / 'pictures'}", f"out={out}", *settings]
    assert main(words) == 0
    written = {row["image"]: row["caption"] for row in map(json.loads, out.read_text().splitlines())}
    decoding = settings[0].partition("=")[2] if settings else None
    paths = [folder / "pictures" / name for name in written]
    assert captioner.caption(paths, decoding=decoding) == list(written.values())
    assert captioner.caption(paths[1], decoding=decoding) == list(written.values())[1]


@pytest.mark.unchecked
def test_the_names_of_decodings_are_those_of_the_config_group(captioner):
    for name in ("greedy", "beam", "sample"):
        composed = compose_config(Command([f"decoding={name}"])).config.decoding
        assert captioner._decoding(name) == build(composed)
    assert captioner._decoding("beam").num_beams == NUM_BEAMS
    assert captioner._decoding(None) == captioner.decoding == Decoding(max_length=6)
    with pytest.raises(UsageError, match=r"expected greedy, beam, sample or a capkit\.Decoding, got 'bean'"):
        captioner._decoding("bean")
    with pytest.raises(UsageError, match=r"a name or a capkit\.Decoding, got dict"):
        captioner.caption(pixels(), decoding={"method": "beam"})
    for batch_size in (0, -1):
        with pytest.raises(UsageError, match="batch_size: expected 1 or more"):
            captioner.caption([pixels()], batch_size=batch_size)


def test_every_form_of_a_picture_gives_the_same_caption(folder, captioner):
    path = folder / "pictures/a.png"
    array = np.asarray(Image.open(path))
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    forms = [path, str(path), path.read_bytes(), Image.open(path), array, tensor, tensor / 255]
    wanted = captioner.caption(path, decoding=Decoding("beam", num_beams=2, max_length=6))
    assert captioner.caption(forms, decoding=Decoding("beam", num_beams=2, max_length=6)) == [wanted] * 7
    one_batch = captioner.caption(forms, batch_size=1)
    assert captioner.caption(np.stack([array, array[::-1]])) == captioner.caption([array, array[::-1]])
    assert captioner.caption(torch.stack([tensor, tensor.flip(1)])) == captioner.caption([array, array[::-1]])
    assert one_batch == captioner.caption(forms) and captioner.caption([]) == []


def test_a_turned_photo_and_one_with_transparency_are_read_as_from_their_files(captioner, tmp_path):
    from capkit.data.given_pictures import given_pictures
    from capkit.data.images import load_rgb

    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels()).save(tmp_path / "turned.jpg", exif=exif)
    clear = np.dstack([pixels(), np.zeros((40, 60), np.uint8)])
    Image.fromarray(clear).save(tmp_path / "clear.png")
    for name, shape in (("turned.jpg", (60, 40, 3)), ("clear.png", (40, 60, 3))):
        held = given_pictures(Image.open(tmp_path / name))[0].read()
        assert held.shape == shape and np.array_equal(held, load_rgb(tmp_path / name))
    assert (held == 255).all()


def test_a_draw_depends_on_the_picture_and_the_number_of_the_sample_alone(captioner):
    first, second = pixels(1), pixels(2)
    both = captioner.caption([first, second], decoding="sample", n=3)
    assert captioner.caption([second, first], decoding="sample", n=2) == [both[1][:2], both[0][:2]]
    assert captioner.caption(first, decoding="sample", n=3) == both[0]
    assert len({*both[0], *both[1]}) > 3
    other = captioner.caption(first, decoding=Decoding("sample", seed=1), n=3)
    assert other != both[0]


def test_beams_come_best_first_and_one_is_the_first(captioner):
    beams = captioner.caption(pixels(), decoding="beam", n=3)
    assert captioner.caption(pixels(), decoding="beam") == beams[0] and len(set(beams)) == 3
    with pytest.raises(UsageError, match="num_beams=5"):
        captioner.caption(pixels(), decoding="beam", n=6)
    with pytest.raises(UsageError, match="n: expected 1 or more captions of each picture"):
        captioner.caption(pixels(), decoding="sample", n=0)


@pytest.mark.unchecked
def test_pictures_that_cannot_be_read_are_none_and_named(captioner, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    listed = [pixels(1), tmp_path / "broken.jpg", b"", tmp_path / "absent.jpg", pixels(2)]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = captioner.caption(listed, batch_size=2)
    assert found == [captioner.caption(pixels(1)), None, None, None, captioner.caption(pixels(2))]
    messages = [str(warning.message) for warning in told]
    assert [text.partition(" is left out: ")[0] for text in messages] == [
        str(tmp_path / "broken.jpg"), "pictures[2]", str(tmp_path / "absent.jpg"),
    ]  # fmt: skip
    assert {warning.filename for warning in told} == {__file__}  # the user's line
    with pytest.raises(UsageError, match=r"pictures\[2\]: expected a picture that can be read, got: empty file"):
        captioner.caption([pixels(), pixels(), b""], errors="raise")
    with pytest.raises(UsageError, match=r"broken\.jpg: expected a picture"):
        captioner.caption(tmp_path / "broken.jpg")
    with pytest.raises(UsageError, match="errors: expected warn or raise, got 'ignore'"):
        captioner.caption(listed, errors="ignore")


@pytest.mark.unchecked
@pytest.mark.parametrize(
    "picture, told",
    [
        (np.zeros((3, 4, 6), np.uint8), r"uint8 array \(H, W, 3\).*got ndarray uint8 \(3, 4, 6\)"),
        (np.zeros((4, 6, 3), np.float32), "uint8 array"),
        (torch.zeros(4, 6, 3), r"tensor \(3, H, W\).*permute"),
        (torch.full((3, 4, 4), -1.0), r"floats in \[0, 1\], got -1 to -1; give pixels before they are normalised"),
        (torch.full((3, 4, 4), float("nan")), "floats in"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "got Tensor int64"),
        ([7], r"pictures\[0\]: expected a path.*got int 7"),
        (7, "expected a path"),
        (io.BytesIO(b"one\ntwo"), "got BytesIO"),
        (bytearray(b"x"), "got bytearray"),
        ({"a.jpg": np.zeros((4, 6, 3), np.uint8)}, "got dict"),
    ],
    ids=[
        "channels first", "array of floats", "channels last", "normalised", "nan", "int64", "in a list", "number",
        "file", "bytearray", "dict",
    ],
)  # fmt: skip
def test_what_is_no_picture_is_refused_whatever_errors_says(captioner, picture, told):
    with pytest.raises(UsageError, match=told):
        captioner.caption(picture)


# -- conditions and log-probabilities


def test_conditions_reach_the_captioner(conditioned):
    by_hand = {}
    for length in (2, 9):
        batch = capkit.types.CaptionBatch(["x"], conditioned.preprocess([pixels()]))
        batch.conditions = {"length": torch.tensor([float(length)])}
        context = conditioned.model.encode(batch)
        by_hand[length] = conditioned.model.generate(context, Decoding("beam", num_beams=3, max_length=8), 3).texts[0]
        written = conditioned.caption(
            pixels(), decoding=Decoding("beam", num_beams=3, max_length=8), n=3, conditions={"length": length}
        )
        assert written == by_hand[length]
    scores = [conditioned.score(pixels(), CAPTIONS, conditions={"length": value}) for value in (2, 9)]
    assert scores[0] != scores[1]
    with pytest.raises(UsageError, match=r"conditions\.lenght=3: expected one of length"):
        conditioned.caption(pixels(), conditions={"lenght": 3})


@torch.no_grad()
def test_scores_are_the_sums_of_what_the_logits_say(conditioned):
    captions = ["red ball", "two green stars and a ball", ""]
    found = conditioned.score(pixels(), captions)
    tokens = conditioned.score(pixels(), captions, per_token=True)
    tokenizer, model = conditioned.model.tokenizer, conditioned.model
    context = model.encode(capkit.types.CaptionBatch(["x"], conditioned.preprocess([pixels()])))
    for caption, score, of_tokens in zip(captions, found, tokens, strict=True):
        words = ["<bos>", "a", *caption.split(), "<eos>"]  # "a" is the captioner's prompt, which is given
        ids = torch.tensor([[tokenizer.convert_tokens_to_ids(words)]])
        logits = model(context, ids, torch.ones_like(ids, dtype=torch.bool))[0, 0].double()
        nats = [logits[place].log_softmax(-1)[ids[0, 0, place + 1]].item() for place in range(1, len(words) - 1)]
        assert [token for token, _ in of_tokens] == words[2:]
        assert [value for _, value in of_tokens] == pytest.approx(nats, abs=1e-5)
        assert score == pytest.approx(sum(nats), abs=1e-5)


def test_scores_of_several_pictures_do_not_depend_on_each_other(conditioned):
    first, second = ["red ball"], ["two green stars and a ball", "a", "ball"]
    both = conditioned.score([pixels(1), pixels(2)], [first, second])
    assert both[0] == pytest.approx(conditioned.score(pixels(1), first), abs=1e-5)
    assert both[1] == pytest.approx(conditioned.score(pixels(2), second), abs=1e-5)
    assert both[1] == pytest.approx(conditioned.score([pixels(1), pixels(2)], [[], second], batch_size=1)[1], abs=1e-5)
    texts = [iter(row) for row in (first, second)]
    assert conditioned.score((pixels(seed) for seed in (1, 2)), iter(texts)) == both
    with pytest.warns(UserWarning, match=r"pictures\[0\] is left out"):
        assert conditioned.score([b"x", pixels(1)], [first, first]) == [None, pytest.approx(both[0], abs=1e-5)]


def test_captions_that_cannot_be_scored_are_told(conditioned):
    with pytest.warns(UserWarning, match="words that the captioner does not know"):
        assert conditioned.score(pixels(), ["a blue ball"])[0] < 0
    tokenizer = conditioned.model.tokenizer
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer.unk_token = "<eos>"  # as in GPT-2, which knows every word
        try:
            conditioned.score(pixels(), ["a ball", "ball"])
        finally:
            tokenizer.unk_token = "<unk>"
    with pytest.raises(UsageError, match="at most 20 tokens, the model's positions, got 33"):
        conditioned.score(pixels(), ["ball " * 30])
    for captions in ("a ball", [["a ball"]], [7]):
        with pytest.raises(UsageError, match="a list of texts for each picture"):
            conditioned.score(pixels(), captions)
    with pytest.raises(UsageError, match="a list for each of 2 pictures, got 1"):
        conditioned.score([pixels(), pixels()], [["a ball"]])


# -- what can be loaded


def test_a_checkpoint_and_an_export_give_the_captions_of_the_run(folder, captioner, tmp_path):
    wanted = captioner.caption(folder / "pictures/a.png")
    checkpoint = next((folder / "run/checkpoints").glob("step-*.ckpt"))
    assert capkit.load(checkpoint).caption(folder / "pictures/a.png") == wanted
    assert main(["export", f"ckpt={folder / 'run'}", f"out={tmp_path / 'out'}"]) == 0
    loaded = capkit.load(tmp_path / "out", "captioner")
    assert loaded.caption(folder / "pictures/a.png") == wanted and loaded.decoding == captioner.decoding


def test_loading_leaves_the_random_state_alone(folder):
    before = torch.get_rng_state()
    capkit.load(str(folder / "run"))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.unchecked
def test_what_cannot_be_loaded_is_told(folder, tmp_path):
    for source, told in (
        (folder / "nowhere", "there is no such path from"),
        (tmp_path, "a folder that holds neither"),
    ):
        with pytest.raises(UsageError, match=told):
            capkit.load(source)
    with pytest.raises(UsageError, match=r"expected a model of this kind in .*got: captioner"):
        capkit.load(folder / "run", "encoder")
    with pytest.raises(UsageError, match="expected captioner, encoder or None"):
        capkit.load(folder / "run", "enocder")


def test_a_config_of_somebody_elses_names_no_code_to_run(tmp_path):
    model = build(OmegaConf.create(OWN), tokenizer=word_tokenizer(CAPTIONS))
    save(model, OWN, tmp_path, decoding={"_target_": "os.system", "command": "touch been_here"})
    with pytest.raises(UsageError, match=r"names 'os.system' at decoding"):
        capkit.load(tmp_path)


def blip(path):
    """A tiny BLIP as its authors' folders are: config, weights, tokenizer, processor."""
    torch.manual_seed(0)
    tokenizer = word_tokenizer(CAPTIONS)
    ids = {"bos_token_id": 1, "eos_token_id": 2, "sep_token_id": 2, "pad_token_id": 0, "vocab_size": len(tokenizer)}
    text = {**TEXT, **ids, "encoder_hidden_size": 16, "max_position_embeddings": 48}
    from transformers import BlipConfig

    model = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=VISION))
    for part in (model, tokenizer, BlipImageProcessor(size={"height": 32, "width": 32})):
        part.save_pretrained(path)
    return model.eval()


def test_a_captioner_of_transformers_writes_as_transformers_does(tmp_path):
    model = blip(tmp_path)
    captioner = capkit.load(tmp_path)
    assert isinstance(captioner, LoadedCaptioner) and captioner.model.max_length == 48
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    flat = pixels()[:3]  # as high as it has channels
    wanted = processor(Image.fromarray(flat), return_tensors="pt")["pixel_values"]
    assert torch.equal(captioner.preprocess([flat]), wanted)
    values = processor(pixels(), return_tensors="pt")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    for settings, decoding in (
        ({}, Decoding(max_length=10)), ({"num_beams": 3}, Decoding("beam", num_beams=3, max_length=10)),
    ):  # fmt: skip
        written = model.generate(**values, max_new_tokens=10, **settings)
        assert captioner.caption(pixels(), decoding=decoding) == tokenizer.decode(written[0], skip_special_tokens=True)
    assert captioner.score(pixels(), CAPTIONS)[0] < 0


def test_a_dual_encoder_of_transformers_compares_as_transformers_does(tmp_path):
    from transformers import CLIPConfig

    torch.manual_seed(0)
    tokenizer = word_tokenizer(CAPTIONS)
    settings = {**HF_CONFIGS["clip"], "text_config": {**TEXT, "vocab_size": len(tokenizer), "eos_token_id": 2}}
    model = CLIPModel(CLIPConfig(**settings)).half().eval()
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32)
    for part in (model, tokenizer, processor):
        part.save_pretrained(tmp_path)
    model.float()
    encoder = capkit.load(tmp_path, "encoder")
    assert isinstance(encoder, LoadedEncoder) and isinstance(AutoModel.from_pretrained(tmp_path), CLIPModel)
    images = [pixels(1), pixels(2)]
    found = encoder.similarity(images, CAPTIONS)
    ids = [torch.tensor([tokenizer(caption)["input_ids"]]) for caption in CAPTIONS]
    values = processor(images, return_tensors="pt")
    with torch.no_grad():
        for column, tokens in enumerate(ids):
            wanted = model(input_ids=tokens, **values).logits_per_image[:, 0] / model.logit_scale.exp()
            assert found[:, column] == pytest.approx(wanted.numpy(), abs=1e-5)
    assert encoder.logit_scale == pytest.approx(model.logit_scale.exp().item())


def test_another_model_of_transformers_is_refused_before_its_weights_are_read(tmp_path):
    from transformers import BertConfig, BlipConfig, Pix2StructConfig

    for config in (BertConfig(hidden_size=8, num_attention_heads=2), Pix2StructConfig()):
        config.save_pretrained(tmp_path)
        told = (
            rf"expected a captioner \({', '.join([*FAMILIES, *CHAT_FAMILIES])}\).*a model of type {config.model_type}"
        )
        with pytest.raises(UsageError, match=told):
            capkit.load(tmp_path)
    BlipConfig(architectures=["BlipForImageTextRetrieval"]).save_pretrained(tmp_path)  # its decoder would be random
    with pytest.raises(UsageError, match=r"BlipForConditionalGeneration.*got those of BlipForImageTextRetrieval"):
        capkit.load(tmp_path)


def test_a_dual_encoder_of_a_run_compares_pictures_and_texts(tmp_path):
    model = two_tower()
    encoder = capkit.load(save(model, ENCODER, tmp_path))
    assert isinstance(encoder, LoadedEncoder)
    images, texts = [pixels(1), pixels(2)], ["a red circle", "one circle", "red"]
    found = encoder.similarity(images, texts)
    by_hand = model.eval().encode_image(model.preprocess(images)) @ model.encode_text(texts).T
    assert found == pytest.approx(by_hand.numpy(), abs=1e-6) and found.shape == (2, 3)
    assert encoder.similarity(images[1], texts[0]) == pytest.approx(found[1:, :1], abs=1e-6)
    with pytest.warns(UserWarning, match=r"pictures\[0\] is left out"):
        partly = encoder.similarity([b"x", images[1]], texts)
    assert np.isnan(partly[0]).all() and partly[1] == pytest.approx(found[1], abs=1e-6)
    with pytest.warns(UserWarning, match="pictures"):
        assert np.isnan(encoder.similarity([b"x"], texts)).tolist() == [[True] * 3]
    with pytest.warns(UserWarning, match="1 of 2 texts are cut: the model reads 20 tokens"):
        encoder.embed_texts(["red " * 40, "red"])


# -- score

PREDICTED = {"a": "a dog on a beach", "b": "a red bus"}
TRUE = {
    "b": ["a red double-decker bus"],
    "a": ["a dog runs on the beach", "a dog at the sea"],
}


def words(images, texts):
    assert images == [None] * len(texts)
    return [len(text.split()) for text in texts]


def red(images, texts):
    return torch.tensor([image[..., 0].mean() for image in images])


def test_scores_are_those_of_capkit_score(tmp_path):
    for name, value in (("predictions", PREDICTED), ("references", TRUE)):
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    files = tmp_path / "predictions.json", tmp_path / "references.json"
    assert main(["score", f"predictions={files[0]}", f"references={files[1]}", f"out={tmp_path / 'out.json'}"]) == 0
    wanted = json.loads((tmp_path / "out.json").read_text())
    del wanted["images"]
    listed = [list(PREDICTED.values()), [TRUE[name] for name in PREDICTED]]
    for found in (capkit.score(PREDICTED, TRUE), capkit.score(*files), capkit.score(*listed)):
        assert found == pytest.approx(wanted, abs=1e-12)
    assert capkit.score(PREDICTED, TRUE, "cider") == {"cider": pytest.approx(wanted["cider"])}


def test_metrics_of_the_config_group_and_functions_are_scored_too(tmp_path):
    found = capkit.score(PREDICTED, None, ["length", words], overrides=["metric.length.scorer.shortest=3"])
    assert found["words"] == 4.0 and found["length"] == 1.0
    images = {"b": np.full((4, 4, 3), 10, np.uint8), "a": np.full((4, 4, 3), 20, np.uint8)}
    assert capkit.score(PREDICTED, None, [red], images=images)["red"] == 15.0
    assert capkit.score(PREDICTED, None, [red], images=[images["a"], images["b"]])["red"] == 15.0
    by_file = {f"{name}.jpg": text for name, text in PREDICTED.items()}  # the references' names have no endings
    for given in ((image for image in (images["a"], images["b"])), {f"{name}.jpg": images[name] for name in images}):
        assert capkit.score(by_file, TRUE, red, images=given)["red"] == 15.0
    for name, image in images.items():
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    assert capkit.score(PREDICTED, None, [red], images=tmp_path)["red"] == 15.0
    (tmp_path / "a.png").write_bytes(b"no picture")
    for given in (tmp_path, [tmp_path / "a.png", images["b"]]):
        with pytest.raises(UsageError, match=r"images: .*a.*: expected a picture that can be read, got: not an image"):
            capkit.score(PREDICTED, None, [red], images=given)


def test_each_picture_goes_with_its_own_caption_whatever_the_order():
    images = {"b": np.full((4, 4, 3), 10, np.uint8), "a": np.full((4, 4, 3), 20, np.uint8)}
    seen = {}

    def see(pictures, texts):
        seen.update({text: picture[0, 0, 0].item() for picture, text in zip(pictures, texts, strict=True)})
        return [0.0] * len(texts)

    capkit.score(PREDICTED, TRUE, see, images=[images["a"], images["b"]])  # the references have another order
    assert seen == {PREDICTED["a"]: 20, PREDICTED["b"]: 10}


@pytest.mark.unchecked
def test_what_cannot_be_scored_is_told():
    for arguments, told in (
        (({"a": "x", "c": "y"}, TRUE), "expected images that have references"),
        (({"a": "x"}, TRUE), "a prediction for every image with references; 1 of 2 have none: b"),
        ((["x", "y"], [["x"]]), "expected images that have references"),
        (([], []), "predictions: expected captions, got none"),
        ((["x"], ["y"]), "references: expected a list of texts for each image"),
        ((["x"], None), "compare with references, got none"),
        ((["x"], [["y"]], ["cidr"]), "cidr"),
        ((["x", None], [["y"], ["z"]]), "predictions: expected a text for each image, got None of image 1"),
        ((["x"], [["y"]], ["words", words]), "two metrics named words"),
        ((["x"], [["y"]], [lambda images, texts: [1], lambda images, texts: [2]]), "two metrics named <lambda>"),
        ((["x"], [["y"]], [7]), "expected names and functions, got 7"),
    ):
        with pytest.raises(UsageError, match=told):
            capkit.score(*arguments)
    with pytest.raises(UsageError, match="one of each of 1 predictions"):
        capkit.score(["x"], None, [red], images=[])
    with pytest.raises(UsageError, match="one of each prediction, got none of a"):
        capkit.score({"a": "x"}, None, [red], images={"b": pixels()})
    with pytest.raises(UsageError, match=r"pictures\[1\]: expected a uint8 array"):
        capkit.score(["x", "y"], None, [red], images=[pixels(), pixels() / 255])
    with pytest.raises(UsageError, match=r"metric\.length\.scorer\.shrotest"):
        capkit.score(["x"], None, ["length"], overrides=["metric.length.scorer.shrotest=3"])


# -- the page


@pytest.mark.integration
@pytest.mark.unchecked
def test_the_examples_of_the_page_run_in_their_order(trained, tmp_path, monkeypatch):
    """As they stand, but for a smaller model."""
    page = Path(__file__).parents[1] / "docs/api.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_photos").mkdir()
    Image.fromarray(pixels()).save(tmp_path / "my_photos/photo.jpg")
    (tmp_path / "my_photos/broken.jpg").write_bytes(b"no picture")
    save(two_tower(), ENCODER, tmp_path / "clip")
    assert blocks[0].count('"debug=tiny"') == 1
    blocks[0] = blocks[0].replace('"debug=tiny"', "*WORDS")
    names: dict = {"WORDS": trained.words}
    with pytest.warns(UserWarning, match=r"broken\.jpg is left out"):
        for block in blocks:
            exec(compile(block, str(page), "exec"), names)
    assert len(blocks) == 6 and names["run"].numbers["train/steps"] == 4
    assert [caption is None for caption in names["captions"]] == [False, False, False, True]
    assert len(names["samples"]) == 5 and len(names["beams"]) == 3
    assert names["nats"][0] == pytest.approx(sum(value for _, value in names["tokens"]), abs=1e-6)
    assert names["cosines"].shape == (2, 2) and names["numbers"]["words"] == 4.0
