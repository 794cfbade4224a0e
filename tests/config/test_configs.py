"""Every config that ships composes, and says nothing that its constructors do not take."""

import functools
import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from capkit.config.arguments import parse
from capkit.config.check import leaves, problems
from capkit.config.compose import compose_config
from capkit.config.composed import CONFIG_NAME
from capkit.config.locations import PICK_ANY, config_dir, groups
from capkit.config.signatures import signature

GROUPS = groups([config_dir()])
CHOICES = [(group, name) for group, names in GROUPS.items() for name in names]


@functools.cache
def composed(*words):
    return compose_config(parse(list(words)))


def typed(group, name):
    return f"{group}=[{name}]" if group in PICK_ANY else f"{group}={name}"


def targets():
    """Every `_target_` of every file, as written."""
    found = set()
    for group, name in CHOICES:
        body = yaml.safe_load((config_dir() / group / f"{name}.yaml").read_text()) or {}
        found |= {str(value) for key, value in leaves(body) if key.rsplit(".", 1)[-1] == "_target_"}
    return sorted(found)


def test_the_default_run_is_sound():
    assert problems(composed()) == []


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_choice_composes_and_is_sound(group, name):
    assert problems(composed(typed(group, name)), with_inputs=False) == []


# Tasks that use a trained captioner, and debug presets. Each experiment with one of them in CI, with all at night.
CHANGES = ["task=evaluate", "task=caption", *(f"debug={name}" for name in GROUPS.get("debug", []))]
CHANGED = [
    pytest.param(experiment, change, marks=pytest.mark.nightly if (i + j) % len(CHANGES) else pytest.mark.integration)
    for i, experiment in enumerate(GROUPS.get("experiment", []))
    for j, change in enumerate(CHANGES)
]


@pytest.mark.parametrize(("experiment", "change"), CHANGED)
def test_every_experiment_is_sound_under_tasks_that_use_a_trained_captioner_and_debug_presets(experiment, change):
    assert problems(composed(f"experiment={experiment}", change), with_inputs=False) == []


def brings_others(group, name):
    """A preset: its package is the group itself, and its defaults list names the entries that it brings."""
    return (config_dir() / group / f"{name}.yaml").read_text().startswith(f"# @package {group}\n")


def brought(group, name):
    """The name of a file's entry: that of the file, unless its package says another one."""
    first = (config_dir() / group / f"{name}.yaml").read_text().split("\n")[0]
    return first.removeprefix(f"# @package {group}.") if first.startswith(f"# @package {group}.") else name


@pytest.mark.parametrize(
    ("group", "name"), [pair for pair in CHOICES if pair[0] in PICK_ANY and not brings_others(*pair)]
)
def test_entries_of_pick_any_groups_keep_their_names(group, name):
    assert brought(group, name) in OmegaConf.to_container(composed(typed(group, name)).config)[group]


@pytest.fixture
def experiment(tmp_path):
    """Writes an experiment of a user's own; the words that run it, and its file."""

    def write(text: str) -> tuple[tuple[str, ...], Path]:
        file = tmp_path / "experiment" / "mine.yaml"
        file.parent.mkdir()
        file.write_text(f"# @package _global_\n{text}")
        return ("--config-dir", str(tmp_path), "experiment=mine"), file

    return write


@pytest.mark.parametrize("group", PICK_ANY)
def test_settings_of_a_part_that_is_not_chosen_are_refused(group, experiment):
    words, file = experiment(f"{group}: {{other: {{size: 8}}}}\n")
    for typed in ((), (f"{group}=[]",), ("task=fit_rl",)):
        found = problems(composed(*words, *typed), with_inputs=False)
        told = f"{group}.other has settings but is not chosen: {group}.other.size in {file}; "
        assert [problem for problem in found if problem.startswith(told)], typed


@pytest.mark.parametrize("group", PICK_ANY)
def test_settings_of_a_part_go_where_the_command_line_chooses_others(group, experiment):
    name = next(name for name in GROUPS[group] if not brings_others(group, name) and brought(group, name) == name)
    words, _ = experiment(f"defaults:\n  - override /{group}: [{name}]\n{group}: {{{name}: {{size: 8}}}}\n")
    assert name in composed(*words).config[group]
    left = composed(*words, f"{group}=[]")
    assert name not in left.config[group] and problems(left, with_inputs=False) == []


def test_the_fix_for_settings_of_a_part_that_is_not_chosen_keeps_those_that_are():
    words = ("experiment=clip_pretrain_sceneworld", "evaluator=[sts_scenes]", "evaluator.retrieval.fold_size=8")
    (problem,) = problems(composed(*words), with_inputs=False)
    assert "evaluator.retrieval.fold_size on the command line; add evaluator=[sts_scenes,retrieval]" in problem


@pytest.mark.parametrize("task", GROUPS["task"])
def test_every_task_names_a_function_of_one_config_and_says_what_it_does(task):
    target = OmegaConf.to_container(composed(f"task={task}").config)["task"]["_target_"]
    found = signature(target)
    assert found is not None and list(found.arguments) == ["cfg"]
    text = (config_dir() / "task" / f"{task}.yaml").read_text()
    assert [line for line in text.splitlines() if line.startswith("# ") and not line.startswith("# @")]


@pytest.mark.parametrize("target", targets())
def test_signatures_read_from_source_are_those_that_python_has(target):
    module, _, name = target.rpartition(".")
    python = dict(inspect.signature(getattr(importlib.import_module(module), name)).parameters)
    named: Any = [key for key, value in python.items() if value.kind not in (value.VAR_KEYWORD, value.VAR_POSITIONAL)]
    found = signature(target)
    assert found is not None, "source must tell what a config of ours may set"
    assert list(found.arguments) == named


def test_every_group_has_its_place_in_the_defaults_list():
    defaults = yaml.safe_load((config_dir() / f"{CONFIG_NAME}.yaml").read_text())["defaults"]
    listed = {key.removeprefix("optional ") for entry in defaults if isinstance(entry, dict) for key in entry}
    assert set(GROUPS) <= listed
