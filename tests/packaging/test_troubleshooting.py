"""docs/troubleshooting.md: symptoms that one CPU can have are provoked; the message is the one that the page quotes."""

import re
from pathlib import Path

import pytest
import torch

from capkit import entry
from capkit.cli import main
from capkit.errors import UsageError
from capkit.llm.base import Answer, Question
from capkit.llm.ledger import Ledger, NoAnswers
from capkit.metrics.coco.cider import cider
from capkit.model_loading import load_model
from capkit.run.folder import RunFolder

PAGE = (Path(__file__).parents[2] / "docs/troubleshooting.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in PAGE.splitlines() if line.startswith("| ")][
    2:
]


def symptom(start):
    """The symptom of the row that begins so, without its marks."""
    return next(row[0] for row in ROWS if row[0].strip('`"').startswith(start)).strip('`"')


def test_a_mistyped_key(capsys):
    assert main(["optimizer.lerning_rate=1e-3"]) == 2
    assert symptom("unknown key") in capsys.readouterr().err


def test_an_installation_without_torch(monkeypatch, capsys):
    found = entry.importlib.util.find_spec
    monkeypatch.setattr(entry.importlib.util, "find_spec", lambda name: None if name == "torch" else found(name))
    assert entry.main([]) == 2
    told = capsys.readouterr().err
    assert (
        symptom("expected what training needs").removesuffix(" ...") in told and "pip install 'capkit[train]'" in told
    )


def test_another_config(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.checkpoints.mkdir(parents=True)
    (folder.checkpoints / "step-00000001.ckpt").mkdir()
    folder.config_file.write_text("seed: 0\nmax_steps: 5\n")
    pattern = re.escape(symptom("the run in")).replace(r"\.\.\.", ".*")
    with pytest.raises(UsageError, match=pattern):
        folder.check({"seed": 1, "max_steps": 5}, trains=True)


def test_cider_of_one_image():
    with pytest.warns(UserWarning, match="CIDEr is 0 for any captions.*score the whole split"):
        assert cider(["a dog"], [["a dog on a beach"]]) == 0
    assert symptom("CIDEr is 0") and "score the whole split" in PAGE


def test_questions_that_mostly_fail():
    class Model:
        def about(self):
            return {"model": "m"}

    account = Ledger(max_failed=0.1).account("step/text", Model())
    with pytest.raises(NoAnswers) as ended:
        for number in range(50):
            account.judge(Question(f"question {number}"), Answer(None, "no reply"))
    assert f"status {ended.value.status}" in symptom("`capkit curate` stops early".strip("`"))
    assert str(ended.value).count("asked '") == 3 and "three are shown" in PAGE


def test_a_model_that_cannot_be_fetched(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UsageError) as told:
        load_model("somebody/no-such-captioner", torch.device("cpu"))
    assert "folder" in str(told.value)
    assert symptom("no model can be downloaded") and "folders in the place of names" in PAGE
