"""Texts are scored where nothing but the core dependencies is installed: no torch, no Hydra."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from capkit import entry
from capkit.metrics.__main__ import main
from capkit.metrics.coco.cider import cider

ROOT = Path(__file__).parents[2]
MODULES = {"pillow": "PIL", "hydra-core": "hydra"}  # where a module has another name than its distribution
# What those import themselves.
THEIRS = {"typeguard", "wadler_lindig", "pygments", "markdown_it", "mdurl", "_distutils_hack"}
PREDICTED = {"1": "a dog on a beach", "2": "a red bus", "3": "two cats"}
REFERENCES = {"1": ["a dog runs on the beach", "a dog at the sea"], "2": ["a red double-decker bus"], "3": ["two cats"]}
ONLY = """
import sys
wanted = set(sys.argv[1].split(","))
class Only:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in wanted | set(sys.stdlib_module_names) | {"capkit"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Only())
"""
ALONE_API = f"""{ONLY}
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name not in wanted else found(name, package)
import capkit
eval(sys.argv[2])
"""
ALONE = f"""{ONLY}
from capkit.metrics import bleu, cider, rouge_l
from capkit.metrics.bootstrap import bootstrap_interval
from capkit.metrics.__main__ import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture
def files(tmp_path):
    for name, content in (("predicted", PREDICTED), ("references", REFERENCES)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return [str(tmp_path / "predicted.json"), str(tmp_path / "references.json")]


def core():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = (Requirement(line).name for line in project["dependencies"])
    return {MODULES.get(name, name) for name in names}


def test_the_core_dependencies_alone_score_two_files(files, tmp_path):
    assert not core() & {"torch", "lightning", "transformers", "torchmetrics", "hydra-core"}
    command = [sys.executable, "-c", ALONE, ",".join(core() | THEIRS), *files, "--out", str(tmp_path / "out.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    numbers = json.loads((tmp_path / "out.json").read_text())
    assert numbers["cider"] == pytest.approx(cider(list(PREDICTED.values()), list(REFERENCES.values())), abs=1e-12)
    assert list(numbers) == ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider"]
    assert done.stdout.splitlines()[-1] == "3 images"


def test_torch_is_not_imported_where_it_is_installed(files):
    told = "import sys; from capkit.metrics.__main__ import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", told, *files], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    "more, told",
    [
        (["--metrics", "cidr"], "metrics has no 'cidr'; did you mean 'cider'?"),
        (["--out", str(ROOT / "docs")], "expected a new file or a regular one"),
        (["--document-frequencies", "none.safetensors"], "none.safetensors"),
    ],
)
def test_wrong_words_are_told_before_anything_is_scored(more, told, files, capsys):
    assert main([*files, *more]) == 2
    captured = capsys.readouterr()
    assert told in captured.err and not captured.out


def test_an_image_without_a_prediction_is_an_error_unless_it_is_ignored(files, tmp_path, capsys):
    (tmp_path / "predicted.json").write_text(json.dumps({"1": "a dog", "2": "a bus"}))
    assert main(files) == 2
    assert "1 of 3 have none: 3" in capsys.readouterr().err
    assert main([*files, "--missing", "ignore", "--metrics", "rouge"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 images"


def test_a_number_that_says_little_is_noted(files, tmp_path, capsys):
    (tmp_path / "references.json").write_text(json.dumps({key: ["a dog"] for key in PREDICTED}))
    assert main(files) == 0
    assert "note: all 3 images have the same references" in capsys.readouterr().err


def test_the_command_says_how_to_score_and_how_to_train_where_it_cannot_train(monkeypatch, capsys):
    monkeypatch.setattr(entry, "NEEDED", ("json", "a_package_that_is_not_there"))
    assert entry.main() == 2
    told = capsys.readouterr().err
    assert "got no a_package_that_is_not_there" in told
    assert "`python -m capkit.metrics PREDICTIONS REFERENCES`" in told and "pip install 'capkit[train]'" in told


def test_what_the_command_needs_is_what_the_extra_brings():
    """Import names of the extra, without DeepSpeed and wandb, which are imported where they are asked for."""
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["train"]
    names = {Requirement(line).name for line in extra} - {"deepspeed", "wandb"}
    assert {MODULES.get(name, name) for name in names} == set(entry.NEEDED)


@pytest.mark.parametrize("call", ["capkit.load('runs/first')", "capkit.score(['a'], [['a']])", "capkit.train()"])
def test_the_python_api_says_what_to_install(call):
    done = subprocess.run(
        [sys.executable, "-c", ALONE_API, ",".join(core() | THEIRS), call], cwd=ROOT, capture_output=True, text=True
    )
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: capkit.api: expected what training needs, got no torch, ")
    assert last.endswith("pip install 'capkit[train]'")


def test_python_m_is_the_command():
    done = subprocess.run([sys.executable, "-m", "capkit", "--version"], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.startswith("capkit ") and done.returncode == 0
