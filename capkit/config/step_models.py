"""Models of single steps, chosen as those of all steps are: `step.judge_candidates.judge=vision_chat/server`.

`text_lm=` and `vision_chat=` choose the models that steps share. A step's own one is named with its group, or without
where the step's yaml says the group (`judge: ${oc.select:vision_chat,null}`). Its settings follow as usual:
`step.judge_candidates.judge.model=...`. A step that takes several, by names of the user's own, has them as
`step.write_candidates.generators.small=vision_chat/hf`, `step.write_candidates.generators.large=vision_chat/hf`.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from capkit.errors import UsageError, did_you_mean
from capkit.utils.yaml_files import load_yaml

GROUPS = ("text_lm", "vision_chat")
_SHARED = re.compile(rf"\$\{{oc\.select:({'|'.join(GROUPS)}),null\}}")


def model_choice(key: str, value: str, known: Mapping[str, list[str]], folders: list[Path]) -> str | None:
    """The override as a choice of a group at the step's key, in Hydra's words; None if it chooses no model."""
    step, *words = key.split(".")
    if step != "step" or len(words) < 2:
        return None
    group, _, name = value.rpartition("/")
    if not group and (shared := _shared_group(words, folders)) is not None and name in known.get(shared, ()):
        group = shared
    if group not in GROUPS:
        return None
    if name not in known.get(group, ()):
        raise UsageError(f"{key}={value}: there is no {group} {name!r}; {did_you_mean(name, known.get(group, ()))}")
    return f"+{group}@{key}={name}"


def refuse_models_of_absent_steps(config: DictConfig, overrides: list[Override]) -> None:
    """Raises UsageError for a model of a step that was not chosen, of which the config has nothing else."""
    for override in overrides:
        package = str(override.package or "")
        if override.key_or_group in GROUPS and package.startswith("step."):
            name = package.split(".")[1]
            if OmegaConf.select(config, f"step.{name}._target_") is None:
                chosen = [str(key) for key, node in config.step.items() if node is not None and "_target_" in node]
                raise UsageError(
                    f"{package}: there is no step {name!r} in this run (it has {', '.join(chosen) or 'none'}); "
                    f"add it: step=[{','.join([*chosen, name])}]"
                )


def start_from_their_own_files(
    config: DictConfig, overrides: list[Override], folders: list[Path], is_set: Callable[[str], bool]
) -> None:
    """A step's own model in place of the shared one begins as its own yaml has it.

    Hydra merges it into what the step referred to, so that settings of the shared model would stay in it, such as the
    name of one of transformers in a server. Where `is_set` says that an experiment sets a model of the step's own, what
    the chosen one takes of its settings stays.
    """
    for override in overrides:
        step, *words = str(override.package or "").split(".")
        group, value = override.key_or_group, override.value()
        if group not in GROUPS or step != "step" or is_set(str(override.package)):
            continue
        if _shared_group(words, folders) is not None:
            file = next(file for folder in folders if (file := folder / group / f"{value}.yaml").is_file())
            own = load_yaml(file.read_text(encoding="utf-8"))
            OmegaConf.update(config, str(override.package), own, merge=False)


def _shared_group(words: list[str], folders: list[Path]) -> str | None:
    """The group whose choice a key of a step takes by default, as the step's yaml says."""
    name, *keys = words
    for folder in folders:
        file = folder / "step" / f"{name}.yaml"
        if file.is_file():
            node: Any = load_yaml(file.read_text(encoding="utf-8"))
            for key in keys:
                node = node.get(key) if isinstance(node, dict) else None
            found = _SHARED.fullmatch(node) if isinstance(node, str) else None
            return found[1] if found else None
    return None
