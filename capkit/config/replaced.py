"""Settings of parts that the command line replaced by others, in whose place they mean nothing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

from capkit.config.composed import CONFIG_NAME, Composed, hydra_on, read_yaml
from capkit.config.locations import PICK_ANY
from capkit.config.signatures import signature
from capkit.config.step_models import GROUPS as MODELS

_NO_PARTS = ("task", "experiment", "debug", "launcher")


def drop_settings_of_replaced_parts(composed: Composed, parsed: list[Override]) -> None:
    """Remove what an experiment or a task sets of parts in whose place the command line chose others."""
    _drop_in_pick_any_groups(composed, parsed)
    _drop_in_pick_one_groups(composed, parsed)
    _drop_in_models_of_steps(composed, parsed)
    _drop_keys_of_the_replaced_task(composed, parsed)


def _drop_keys_of_the_replaced_task(composed: Composed, parsed: list[Override]) -> None:
    """The top-level keys that an experiment sets of its own task alone, where the command line chose another task.

    `task=evaluate experiment=stamps_preferences`: the experiment's `reference` is one of task fit_preferences.
    """
    typed = {o.key_or_group: str(o.input_line) for o in parsed}
    if "task" not in typed or not _has_settings(composed):
        return
    said = {key for file in composed.files if file.is_explicit and not file.package for key in file.body}
    if not (left := said - composed.declared_keys()):
        return
    with hydra_on(composed.folders[0]):
        choices = [line for line in composed.choices if line != typed["task"]]
        before = compose(CONFIG_NAME, choices, return_hydra_config=True).hydra.runtime.choices["task"]
    for key in left & read_yaml(composed.folders, f"task/{before}").keys():
        with open_dict(composed.config):
            del composed.config[key]


def _drop_in_pick_one_groups(composed: Composed, parsed: list[Override]) -> None:
    """Of groups with one choice (curriculum, objective, data ...): the settings that the chosen part does not take.

    `experiment=ndlb_bagcurri_sceneworld curriculum=shuffle`: the experiment's `stages` of bags have no use. What the
    chosen part takes too, such as a batch size or a learning rate, stays as the experiment sets it. So does what the
    replaced part would not have taken either (a typo), for the check to refuse.
    """
    typed = {o.key_or_group: str(o.input_line) for o in parsed if not o.package}
    if not (_has_settings(composed) or "task" in typed):
        return
    deleted = {o.key_or_group for o in parsed if o.is_delete()}
    for group in typed.keys() & composed.groups.keys() - {*PICK_ANY, *_NO_PARTS}:
        bodies = [file.body[group] for file in composed.files if file.is_explicit and group in file.body]
        left = {key for body in bodies for key in _not_taken(body, composed.config.get(group), group)}
        if not (left := left - deleted):
            continue
        with hydra_on(composed.folders[0]):
            before = compose(CONFIG_NAME, [line for line in composed.choices if line != typed[group]])
        was_wrong = {key for body in bodies for key in _not_taken(body, before.get(group), group)}
        for key in left - was_wrong:
            parent, _, word = key.rpartition(".")
            owner = OmegaConf.select(composed.config, parent)
            with open_dict(owner):
                del owner[word]


def _drop_in_models_of_steps(composed: Composed, parsed: list[Override]) -> None:
    """Of models that steps have of their own: the settings that a model chosen in place of another does not take.

    `experiment=caprl_questions step.ask_questions.vision_chat=vision_chat/server`, or `vision_chat=server`: the
    experiment's `name` and `dtype` of the model that writes have no use.
    """
    chosen = {str(o.input_line) for o in parsed if o.key_or_group in MODELS}
    if chosen and _has_settings(composed) and isinstance(composed.config.get("step"), DictConfig):
        with hydra_on(composed.folders[0]):
            before = compose(CONFIG_NAME, [line for line in composed.choices if line not in chosen])
        deleted = {o.key_or_group for o in parsed if o.is_delete()}
        _drop_not_taken_any_more(composed.config.step, before.get("step"), "step", deleted)


def _drop_not_taken_any_more(node: DictConfig, before: Any, key: str, deleted: set[str]) -> None:
    """What the class of a node does not take and the one before took; what neither took is for the check to refuse."""
    if not isinstance(before, DictConfig):
        return
    now, earlier = (signature(str(part["_target_"])) if "_target_" in part else None for part in (node, before))
    for word in list(node):
        is_taken = now is None or now.is_open or word in now.arguments
        if not is_taken and earlier and word in earlier.arguments and f"{key}.{word}" not in deleted:
            with open_dict(node):
                del node[word]
        elif _is_plain(node, word) and _is_plain(before, word) and isinstance(node[word], DictConfig):
            _drop_not_taken_any_more(node[word], before[word], f"{key}.{word}", deleted)


def _is_plain(node: DictConfig, word: Any) -> bool:
    """Whether the node has the key with a value of its own, which is given."""
    return word in node and not (OmegaConf.is_interpolation(node, word) or OmegaConf.is_missing(node, word))


def _not_taken(body: Any, node: Any, key: str) -> Iterator[str]:
    """Keys of a yaml's body that the constructors of the composed node do not take."""
    if not isinstance(body, dict) or not isinstance(node, DictConfig):
        return
    taken = signature(str(node["_target_"])) if "_target_" in node else None
    for word, value in body.items():
        if taken and not taken.is_open and word not in taken.arguments and not str(word).startswith("_"):
            yield f"{key}.{word}"
        elif word in node and not OmegaConf.is_missing(node, word):
            yield from _not_taken(value, node.get(word), f"{key}.{word}")


def _drop_in_pick_any_groups(composed: Composed, parsed: list[Override]) -> None:
    """Of groups with any number of choices (metric, reward ...): all settings of parts that are not chosen.

    `experiment=clip_pretrain_sceneworld evaluator=[sts_scenes]`: the experiment's fold_size of `retrieval` has no use.
    A part that another file brings under the same name (`reward=[clip_score]` in place of `[clip_score_trained]`) is as
    its own file has it. Settings of what no yaml chose (a typo) stay, for the check to refuse.
    """
    typed = {o.key_or_group: str(o.input_line) for o in parsed if not o.is_add()}
    has_settings = _has_settings(composed)
    for group in PICK_ANY:
        node = composed.config.get(group) or OmegaConf.create()
        may_differ = group in typed and has_settings
        if not may_differ and not ({group, "task"} & set(typed) and _has_unchosen(node)):
            continue
        is_set = [name for file in composed.files if file.is_explicit for name in file.body.get(group) or ()]
        now, earlier = composed.part_files(group), _earlier(composed, typed, group) if is_set else []
        for name in dict.fromkeys(is_set):
            before = [files[name] for files in earlier if name in files]
            if name not in node or not before or now.get(name) in before or f"~{group}.{name}" in typed.values():
                continue
            with open_dict(node):
                if name not in now:
                    del node[name]
                elif group in typed:
                    node[name] = _bare(composed, typed[group], group)[name]


def _has_settings(composed: Composed) -> bool:
    return any(isinstance(composed.hydra.runtime.choices.get(kind), str) for kind in ("experiment", "debug"))


def _has_unchosen(node: DictConfig) -> bool:
    parts: Any = OmegaConf.to_container(node, resolve=False)
    return any(isinstance(part, dict) and "_target_" not in part for part in parts.values())


def _earlier(composed: Composed, typed: dict[str, str], group: str) -> list[dict[str, list[Path]]]:
    """The files that bring each part without the command line's choice of the group, then also without its task."""
    own = [line for line in composed.choices if line != typed.get(group)]
    tasks = [own, [line for line in own if line != typed["task"]]] if "task" in typed else [own]
    return [composed.part_files(group, choices) for choices in tasks]


def _bare(composed: Composed, choice: str, group: str) -> DictConfig:
    """A group as its own files have it, without what an experiment or a task sets."""
    with hydra_on(composed.folders[0]):
        choices = [choice, *(line for line in composed.choices if line.startswith("hydra."))]
        bare: DictConfig = compose(CONFIG_NAME, choices)[group]
    return bare
