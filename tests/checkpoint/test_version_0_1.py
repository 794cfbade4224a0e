"""Runs that capkit 0.1 wrote, with the module and class names of then, go on and are read.

`version_0_1` holds three runs of four steps as they stood after two: a captioner, a dual encoder, the captioner under
self-critical training. Their metrics.jsonl has all four steps.
"""

import json
import shutil
from pathlib import Path

import pytest

from capkit.cli import main
from capkit.run.folder import RunFolder

RUNS = Path(__file__).parent / "version_0_1"
COMMON = [
    "max_steps=4", "val_every=2", "data.batch_size=8", "data.train.count=32", "data.val.count=4", "data.test.count=4",
    "trainer=cpu", "trainer.devices=1", "callback.recorder.every_steps=1", "callback.checkpoints.every_steps=2",
]  # fmt: skip
CAPTIONER = ["model.width=16", "model.image_encoder.channels=[4,4,4]", "eval_limit=4", "controls=0"]
DECODING = ["decoding.max_length=8", "metric=[cider,facts]"]
COMMANDS = {
    "fit": [*COMMON, *CAPTIONER, *DECODING],
    "fit_encoder": [
        *COMMON, "task=fit_encoder", "name=clip_pretrain_sceneworld", "evaluator.retrieval.fold_size=4",
        "optimizer.lr=2.0e-3", "optimizer.betas=[0.9,0.98]", "scheduler.warmup=0.15",
        "model.embed_dim=16", "model.image_tower.width=16", "model.image_tower.channels=[4,4,4]",
        "model.text_tower.config.hidden_size=16", "model.text_tower.config.intermediate_size=16",
        "model.text_tower.config.num_hidden_layers=1",
    ],
    "fit_rl": [
        "fit_rl", *COMMON, *DECODING, "eval_limit=4", "controls=0", "init_from=runs/fit", "reward=[cider,length]",
    ],
}  # fmt: skip


@pytest.fixture
def runs(tmp_path, monkeypatch):
    shutil.copytree(RUNS, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def steps(folder: Path) -> dict[int, dict[str, float]]:
    """Loss and gradient norm of each step, as it was trained last."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        row["step"]: {name: row[name] for name in ("train/loss", "train/grad_norm")}
        for row in rows
        if "train/loss" in row
    }


@pytest.mark.integration
@pytest.mark.parametrize("name", COMMANDS)
def test_a_run_of_version_0_1_goes_on_as_it_would_have_then(name, runs, capsys):
    expected = steps(RUNS / name)
    assert main([*COMMANDS[name], f"run_dir=runs/{name}"]) == 0
    assert f"continuing runs/{name} from step 2" in capsys.readouterr().out
    assert [row["attempt"] for row in RunFolder(runs / name).rows()][-1] == 2
    found = steps(runs / name)
    for step in (3, 4):
        assert found[step] == pytest.approx(expected[step], rel=1e-4)


@pytest.mark.integration
def test_a_captioner_of_version_0_1_captions(runs):
    words = ["trainer=cpu", "trainer.devices=1", "run_dir=runs/evaluated", "eval_limit=2"]
    assert main(["evaluate", "ckpt=runs/fit", *words]) == 0
    assert RunFolder(runs / "evaluated").metrics()
