"""task=collect_preferences and task=fit_preferences from the command line's `main`."""

import json

import pytest
from interrupted import assert_equal_weights, interrupt_and_resume, numbers
from tiny_fit_run import MODEL

from capkit.cli import main
from capkit.data.preference_files import read_preferences
from capkit.run.folder import RunFolder
from capkit.tasks.collect_preferences import pairs_of
from capkit.text.ptb import ptb_words
from capkit.train.preferences.module import PreferenceModule

DATA = [
    "debug=tiny",
    "data.train.count=16",
    "data.val.count=4",
    "data.test.count=4",
    "decoding.max_length=6",
    "controls=0",
]
ADAPTERS = "model.lora={decoder: {rank: 2, targets: [query_key_value]}}"


def collect(path):
    caches = [f"data.{split}.cache_dir={path / 'scenes'}" for split in ("train", "val", "test")]
    return [
        "task=collect_preferences", f"ckpt={path / 'mle'}", "reward=[length]", "reward.length.scorer.shortest=4",
        "reward.length.scorer.longest=4", "num_samples=4", *caches, "data.train.count=16", "decoding.max_length=6",
        "pairs_per_image=2",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """The words of a tiny captioner's data, its run, and pairs of its captions by their length."""
    path = tmp_path_factory.mktemp("preferences")
    caches = [f"data.{split}.cache_dir={path / 'scenes'}" for split in ("train", "val", "test")]
    assert main([*DATA, *MODEL, *caches, "max_steps=2", "val_every=2", f"run_dir={path / 'mle'}"]) == 0
    assert main([*collect(path), f"out={path / 'pairs.jsonl'}"]) == 0
    fit = [
        "task=fit_preferences", *DATA, *caches, f"init_from={path / 'mle'}", f"pairs={path / 'pairs.jsonl'}",
        "held_out=0.3", "callback=[progress,recorder,checkpoints]", "callback.checkpoints.every_steps=1",
        "callback.recorder.every_steps=1", "max_steps=4", "val_every=2", "data.batch_size=4", "optimizer.lr=1e-2",
    ]  # fmt: skip
    return path, fit


@pytest.mark.integration
def test_pairs_are_those_of_the_scorer_with_their_ids_and_the_same_each_time(start, tmp_path):
    path, _ = start
    pairs = read_preferences(path / "pairs.jsonl")
    assert len({pair.image for pair in pairs}) > 8
    for pair in pairs:
        better, worse = (1 - abs(len(ptb_words(text)) - 4) / 6 for text in (pair.chosen, pair.rejected))
        assert pair.criterion == "length" and pair.scores == pytest.approx((better, worse))
        assert better - worse >= 0.1 and all(
            len(ids) >= len(text.split()) for ids, text in zip(pair.tokens, (pair.chosen, pair.rejected), strict=True)
        )
    assert main([*collect(path), f"out={tmp_path / 'again.jsonl'}"]) == 0
    assert (tmp_path / "again.jsonl").read_bytes() == (path / "pairs.jsonl").read_bytes()
    about = json.loads((path / "pairs.jsonl.about.json").read_text())
    assert about["decoding"]["method"] == "sample" and about["hash"] and about["reward"]["length"]["longest"] == 4


@pytest.mark.integration
def test_captions_that_training_would_cut_are_in_no_pair(start, tmp_path, capsys):
    """Six new tokens and BOS are seven, where data.max_length is six: such pairs could not be trained on."""
    path, fit = start
    pairs = tmp_path / "pairs.jsonl"
    many = ["num_samples=40", "margin=0.01"]  # of which few end
    assert main([*collect(path), "data.max_length=6", *many, f"out={pairs}"]) == 0
    assert "captions are longer than data.max_length=6 and in no pair" in capsys.readouterr().out
    assert max(len(ids) for pair in read_preferences(pairs) for ids in pair.tokens) <= 5
    words = ["data.max_length=6", "max_steps=1", "val_every=1", f"pairs={pairs}", f"run_dir={tmp_path / 'run'}"]
    assert main([*fit, *words]) == 0
    (tmp_path / "pairs.jsonl").write_text((path / "pairs.jsonl").read_text())
    assert main([*fit, *words[:3], f"pairs={pairs}", f"run_dir={tmp_path / 'again'}"]) == 2
    assert "got 7; give data.max_length=7 or more, or collect with decoding.max_length=5" in capsys.readouterr().err


@pytest.mark.integration
def test_a_run_trains_validates_on_held_out_pairs_and_reports(start, tmp_path):
    _, fit = start
    run = RunFolder(tmp_path / "run")
    assert main([*fit, "reference=kept", "trainer.precision=bf16-mixed", f"run_dir={run.path}"]) == 0
    rows = [row for row in run.current_rows() if "val/preference/margin" in row]
    assert [row["step"] for row in rows] == [0, 2, 4] and rows[0]["val/preference/margin"] == pytest.approx(0, abs=1e-6)
    assert {"test/cider", "test/initial/cider", "train/steps"} <= run.metrics().keys()
    page = run.report.read_text()
    assert "Held-out pairs" in page and page.count('class="side chosen" dir') > 2
    assert page.count(">training</text>") == page.count(">held out</text>") == 4  # loss, accuracy, margin, fall
    assert page.count(">chosen</text>") == page.count(">rejected</text>") == 2  # held out, training
    assert run.read_rows("initial")[0]["caption"] in page


@pytest.mark.nightly
@pytest.mark.parametrize("words", [[], [ADAPTERS], ["reference=kept"]], ids=["copy", "adapters", "kept"])
def test_an_interrupted_run_ends_as_the_uninterrupted_one(start, tmp_path, monkeypatch, words):
    _, fit = start
    assert main([*fit, *words, f"run_dir={tmp_path / 'once'}"]) == 0
    interrupt_and_resume([*fit, *words, f"run_dir={tmp_path / 'again'}"], PreferenceModule, monkeypatch)
    once, again = RunFolder(tmp_path / "once"), RunFolder(tmp_path / "again")
    kept = ("train/loss", "train/grad_norm", "train/preference/", "val/")
    assert numbers(again, *kept) == numbers(once, *kept) != []
    assert_equal_weights(again, once)


def changed(path, tmp_path, change):
    rows = [json.loads(line) for line in (path / "pairs.jsonl").read_text().splitlines()]
    change(rows)
    (tmp_path / "changed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"pairs={tmp_path / 'changed.jsonl'}"


@pytest.mark.integration
def test_epochs_are_of_pairs_and_the_val_split_may_be_left_out(start, tmp_path):
    path, fit = start
    lines = (path / "pairs.jsonl").read_text().splitlines()
    first = json.loads(lines[0])["image"]
    own = [line for line in lines if json.loads(line)["image"] == first]
    for name, rows in (("pairs", own), ("val_pairs", lines[len(own) :])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    run = RunFolder(tmp_path / "run")
    words = [f"{name}={tmp_path / name}.jsonl" for name in ("pairs", "val_pairs")]
    words += ["max_steps=null", "max_epochs=3", "val_every=null", "data.val=null"]
    words += ["data.batch_size=1", "micro_batch_size=1"]
    assert main([*fit, *words, f"run_dir={run.path}"]) == 0
    validated = [row["step"] for row in run.current_rows() if "val/loss" in row]
    assert validated == [0, len(own), 2 * len(own), 3 * len(own)]


def of_the_test_split(rows):
    rows[3]["image"] = "test-0"


def ids_of_another(rows):
    rows[3]["tokens"] = [ids[::-1] for ids in rows[3]["tokens"]]


def cut_before_they_differ(rows):
    for row in rows:
        row["tokens"] = None
    rows[3] |= {"chosen": "a red circle above a square", "rejected": "a red circle above a triangle"}


def asked(rows):
    rows[3]["prompt"] = "what is it?"


@pytest.mark.integration
@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("change", "words", "told"),
    [
        (of_the_test_split, [], "pairs about pictures of data.train"),
        (ids_of_another, [], "expected token ids of"),
        (cut_before_they_differ, ["data.max_length=5"], "differ within data.max_length=5 tokens"),
        (asked, [], "expected captions without prompts"),
        (None, ["held_out=0"], "expected pairs to train on and to validate"),
        (None, ["reference=trained"], "reference must be policy or kept"),
        (None, ["objective=cross_entropy"], "expected objective=dpo"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_cannot_be_trained_on_is_told_before_the_first_step(start, tmp_path, capsys, change, words, told):
    path, fit = start
    pairs = [] if change is None else [changed(path, tmp_path, change)]
    assert main([*fit, *pairs, *words, f"run_dir={tmp_path / 'run'}"]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.integration
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["reward.length.weight=-1"], "reward.length.weight: expected more than 0"),
        (["reward.length.clip=[0.9,1]", "margin=0.2"], "no two captions of a picture differ"),
        (["decoding.method=greedy"], "expected decoding.method=sample, got greedy"),
        (["form=xml"], "expected form to be one of"),
        (["margins={cider: 1}"], "expected names of reward's terms, length; got 'cider'"),
        (["margins={length: wide}"], "margins on the command line: expected dict[str, PositiveFloat], got"),
    ],
)
def test_what_makes_no_pairs_is_told(start, tmp_path, capsys, words, told):
    path, _ = start
    assert main([*collect(path), f"out={tmp_path / 'pairs.jsonl'}", *words]) == 2
    assert told in capsys.readouterr().err and not (tmp_path / "pairs.jsonl").exists()


@pytest.mark.parametrize(
    ("scores", "margin", "most", "pairs"),
    [
        ([3.0, 1.0, 2.0], 1.0, None, [(0, 1), (0, 2), (2, 1)]),
        ([3.0, 1.0, 2.0], 1.0, 1, [(0, 1)]),
        ([3.0, 1.0, 2.0], 2.0, None, [(0, 1)]),
        ([3.0, 3.0, 3.0], 0.1, None, []),
        ([float("nan"), 1.0, 2.0], 1.0, None, [(2, 1)]),
    ],
)
def test_the_widest_differences_make_pairs(scores, margin, most, pairs):
    assert pairs_of(["x", "y", "z"], scores, margin, most) == pairs


def test_equal_and_empty_captions_are_in_one_pair_at_most():
    assert pairs_of(["x", "x", "", "y"], [5.0, 5.0, 0.0, 1.0], 1.0, None) == [(0, 3)]
