"""task=fit_rater from the command line's `main`: a run, its resume, what it cannot be trained on, and its uses."""

import json
import math
import re

import pytest
from interrupted import assert_equal_weights, interrupt_and_resume, numbers

import capkit
from benchmarks.scene_ratings import grades, rankings
from capkit.checkpoint.loading import load_captioner
from capkit.checkpoint.raters import load_rater
from capkit.cli import main
from capkit.errors import UsageError
from capkit.run.folder import RunFolder
from capkit.train.raters.module import RaterModule

DATA = ["data=sceneworld_web", "debug=tiny", "data.train.source.count=40", "data.val.count=4", "data.test.count=12"]
ENCODER = [
    "model.embed_dim=16", "model.image_tower.channels=[8,8]", "model.image_tower.blocks=[0,0]",
    "model.image_tower.width=16", "model.text_tower.config.hidden_size=16",
    "model.text_tower.config.num_hidden_layers=1", "model.text_tower.config.intermediate_size=16",
]  # fmt: skip
SMALL_BLIP = (
    "model.config={vision_config: {hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2, "
    "intermediate_size: 16, image_size: 32, patch_size: 16}, text_config: {hidden_size: 16, num_hidden_layers: 2, "
    "num_attention_heads: 2, intermediate_size: 16, max_position_embeddings: 24, encoder_hidden_size: 16}}"
)
BLIP = ["model=blip_rater", "model.name=null", "model.tokenizer=word", "model.max_length=24", SMALL_BLIP]
SMALL_CHAT = (
    "model.captioner.config={model_type: llava, vision_config: {model_type: clip_vision_model, hidden_size: 16, "
    "num_hidden_layers: 3, num_attention_heads: 2, intermediate_size: 16, image_size: 32, patch_size: 16}, "
    "text_config: {model_type: llama, hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2, "
    "intermediate_size: 16, max_position_embeddings: 64}}"
)
CHAT = [
    "model=chat_rater", "model.captioner.name=null", "model.captioner.tokenizer=word", "model.captioner.image_size=32",
    "model.captioner.max_length=40", "model.captioner.question='a red circle'", SMALL_CHAT,
]  # fmt: skip


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """The words of a tiny encoder's rater on rankings, which takes seconds."""
    path = tmp_path_factory.mktemp("raters")
    write(path / "ranked.jsonl", rankings("train", 40))
    write(path / "tested.jsonl", rankings("test", 12))
    write(path / "graded.jsonl", grades("train", 40))
    caches = [
        f"data.train.source.cache_dir={path / 'scenes'}",
        *(f"data.{split}.cache_dir={path / 'scenes'}" for split in ("val", "test")),
    ]
    encoder = [
        "task=fit_encoder",
        "model=sceneworld_small_clip",
        *DATA,
        *ENCODER,
        *caches,
        "evaluator=[]",
        "controls=0",
    ]
    assert main([*encoder, f"run_dir={path / 'encoder'}"]) == 0
    fit = [
        "task=fit_rater", *DATA, *caches, f"model.encoder.ckpt={path / 'encoder'}", f"ratings={path / 'ranked.jsonl'}",
        "held_out=0.3", "callback=[progress,recorder,checkpoints]", "callback.checkpoints.every_steps=1",
        "callback.recorder.every_steps=1", "max_steps=4", "val_every=2", "data.batch_size=4", "optimizer.lr=1e-2",
        "eval_limit=null", "controls=0",
    ]  # fmt: skip
    return path, fit, caches


@pytest.mark.integration
def test_a_run_trains_is_judged_on_test_ratings_and_rates(start, tmp_path, capsys):
    path, fit, caches = start
    run = RunFolder(tmp_path / "run")
    assert main([*fit, f"test_ratings={path / 'tested.jsonl'}", f"run_dir={run.path}"]) == 0
    rows = [row for row in run.current_rows() if "val/accuracy" in row]
    assert [row["step"] for row in rows] == [2, 4] and 0 <= rows[-1]["val/accuracy"] <= 1
    numbers, intervals = run.metrics(), json.loads((run.path / "intervals.json").read_text())
    low, high = intervals["test/accuracy"]
    assert low <= numbers["test/accuracy"] <= high and "test/length_correlation" in numbers
    rated = [json.loads(line) for line in (run.predictions / "test.jsonl").read_text().splitlines()]
    assert len(rated) == sum(1 for _ in rankings("test", 12))
    page = run.report.read_text()
    assert "Rated pictures" in page and rated[0]["captions"][0] in page
    assert page.count(">training</text>") == page.count(">held out</text>") == 2
    assert "kendall_all" not in numbers  # places of two pictures are not compared
    rater = load_rater(str(run.path))
    source = rankings("test", 12)
    assert rater.encode.prompt == "" and next(source)["image"] == rated[0]["key"]
    words = [
        "task=curate", *DATA[:1], *caches, "data.train.source.count=20", "step=[keep_best]", "reward=[rater]",
        f"reward.rater.scorer.rater.ckpt={run.path}", "step.keep_best.share=0.2", f"out={tmp_path / 'kept'}",
    ]  # fmt: skip
    assert main(words) == 0
    lines = (tmp_path / "kept" / "train.jsonl").read_text().splitlines()
    assert len(lines) == 4
    with pytest.raises(UsageError, match=r"expected a rater, got ckpt=.* with a TwoTower"):
        load_rater(str(path / "encoder"))
    with pytest.raises(UsageError, match=r"expected a captioner or a dual encoder, got a rater; .* reward=\[rater\]"):
        capkit.load(run.path)
    with pytest.raises(UsageError, match=r"expected a captioner, got ckpt=.*, which holds a rater"):
        load_captioner(str(run.path))


@pytest.mark.integration
def test_scores_of_one_file_are_regressed_from_their_mean_in_epochs_of_them(start, tmp_path, capsys):
    path, fit, _ = start
    run = RunFolder(tmp_path / "run")
    words = [f"ratings={path / 'graded.jsonl'}", "objective=regression", "optimizer.lr=1e-6", f"run_dir={run.path}"]
    words += ["max_steps=null", "max_epochs=1", "val_every=null", "data.val=null", "data.test=null"]
    assert main([*fit, *words]) == 0
    (learned,) = [int(found) for found in re.findall(r"pictures with scored captions: (\d+)", capsys.readouterr().out)]
    assert run.metrics()["train/steps"] == math.ceil(learned / 4) < 10  # of 40 pictures, 30 % are held out
    given = [row["score"] for row in grades("train", 40)]
    rated = [json.loads(line) for line in (run.predictions / "held_out.jsonl").read_text().splitlines()]
    scores = [score for row in rated for score in row["scores"]]
    assert abs(sum(scores) / len(scores) - sum(given) / len(given)) < 1
    assert "held_out/kendall_all" in run.metrics()


@pytest.mark.nightly
@pytest.mark.parametrize("words", [[], BLIP, CHAT], ids=["dual_encoder", "blip", "chat"])
def test_an_interrupted_run_ends_as_the_uninterrupted_one(start, tmp_path, monkeypatch, words):
    _, fit, _ = start
    fit = [word for word in fit if not (words and word.startswith("model."))]
    assert main([*fit, *words, f"run_dir={tmp_path / 'once'}"]) == 0
    interrupt_and_resume([*fit, *words, f"run_dir={tmp_path / 'again'}"], RaterModule, monkeypatch)
    once, again = RunFolder(tmp_path / "once"), RunFolder(tmp_path / "again")
    kept = ("train/loss", "train/grad_norm", "train/rating/", "val/")
    assert numbers(again, *kept) == numbers(once, *kept) != []
    assert_equal_weights(again, once)


def of_the_test_split(rows):
    rows[3]["image"] = "test-0"


def of_one_caption(rows):
    rows[3] |= {"captions": ["a red circle"], "ranking": [0]}


def of_one_beginning(rows):
    for row in rows:
        row["captions"] = [f"picture {text}" for text in row["captions"]]


def all_tied(rows):
    for row in rows:
        row["ranking"] = [list(range(len(row["captions"])))]


@pytest.mark.integration
@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("change", "words", "told"),
    [
        (of_the_test_split, [], "ratings about pictures of data.train"),
        (of_one_caption, [], "line 4: expected two captions or more to rank, got 1"),
        (all_tied, [], "expected captions with different grades, got ties alone"),
        (None, ["held_out=0"], "expected ratings to train on and to validate"),
        (None, ["objective=regression"], "expected scores, got rankings"),
        (None, ["objective=cross_entropy"], "expected objective=bradley_terry or regression"),
        (None, ["model=sceneworld_small_clip"], "trains raters; got a TwoTower"),
        (None, ["data.transform.size=64"], "expected the pictures that the rater scores later"),
        (None, ["test_ratings={graded}"], "test_ratings: expected rankings"),
        (of_one_beginning, [*BLIP, "model.max_length=3"], "expected captions that differ as the rater reads them"),
    ],
    ids=[
        "test_split",
        "one_caption",
        "ties",
        "held_out",
        "regression",
        "objective",
        "model",
        "transform",
        "kind",
        "cut",
    ],
)
def test_what_cannot_be_trained_on_is_told_before_the_first_step(start, tmp_path, capsys, change, words, told):
    path, fit, _ = start
    if words and any(word.startswith("model=") for word in words):
        fit = [word for word in fit if not word.startswith("model.")]
    words = [word.replace("{graded}", str(path / "graded.jsonl")) for word in words]
    if change is not None:
        rows = [json.loads(line) for line in (path / "ranked.jsonl").read_text().splitlines()]
        change(rows)
        words = [*words, f"ratings={write(tmp_path / 'changed.jsonl', rows)}"]
    assert main([*fit, *words, f"run_dir={tmp_path / 'run'}"]) == 2
    assert told in capsys.readouterr().err
