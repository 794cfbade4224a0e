"""The stamps for real: fetched, converted, trained on for two steps. Needs Debian's and Python's package servers."""

import functools
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.stamps.preferences import held_out
from benchmarks.stamps.rater import by_rater, rankings, shares, write
from benchmarks.stamps.self_retrieval import OTHER
from capkit.checkpoint.files import load_checkpoint
from capkit.cli import main
from capkit.data.features import FeatureStore
from capkit.data.sources.stamps import Stamps
from capkit.models.dual_encoders.sentence_encoder import SentenceEncoder
from capkit.run.folder import RunFolder
from capkit.tasks.fit_rater import INTERVALS

FEATURES = "stamps-efficientnet-lite0"
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("apt-get") is None, reason="the stamps come in a Debian package, by apt-get"),
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """What `capkit prepare` leaves. CAPKIT_CACHE, where it is set, is used and kept."""
    folder = os.environ.get("CAPKIT_CACHE") or str(tmp_path_factory.mktemp("cache"))
    capkit = Path(sys.executable).with_name("capkit")
    subprocess.run([capkit, "prepare", "data=stamps"], check=True, env={**os.environ, "CAPKIT_CACHE": folder})
    return folder


@pytest.fixture(scope="module")
def tiny_run(cache, tmp_path_factory):
    """The run folder of an experiment under debug=tiny, made once."""

    @functools.cache
    def of(experiment):
        run = RunFolder(tmp_path_factory.mktemp(experiment) / "run")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CAPKIT_CACHE", cache)
            assert main([f"experiment={experiment}", "debug=tiny", f"run_dir={run.path}"]) == 0
        return run

    return of


def test_the_experiment_trains_on_real_photos_with_pretrained_parts(tiny_run):
    run = tiny_run("stamps_mle")
    assert {"test/text_r1", "test/text_r1_low", "test/cider", "test/untrained/text_r1"} <= run.metrics().keys()
    checkpoint = next(run.checkpoints.iterdir())
    weights = load_checkpoint(checkpoint)["state_dict"]
    # The mapper and the adapters; the frozen language model (538 MB) and its tied head (113 MB) are not in it.
    assert 1e6 < sum(value.numel() * value.element_size() for value in weights.values()) < 100e6
    predictions = json.loads((run.predictions / "test.json").read_text())
    assert len(predictions) == 4


@pytest.fixture
def tuned(cache, tiny_run, tmp_path, monkeypatch):
    """The run of an experiment that fine-tunes the captioner by rewards of the pretrained pair."""
    monkeypatch.setenv("CAPKIT_CACHE", cache)
    judge = tiny_run("stamps_lora_text").path
    short = ["decoding.max_length=5", "metric.rd20.num_distractors=3", "val_every=2"]
    words = ["debug=tiny", *short, f"init_from={tiny_run('stamps_mle').path}"]
    words += [f"reward_encoder={judge}", f"eval_encoder={judge}"]

    def of(experiment):
        run = RunFolder(tmp_path / "run")
        assert main([f"experiment={experiment}", *words, f"run_dir={run.path}"]) == 0
        return run

    return of


@pytest.mark.nightly
def test_real_photos_are_fine_tuned_by_the_reward_of_a_pretrained_pair(tuned):
    run = tuned("stamps_clip_reward")
    numbers = run.metrics()
    assert numbers["train/steps"] == 2 and {"test/initial/clip_score_mean", "test/rd20_r1"} <= numbers.keys()
    rows = [row for row in run.rows() if "reward/clip_score" in row]
    assert rows and all(row["reward/failed"] == 0 for row in rows)


@pytest.mark.nightly
def test_real_photos_are_fine_tuned_by_self_retrieval(tuned):
    run = tuned("stamps_sr")
    (row,) = [row for row in run.rows() if "reward/self_retrieval_pool" in row]
    assert 4 <= row["reward/self_retrieval_pool"] <= 8 and "test/rd50_r1" in run.metrics()


@pytest.mark.nightly
def test_a_rater_learns_from_rankings_of_real_photos(cache, tiny_run, tmp_path, monkeypatch):
    monkeypatch.setenv("CAPKIT_CACHE", cache)
    root, encoder = str(Path(cache, "tuxpaint-stamps")), tiny_run("stamps_lora_text").path
    files = {"ratings": Stamps(root, "val", val=0.3, test=0.3), "test_ratings": Stamps(root, "test")}
    words = [f"{name}={write(tmp_path / f'{name}.jsonl', rankings(source, 0))}" for name, source in files.items()]
    run = RunFolder(tmp_path / "run")
    words += [f"model.encoder.ckpt={encoder}", "debug=tiny", f"run_dir={run.path}"]
    assert main(["experiment=stamps_rater", *words]) == 0
    assert 0 <= run.metrics()["test/accuracy"] <= 1 and "test/accuracy" in json.loads(
        (run.path / INTERVALS).read_text()
    )
    found = shares(
        list(rankings(files["test_ratings"], 0))[:3], by_rater(run.path, FeatureStore(str(Path(cache, FEATURES))))
    )
    assert found["all"].shape == (3,)


@pytest.mark.nightly
def test_a_captioner_of_real_photos_learns_from_pairs_of_its_own_captions(cache, tiny_run, tmp_path, monkeypatch):
    monkeypatch.setenv("CAPKIT_CACHE", cache)
    mle, pairs = tiny_run("stamps_mle").path, tmp_path / "pairs.jsonl"
    short = ["decoding.max_length=5", "data.eval_batch_size=4", "limit=8", "margin=0.001"]
    similarity = ["reward=[sentence_similarity]", f"reward.sentence_similarity.scorer.encoder={Path(cache, 'minilm')}"]
    assert main(["task=collect_preferences", f"ckpt={mle}", *OTHER, *similarity, *short, f"out={pairs}"]) == 0
    run = RunFolder(tmp_path / "run")
    words = [f"init_from={mle}", f"pairs={pairs}", "held_out=0.3", "debug=tiny", "decoding.max_length=5"]
    assert main(["experiment=stamps_preferences", *words, "val_every=2", f"run_dir={run.path}"]) == 0
    assert {"test/initial/text_r1", "test/text_r1", "test/text_r1_low"} <= run.metrics().keys()
    assert all(math.isfinite(value) for value in held_out(run.path).values())


@pytest.mark.parametrize(
    "experiment",
    [
        "stamps_lora_text",
        pytest.param("grammar_clip_stamps", marks=pytest.mark.nightly),
        pytest.param("stamps_dreamlip", marks=pytest.mark.nightly),
    ],
)
def test_dual_encoders_train_on_real_photos_with_pretrained_parts(experiment, tiny_run):
    run = tiny_run(experiment)
    numbers = {"grammar_clip_stamps": "test/grammar_repeat_balanced"}
    assert run.metrics()["train/steps"] == 2
    assert numbers.get(experiment, "test/retrieval_t2i_r1") in run.metrics()
    weights = load_checkpoint(next(run.checkpoints.iterdir()))["state_dict"]
    frozen = [name for name in weights if name.startswith("model.image_tower") and name.endswith("weight")]
    assert not frozen, "EfficientNet is frozen, and comes from its file again"


@pytest.mark.nightly  # CI has a tiny Llama's: tests/objectives/test_image_dropout.py
def test_missing_images_leave_finite_gradients_in_the_language_model(tiny_run):
    """Through thirty layers without biases, which keep the zeros of a missing image zeros."""
    rows = [row for row in tiny_run("cfg_stamps").rows() if "train/grad_norm" in row]
    assert rows and all(math.isfinite(row["train/grad_norm"]) for row in rows)


def test_a_decoder_that_knows_no_language_is_trained_on_portuguese(tiny_run):
    run = tiny_run("captioner_ptbr_stamps")
    references = json.loads((run.predictions / "test_references.json").read_text())["annotations"]
    assert "test/cider" in run.metrics()
    assert "Uma galinha." in [row["caption"] for row in references]


def test_a_second_prepare_has_nothing_to_do(cache, monkeypatch, capsys):
    monkeypatch.setenv("CAPKIT_CACHE", cache)
    before = sorted(os.listdir(cache))
    assert main(["prepare", "data=stamps"]) == 0
    assert sorted(os.listdir(cache)) == before


def test_the_fetched_sentence_encoder_is_the_real_one(cache):
    """Values of the sentence-transformers library for the same model."""
    dog, puppy, car = SentenceEncoder(str(Path(cache, "minilm"))).encode_text(["dog", "puppy", "car"])
    assert float(dog @ puppy) == pytest.approx(0.8040, abs=1e-3)
    assert float(dog @ car) == pytest.approx(0.4756, abs=1e-3)


def test_emoji_are_fetched_and_named_in_two_languages(cache, monkeypatch):
    monkeypatch.setenv("CAPKIT_CACHE", cache)
    assert main(["prepare", "data=emoji", "data.features=null"]) == 0
    root, found = Path(cache, "emoji"), {}
    count = json.loads((root / "about.json").read_text())["pictures"]
    assert count >= 1377  # a younger font has more
    for language, name in (("en", "rooster"), ("pt-BR", "galo")):
        splits = {
            split: Stamps(str(root), split, exclude=(), languages=[language]) for split in ("train", "val", "test")
        }
        keys = {split: {source.record(i).key for i in range(len(source))} for split, source in splits.items()}
        assert sum(map(len, keys.values())) == len(set.union(*keys.values())) == count
        found[language] = keys
        every = Stamps(str(root), exclude=(), languages=[language])
        captions = {every.record(i).key: every.record(i).captions[0].text for i in range(len(every))}
        assert captions["emoji/1f413"] == name
    assert found["en"] == found["pt-BR"]  # split by the English name, whatever is read
