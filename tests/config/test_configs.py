"""Every config that ships composes, and says nothing that its constructors do not take."""

import functools
import importlib
import inspect
import itertools
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
from capkit.errors import UsageError

GROUPS = groups([config_dir()])
PICK_ONE = ("curriculum", "objective", "scheduler", "optimizer", "decoding", "model", "data")
OF_ANOTHER_FORM = {("ndlb_bagcurri_sceneworld", "bags_by_level")}  # `stages` is a mapping in one, a list in the other
CHOICES = [(group, name) for group, names in GROUPS.items() for name in names]


@functools.cache
def composed(*words):
    return compose_config(parse(list(words)))


def typed(group, name):
    return f"{group}=[{name}]" if group in PICK_ANY else f"{group}={name}"


def written(composed):
    """The values of a config by dotted key."""
    return dict(leaves(OmegaConf.to_container(composed.config, resolve=False)))


def targets():
    """Every `_target_` of every file, as written."""
    found = set()
    for group, name in CHOICES:
        body = yaml.safe_load((config_dir() / group / f"{name}.yaml").read_text()) or {}
        found |= {str(value) for key, value in leaves(body) if key.rsplit(".", 1)[-1] == "_target_"}
    return sorted(found)


def test_the_default_run_is_sound():
    assert problems(composed()) == []


# Parts of "pick any" groups do not depend on each other: the first of every group are chosen together, the second ...
PARTS = [group for group in PICK_ANY if group in GROUPS]
TOGETHER = list(itertools.zip_longest(*([typed(group, name) for name in GROUPS[group]] for group in PARTS)))
TOGETHER = [tuple(filter(None, words)) for words in TOGETHER]
ALONE = [(typed(group, name),) for group, name in CHOICES if group not in PICK_ANY]


@pytest.mark.parametrize("words", [*TOGETHER, *ALONE], ids=" ".join)
def test_every_choice_composes_and_is_sound(words):
    assert problems(composed(*words), with_inputs=False) == []


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
    words = next(words for words in TOGETHER if typed(group, name) in words)
    assert list(OmegaConf.to_container(composed(*words).config)[group]) == [brought(group, name)]


@pytest.fixture
def experiment(tmp_path):
    """Writes an experiment of a user's own; the words that run it, and its file."""

    def write(text: str) -> tuple[tuple[str, ...], Path]:
        file = tmp_path / "experiment" / "mine.yaml"
        file.parent.mkdir()
        file.write_text(f"# @package _global_\n{text}")
        return ("--config-dir", str(tmp_path), "experiment=mine"), file

    return write


def lines(*blocks):
    return "".join(f"{block}\n" for block in blocks)


NO_PARTS = tuple(f"{group}=[]" for group in PICK_ANY)


@pytest.mark.parametrize("typed", [(), NO_PARTS, ("task=fit_rl",)], ids=" ".join)
def test_settings_of_a_part_that_is_not_chosen_are_refused(typed, experiment):
    words, file = experiment(lines(*(f"{group}: {{other: {{size: 8}}}}" for group in PICK_ANY)))
    found = problems(composed(*words, *typed), with_inputs=False)
    for group in PICK_ANY:
        told = f"{group}.other has settings but is not chosen: {group}.other.size in {file}; "
        assert [problem for problem in found if problem.startswith(told)], group


def own_name(group):
    """A choice that brings one part, of its own name."""
    return own_names(group)[0]


def own_names(group):
    return [name for name in GROUPS[group] if not brings_others(group, name) and brought(group, name) == name]


def one_part_of_each(groups=PICK_ANY):
    """An experiment that chooses a part of each group, and sets a value of it."""
    chosen = [f"  - override /{group}: [{own_name(group)}]" for group in groups]
    return lines("defaults:", *chosen, *(f"{group}: {{{own_name(group)}: {{size: 8}}}}" for group in groups))


def test_settings_of_a_part_go_where_the_command_line_chooses_others(experiment):
    words, _ = experiment(one_part_of_each())
    left = composed(*words, *NO_PARTS)
    assert problems(left, with_inputs=False) == []
    deleted = [f"~{group}.{own_name(group)}" for group in PICK_ANY]
    by_hand = composed(*words, *(f"{group}=null" for group in PICK_ANY), *deleted)
    for group in PICK_ANY:
        assert composed(*words).config[group][own_name(group)]["size"] == 8
        assert own_name(group) not in left.config[group]
        assert by_hand.config[group] == left.config[group], "no longer needed"


def test_settings_of_a_part_go_where_a_list_without_it_is_chosen(experiment):
    others = {group: own_names(group)[1:3] for group in PICK_ANY if len(GROUPS[group]) > 1}
    words, _ = experiment(one_part_of_each(others))
    left = composed(*words, *(f"{group}=[{','.join(names)}]" for group, names in others.items()))
    assert {group: list(left.config[group]) for group in others} == others


@pytest.mark.parametrize("group", PICK_ANY)
def test_settings_that_are_typed_for_a_part_that_is_not_chosen_are_refused_by_name(group, experiment):
    name = own_name(group)
    words, _ = experiment(f"defaults:\n  - override /{group}: [{name}]\n{group}: {{{name}: {{size: 8}}}}\n")
    for before in (words, ()):
        with pytest.raises(UsageError) as caught:
            compose_config(parse([*before, f"{group}=[]", f"{group}.{name}.size=8"]))
        told = f"unknown key '{group}.{name}' on the command line; choose it first: {group}=[{name}]"
        assert str(caught.value) == told


@pytest.mark.parametrize("group", PICK_ANY)
def test_a_wrong_name_of_a_part_is_refused_with_the_right_one(group):
    name, typo = own_name(group), f"{own_name(group)}x"
    with pytest.raises(UsageError, match=f"there is no {group} '{typo}'; did you mean '{name}'"):
        compose_config(parse([f"{group}=[{typo}]"]))
    for chosen in ([], [f"{group}=[{name}]"]):
        with pytest.raises(UsageError, match=f"unknown key '{group}.{typo}' .*; did you mean '{group}.{name}'"):
            compose_config(parse([*chosen, f"{group}.{typo}.size=8"]))


@pytest.mark.parametrize("group", PICK_ANY)
def test_no_part_is_written_as_an_empty_list(group):
    with pytest.raises(UsageError, match=rf"~{group}: expected a list of names; for none, write {group}=\[\]"):
        compose_config(parse([f"~{group}"]))


def test_settings_of_a_tasks_own_part_go_where_the_command_line_chooses_others():
    left = composed("task=fit_memes", "callback=[progress]")  # the task says what checkpoints monitor
    assert list(left.config.callback) == ["progress"] and problems(left, with_inputs=False) == []


SHUFFLED = "experiment=clip_reward_shuffled_sceneworld"  # sets reward.clip_score.scorer.scorer.encoder.ckpt, a weight


@pytest.mark.parametrize(
    ("words", "weights"),
    [
        ([SHUFFLED, "reward=[clip_score]"], {"clip_score": None}),
        ([SHUFFLED, "reward=[clip_score_trained,length]"], {"clip_score": None, "length": None}),
        (["experiment=clip_reward_grammar_sceneworld", "reward=clips_grammar_paper"], {"clip_score": 1, "grammar": 2}),
        (["experiment=clip_reward_grammar_sceneworld", "reward=[clip_score_trained]"], {"clip_score": 2}),
        ([SHUFFLED, "reward=[clip_score]", "reward.clip_score.weight=3"], {"clip_score": 3}),
    ],
)
def test_settings_of_a_part_do_not_pass_to_another_of_the_same_name(words, weights):
    left = composed(*words)
    assert {name: term.get("weight") for name, term in left.config.reward.items()} == weights
    assert problems(left, with_inputs=False) == []


REPLACED = [  # group, a choice, what it alone takes, what both take, the other choice
    ("curriculum", "bags", "folder: runs/bags", "seed: 3", "shuffle"),
    ("objective", "ranking_hinge", "margin: 0.3", "", "info_nce"),
    ("scheduler", "cyclic_cosine", "cycles: 4", "warmup: 0.1", "constant"),
    ("model", "clip_prefix", "prefix_length: 4", "max_length: 20", "encoder_decoder"),
    ("data", "sceneworld", "train: {style: short}", "batch_size: 5", "folder"),
]


OTHERS = tuple(f"{group}={other}" for group, *_, other in REPLACED)
FIRST = lines("defaults:", *(f"  - override /{group}: {first}" for group, first, *_ in REPLACED))


def test_what_the_choice_of_the_command_line_does_not_take_goes_and_the_rest_stays(experiment):
    settings = [f"{group}:\n  {own}\n  {shared}" for group, _, own, shared, _ in REPLACED]
    words, _ = experiment(FIRST + lines(*settings))
    before, left = composed(*words), composed(*words, *OTHERS)
    assert problems(left, with_inputs=False) == []
    all_dropped = []
    for group, _, own, shared, _ in REPLACED:
        kept, dropped = (dict(leaves(yaml.safe_load(text) or {}, group)) for text in (shared, own))
        assert kept.items() | dropped.items() <= written(before).items()
        assert kept.items() <= written(left).items() and not dropped.keys() & written(left).keys()
        all_dropped += dropped
    deleted = composed(*words, *OTHERS, *(f"~{key}" for key in all_dropped))
    assert deleted.config == left.config, "may still be deleted by hand"


@pytest.mark.parametrize("typed", [(), OTHERS], ids=" ".join)
def test_a_typo_in_an_experiment_is_refused_whatever_is_chosen(typed, experiment):
    words, file = experiment(FIRST + lines(*(f"{group}: {{typo: 1}}" for group, *_ in REPLACED)))
    found = problems(composed(*words, *typed))
    for group, *_ in REPLACED:
        assert any(f"unknown key '{group}.typo' in {file}" in text for text in found), group


def test_settings_that_are_typed_for_a_choice_that_is_not_made_are_refused():
    words = ["experiment=ndlb_bagcurri_sceneworld", "curriculum=shuffle"]
    assert problems(composed(*words), with_inputs=False) == []
    with pytest.raises(UsageError, match=r"unknown key 'curriculum\.by' on the command line"):
        compose_config(parse([*words, "curriculum.by=step"]))


def test_settings_of_another_form_than_the_choice_takes_are_refused_with_what_to_do():
    with pytest.raises(UsageError, match="another form where curriculum=bags_by_level; leave this choice out"):
        compose_config(parse(["experiment=ndlb_bagcurri_sceneworld", "curriculum=bags_by_level"]))


def settings_of_groups():
    """Each experiment with each group of parts of which its own file sets values."""
    for name in GROUPS["experiment"]:
        body = yaml.safe_load((config_dir() / "experiment" / f"{name}.yaml").read_text())
        yield from ((name, group) for group in (*PICK_ANY, *PICK_ONE) if group in body)


def test_an_experiment_chooses_parts_by_name():
    """A `_target_` of its own would stay beside the settings of another choice, which it does not take."""
    bodies = {
        name: yaml.safe_load((config_dir() / "experiment" / f"{name}.yaml").read_text())
        for name in GROUPS["experiment"]
    }
    nodes = [(name, group, body[group]) for name, body in bodies.items() for group in GROUPS if group in body]
    assert len(nodes) > 100
    assert [(name, group) for name, group, node in nodes if isinstance(node, dict) and "_target_" in node] == []


@pytest.mark.nightly
@pytest.mark.parametrize(("experiment", "group"), settings_of_groups())
def test_every_choice_is_sound_in_place_of_what_an_experiment_sets(experiment, group):
    for name in GROUPS[group]:
        if (experiment, name) in OF_ANOTHER_FORM:
            continue
        found = problems(compose_config(parse([f"experiment={experiment}", typed(group, name)])), with_inputs=False)
        if group in PICK_ONE:  # what does not go together, such as an objective and a model, is refused by a rule
            found = [problem for problem in found if "unknown key" in problem]
        assert found == [], name


def test_the_fix_for_settings_of_a_part_that_is_not_chosen_keeps_those_that_are():
    words = ["experiment=cider_scst_sceneworld", "metric=[clip_score_trained]", "metric.rd20.num_distractors=5"]
    with pytest.raises(UsageError) as caught:
        compose_config(parse(words))
    assert str(caught.value).endswith(
        "'metric.rd20' on the command line; choose it first: metric=[clip_score_trained,rd20_trained]"
    )


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
