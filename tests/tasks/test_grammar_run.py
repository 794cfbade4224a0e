"""experiment=grammar_clip from the command line, and its checkpoint as a reward."""

import json

import pytest
import torch

from capkit.checkpoint.loading import load_dual_encoder, read_checkpoint
from capkit.cli import main
from capkit.run.folder import RunFolder
from capkit.scorers.grammar import Grammar
from capkit.types import CaptionBatch, Samples

pytestmark = pytest.mark.integration

SMALL = [
    "debug=tiny",
    "trainer=cpu",
    "data.train.count=12",
    "data.val.count=4",
    "data.test.count=6",
    "data.train.size=32",
]
SCENES = [
    "experiment=grammar_clip_sceneworld", "model.image_tower.image_size=32", "model.image_tower.width=16",
    "model.text_tower.config.hidden_size=16", "model.text_tower.config.intermediate_size=16",
    "evaluator.grammar.num_captions=10",
]  # fmt: skip
PAPER = [
    "experiment=grammar_clip", "data=sceneworld", "data.num_workers=0", "evaluator=[grammar]", "model.name=null",
    "model.tokenizer=word", "model.max_length=48",
    "model.config={model_type:clip,projection_dim:8,"
    "text_config:{hidden_size:16,intermediate_size:16,num_hidden_layers:1,num_attention_heads:2},"
    "vision_config:{hidden_size:16,intermediate_size:16,num_hidden_layers:1,num_attention_heads:2,image_size:32,"
    "patch_size:16}}",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def scenes(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("grammar runs"))
        yield


@pytest.fixture(scope="module", params=["sceneworld", "paper"])
def run(request, scenes):
    words = SCENES if request.param == "sceneworld" else PAPER
    assert main([*words, *SMALL, f"run_dir=runs/{request.param}", "callback.recorder.every_steps=1"]) == 0
    return RunFolder(f"runs/{request.param}")


def test_a_run_logs_both_losses_and_leaves_a_row_for_each_edit(run):
    names = {name for row in run.rows() for name in row}
    assert {f"train/{name}" for name in ("info_nce/loss", "grammar/loss", "grammar/accuracy_edits")} <= names
    numbers = run.metrics()
    rows = [json.loads(line) for line in (run.predictions / "test" / "grammar.jsonl").read_text().splitlines()]
    assert len(rows) > numbers["test/grammar_captions"] * 5 > 0
    assert 0 < numbers["test/grammar_rejected_count"] < len(rows)


def test_only_text_tower_text_projection_scale_and_head_are_trained(run):
    names = set(read_checkpoint(run.checkpoints)["state_dict"])
    parts = {name.removeprefix("model.").split(".")[0] for name in names}
    assert parts == {"text_tower", "text_projection", "scale", "grammar_head"}


def test_the_checkpoint_scores_as_the_evaluator_did(run):
    rows = [json.loads(line) for line in (run.predictions / "test" / "grammar.jsonl").read_text().splitlines()]
    scorer = Grammar(load_dual_encoder(str(run.path)))
    scores = scorer(CaptionBatch([row["text"] for row in rows]), Samples.from_texts([[row["text"]] for row in rows]))
    torch.testing.assert_close(scores[:, 0], torch.tensor([row["probability"] for row in rows]), atol=1e-5, rtol=0)
