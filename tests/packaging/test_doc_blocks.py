"""Every fenced block of the documentation is run, checked or parsed; `UNRUN` and `ELSEWHERE` say what is not, and why.

A command of capkit is composed and checked as the program itself does before it starts, with the files that a reader
has. test_doc_python.py runs what is Python.
"""

import ast
import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from doc_blocks import (
    BLOCKS,
    ROOT,
    SHELL,
    commands,
    files,
    is_same_but_for_dots,
    shown,
    words_for_capkit,
    write_files,
)
from omegaconf import OmegaConf, open_dict

from capkit.cli import main
from capkit.config import check
from capkit.config.arguments import Command, parse
from capkit.config.compose import compose_config
from capkit.config.sweeps import single_runs

# Programs that no test starts by a block's words, and why.
UNRUN = {
    "pip": "fetches packages; that what it names exists is checked, and CI follows the README's lines",
    "python3": "makes or fills a folder that pip's line then uses; CI follows the README's lines",
    "pre-commit": "fetches its tools",
    "sbatch": "SLURM; the words that its script hands to capkit are checked, the script by test_launch.py",
    "srun": "SLURM; the words for capkit are checked",
    "launch/torchrun.sh": "another machine; the words for capkit are checked, the script by test_launch.py",
    "docker": "a daemon; compose's words for capkit are checked, the files by test_docker.py",
    "vllm": "a GPU; tests/vllm_stand_in.py speaks its protocol",
    "hf": "the hub",
    "wandb": "an account; its reader of the yaml is run by tests/run/test_wandb_runs.py",
    "ls": "the reader's own files",
    "head": "the reader's own files",
    "cat": "the reader's own files",
}
# Blocks of Python that other files run, as they stand.
ELSEWHERE = {
    "docs/api.md": "tests/test_api.py",
    "docs/extending.md": "tests/packaging/test_extending.py",
    "docs/walk.md": "tests/packaging/test_walk.py",
    "CONTRIBUTING.md": "tests/packaging/test_contributing.py",
    "README.md": "tests/packaging/test_readme.py",
}


def name(block):
    """The block's number on its page, which changes less often than its line."""
    return f"{block.page}-{[other for other in BLOCKS if other.page == block.page].index(block) + 1}"


def languages(*wanted):
    return pytest.mark.parametrize("block", [block for block in BLOCKS if block.language in wanted], ids=name)


def test_every_block_says_what_it_is():
    """`text` is what is printed, or drawn; everything else is run, checked or parsed."""
    known = ("bash", "console", "python", "pycon", "yaml", "json", "text")
    assert [block.place for block in BLOCKS if block.language not in known] == []
    assert len(SHELL) > 100 and len({block.page for block in BLOCKS}) > 50


def test_text_holds_no_command():
    commands = re.compile(r"(\$ |capkit |python |pip |>>> )(?!\[TASK\])")
    assert [block.place for block in BLOCKS if block.language == "text" and commands.match(block.text)] == []


# --- shell


@pytest.fixture(scope="module")
def heard(tmp_path_factory):
    """The words of each command, by block."""
    found = {block: [] for block in SHELL}
    for block, words in commands(SHELL, tmp_path_factory.mktemp("empty")):
        found[block].append(words)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files that pages of docs name above a block of theirs."""
    folder = tmp_path_factory.mktemp("reader")
    write_files(folder)
    return folder


@pytest.fixture
def reader(folder, monkeypatch):
    """A reader in that folder who has all else that pages name: files, a GPU, extras, runs to compare."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(check, "_missing_files", lambda *_: ())
    monkeypatch.setattr("capkit.config.rules.has_no_gpu", lambda: False)
    monkeypatch.setattr("capkit.config.rules.needs", lambda *_: ())
    monkeypatch.setattr("capkit.config.rules.problem_with_runs", lambda *_: None)
    return monkeypatch


def wrong_in(words, is_whole):
    """What capkit would say before it starts; without the rest of a command that is not whole, of what is there."""
    command = parse(words)
    if "list" in command.flags:
        return []
    only_looks = bool({"show", "--cfg"} & command.flags)
    found = []
    for run in single_runs(command) if command.multirun else [command]:
        composed = compose_config(run)
        cells = [cell for row in composed.cells.values() for cell in row.values()]
        for one in (composed, *cells):
            found += check.problems(one, with_inputs=is_whole and not only_looks)
    return found


@pytest.mark.integration
@pytest.mark.unchecked
@languages("bash", "console")
def test_commands_are_composed_and_checked(block, heard, reader):
    fails = {command for command, output in shown(block) if output.startswith("error: ")}
    for words in heard[block]:
        given = words_for_capkit(words)
        if given is not None and f"capkit {' '.join(given)}" not in fails:
            rest = [word for word in given if word != "..."]  # `...`: and what the reader likes
            assert wrong_in(rest, is_whole=rest == given) == [], f"{block.place}: {' '.join(words)}"


@languages("console")
def test_errors_are_those_that_are_shown(block, heard, folder, monkeypatch, capsys):
    """`...` stands for any words."""
    monkeypatch.chdir(folder)
    for name in ("runs/a/checkpoints", "photos"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for words, (command, output) in zip(heard[block], shown(block), strict=False):
        if output.startswith("error: "):
            assert main(words[1:]) == 2
            assert is_same_but_for_dots(output, capsys.readouterr().err.strip()), command


def test_programs_that_no_test_starts_are_listed(heard):
    started = {words[0] for found in heard.values() for words in found} - {"capkit", "python"}
    assert started == set(UNRUN)


def test_what_pip_is_told_to_install_is_there(heard):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [words for found in heard.values() for words in found if words[0] == "pip"]
    for line in lines:
        named = [extra for word in line for extras in re.findall(r"\[([\w,]+)\]", word) for extra in extras.split(",")]
        assert set(named) <= set(project["optional-dependencies"]), line
        if "-c" in line and not line[line.index("-c") + 1].startswith(
            "unpacked/"
        ):  # that one is unpacked from the wheel
            assert (ROOT / line[line.index("-c") + 1]).is_file()
    assert len(lines) >= 10


def test_scripts_of_the_repository_take_the_options_that_they_are_given(heard):
    """Their source has each option, and each name that is given to `--only`."""
    for found in heard.values():
        for words in found:
            if words[0] != "python" or words[1] == "train.py":
                continue
            is_module = words[1] == "-m"
            script, rest = (words[2], words[3:]) if is_module else (words[1], words[2:])
            if script == "pytest":
                assert all((ROOT / word).exists() for word in rest if word.startswith("tests/"))
                continue
            path = ROOT / script.replace(".", "/") if is_module else ROOT / script
            file = next((one for one in (path.with_suffix(".py"), path / "__main__.py") if one.is_file()), None)
            assert file, f"{script}: no such script"
            strings = {node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant)}
            named = [word for word in rest if word.startswith("--")]
            if "--only" in rest:
                after = rest[rest.index("--only") + 1 :]
                named += after[: next((n for n, word in enumerate(after) if word.startswith("--")), None)]
            assert [word for word in named if word not in strings] == [], f"{script} {rest}"


# --- data


@languages("json")
def test_json_is_rows_or_a_list(block):
    """Rows of a JSONL may go on in the next line for the page's width."""
    text, rows = block.text.strip(), []
    while text:
        row, end = json.JSONDecoder().raw_decode(text)
        rows, text = [*rows, row], text[end:].strip()
    assert rows and all(isinstance(row, dict) for row in (rows[0] if isinstance(rows[0], list) else rows))


# Where a block of yaml belongs: words of a command, and the key that it stands below.
PLACES = {
    "docs/curate.md": (["curate", "step=[write_candidates]", "out=x"], ""),
    "docs/encoders_evaluation.md": (["metric=[retrieval]"], ""),
    "docs/monitors.md": (["fit_rl", "callback=[degeneration]", "init_from=x"], "callback.degeneration"),
}


@languages("yaml")
def test_yaml_is_taken_by_the_part_it_is_for(block, reader):
    body = yaml.safe_load(block.text)
    assert isinstance(body, dict)
    if block.page not in PLACES:  # a file by its name, which a command of the page chooses
        assert block.text in files(ROOT / block.page).values() and block.page in ELSEWHERE | {
            "docs/configuration.md": ""
        }
        return
    words, key = PLACES[block.page]
    composed = compose_config(Command(parse(words).overrides))
    with open_dict(composed.config):
        composed.config.merge_with(OmegaConf.create({key.split(".")[0]: {key.split(".")[1]: body}} if key else body))
    assert check.problems(composed, with_inputs=False) == []


# --- Python


def test_python_that_others_run_is_run_there():
    for page, test in ELSEWHERE.items():
        assert Path(page).name in (ROOT / test).read_text(encoding="utf-8")


def test_python_of_the_other_pages_runs_here():
    here = {block.page for block in BLOCKS if block.language in ("python", "pycon")} - set(ELSEWHERE)
    tests = (Path(__file__).parent / "test_doc_python.py").read_text(encoding="utf-8")
    assert here and [page for page in here if f'"{page}"' not in tests] == []
