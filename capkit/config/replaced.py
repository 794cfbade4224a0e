"""Settings of parts of "pick any" groups (metric, reward ...) that the command line replaced by others."""

from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

from capkit.config.composed import CONFIG_NAME, Composed, hydra_on
from capkit.config.locations import PICK_ANY


def drop_settings_of_replaced_parts(composed: Composed, parsed: list[Override]) -> None:
    """Remove what an experiment or a task sets of parts in whose place the command line chose others.

    `experiment=clip_pretrain_sceneworld evaluator=[sts_scenes]`: the experiment's fold_size of `retrieval` has no use.
    A part that another file brings under the same name (`reward=[clip_score]` in place of `[clip_score_trained]`) is as
    its own file has it. Settings of what no yaml chose (a typo) stay, for the check to refuse.
    """
    typed = {o.key_or_group: str(o.input_line) for o in parsed if not o.is_add()}
    has_settings = any(isinstance(composed.hydra.runtime.choices.get(kind), str) for kind in ("experiment", "debug"))
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
