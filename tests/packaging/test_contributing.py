"""The examples of CONTRIBUTING.md: files as it names them, put where it says, checked as configs and run."""

import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from capkit.config.instantiate import build
from capkit.decoding.config import Decoding
from capkit.models.captioners.base import Captioner
from capkit.models.captioners.headed import HeadedCaptioner
from capkit.scorers.reward import RewardTerm
from capkit.text.tokenizers import encode_captions, word_tokenizer
from capkit.types import CaptionBatch

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
# A path in backquotes at the end of a line, then the block with what the file holds.
FILES = dict(re.findall(r"`([\w./]+)`:\n\n```(?:python|yaml)\n(.*?)```", PAGE, flags=re.DOTALL))


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the package and its configs with the page's files added."""
    folder = tmp_path_factory.mktemp("contributed")
    for name in ("capkit", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, body in FILES.items():
        assert not (ROOT / name).exists(), f"{name}: an example must not stand in for a file that exists"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(body, encoding="utf-8")
    return folder


@pytest.fixture
def modules(tree, monkeypatch):
    """The page's modules importable by their names, for this test alone."""
    for name in FILES:
        if not name.startswith("capkit/"):
            continue
        dotted = name.removesuffix(".py").replace("/", ".")
        spec = importlib.util.spec_from_file_location(dotted, tree / name)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        package, _, last = dotted.rpartition(".")
        monkeypatch.setitem(sys.modules, dotted, module)
        monkeypatch.setattr(importlib.import_module(package), last, module, raising=False)


def config(tree, name):
    return OmegaConf.load(tree / name)


def test_the_page_has_a_reward_a_model_and_a_method():
    kinds = {Path(name).parent.as_posix() for name in FILES}
    assert {"capkit/scorers", "configs/reward", "tests/scorers"} <= kinds
    assert {"capkit/models/captioners", "configs/model", "configs/experiment"} <= kinds


def test_the_reward_takes_twenty_lines_of_code():
    code = FILES["capkit/scorers/reference_words.py"].split("class ReferenceWords")[1]
    lines = re.sub(r'""".*?"""', "", code, flags=re.DOTALL).splitlines()
    assert len([line for line in lines if line.strip()]) <= 20


def test_the_examples_pass_lint(tree):
    shutil.copy(ROOT / "pyproject.toml", tree)
    files = [name for name in FILES if name.endswith(".py")]
    for words in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *words, "--no-cache", *files]
        done = subprocess.run(command, cwd=tree, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_the_check_of_configs_accepts_the_examples(tree):
    """In a process of its own: arguments are read from the source of the package that is imported."""
    script = (
        "from capkit.cli import main\n"
        "from capkit.config.arguments import parse\n"
        "from capkit.config.check import problems\n"
        "from capkit.config.compose import compose_config\n"
        "words = ['experiment=reference_words_sceneworld', 'model=gru_captioner']\n"
        "print(problems(compose_config(parse(words)), with_inputs=False))\n"
        "main([*words, 'reward.reference_words.scorer.ignor=[a]'])\n"
    )
    environment = {"PYTHONPATH": str(tree), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"
    assert "did you mean 'reward.reference_words.scorer.ignore'?" in done.stderr


def test_the_tests_of_the_reward_pass(tree, modules):
    names: dict[str, object] = {}
    exec(FILES["tests/scorers/test_reference_words.py"], names)
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        test()
    term = build(config(tree, "configs/reward/reference_words.yaml"))
    assert isinstance(term, RewardTerm) and term.scorer.ignore == {"a", "an", "the"}


def test_the_model_keeps_the_protocol_and_writes_what_teacher_forcing_says(tree, modules):
    node = config(tree, "configs/model/gru_captioner.yaml").model
    torch.manual_seed(0)
    model = build(node, tokenizer=word_tokenizer(["a red circle", "two blue squares"])).eval()
    assert isinstance(model, HeadedCaptioner) and isinstance(model, Captioner)
    tokens, mask, _ = encode_captions(model.tokenizer, [["a red circle", "two"], ["blue", "blue squares"]], "", 8)
    batch = CaptionBatch(["0", "1"], pixels=torch.randn(2, 3, 64, 64), tokens=tokens, mask=mask)
    context = model.encode(batch)
    logits = model(context, tokens, mask)[:, :, :-1]
    wanted = logits.log_softmax(-1).gather(-1, tokens[..., 1:, None])[..., 0].masked_fill(~mask[..., 1:], 0)
    torch.testing.assert_close(model.logprobs(context, tokens, mask), wanted)
    for decoding, number in ((Decoding("sample", max_length=6), 3), (Decoding("beam", max_length=6, num_beams=3), 2)):
        samples = model.generate(context, decoding, number)
        again = model.logprobs(context, samples.tokens, samples.mask)
        torch.testing.assert_close(samples.logprobs, again, atol=1e-5, rtol=1e-4)


def test_commands_and_files_that_the_page_names_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)`", PAGE)) <= targets
    named = set(re.findall(r"`((?:capkit|configs|docs|tests)/[\w./]+)`", PAGE))
    assert [name for name in named - set(FILES) if not (ROOT / name).exists()] == []
