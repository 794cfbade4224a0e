"""Composes one config from yaml files and overrides."""

from typing import Any

import yaml
from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from capkit.config.arguments import Command
from capkit.config.cells import compose_cells
from capkit.config.choices import implied, refuse_wrong_choice, required_groups
from capkit.config.composed import CONFIG_NAME, Composed, hydra_on, read_yaml
from capkit.config.locations import config_dir, groups
from capkit.config.of_checkpoint import of_checkpoint
from capkit.config.of_run import take_from_run
from capkit.config.quoting import quote
from capkit.config.refusals import first_paragraph, missing_choice, of_another_form, unknown_key
from capkit.config.replaced import drop_settings_of_replaced_parts
from capkit.config.shared_settings import SHARED, spread
from capkit.config.signatures import signature
from capkit.config.step_models import refuse_models_of_absent_steps, start_from_their_own_files
from capkit.config.sweeps import refuse_sweep
from capkit.errors import UsageError, did_you_mean
from capkit.utils.renamed import renamed_targets, warn_of_old_name


def compose_config(command: Command) -> Composed:
    """Compose the config of one run. Raises UsageError if it cannot be composed."""
    folders = [config_dir(), *command.config_dirs]
    overrides = [*of_checkpoint(command.overrides), *implied(command.overrides)]
    if command.config_dirs:
        overrides.append("hydra.searchpath=[" + ",".join(quote(f"file://{d}") for d in command.config_dirs) + "]")
    known = groups(folders)
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
        for override in parsed:
            refuse_sweep(override)
            if override.key_or_group in known:
                refuse_wrong_choice(override, known, required_groups(config_dir()))
            elif override.is_delete():
                _refuse_deletion(override.key_or_group, known)
        choices = [str(o.input_line) for o in parsed if _is_choice(o, known)]
        with hydra_on(config_dir()):
            config = compose(CONFIG_NAME, choices, return_hydra_config=True)
        hydra = config.hydra
        with open_dict(config):
            del config["hydra"]
            of_run: Any = OmegaConf.to_container(config.task.pop("of_run", OmegaConf.create()))
            task_keys: Any = OmegaConf.to_container(config.task.pop("keys", OmegaConf.create()))
        refuse_models_of_absent_steps(config, parsed)
        composed = Composed(config, hydra, overrides, choices, folders, known, task_keys, of_run)
        explicit = [file for file in composed.files if file.is_explicit]
        start_from_their_own_files(config, parsed, folders, lambda key: any(file.holds(key) for file in explicit))
        drop_settings_of_replaced_parts(composed, parsed)
        take_from_run(composed, parsed)
        composed.overrides = [str(o.input_line) if _is_chosen(o, composed) else _apply(o, composed) for o in parsed]
        composed.config = _with_new_names(composed.config)
        spread(composed, parsed)
        composed.cells = compose_cells(composed, parsed, compose_config)
        return composed
    except MissingConfigException as error:
        raise UsageError(missing_choice(error, known, overrides, folders)) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(first_paragraph(error) + of_another_form(error, overrides, known)) from error
    except yaml.YAMLError as error:
        raise UsageError(f"a config file is not valid YAML; correct it: {error}") from error


def _with_new_names(config: DictConfig) -> DictConfig:
    """Replace old names of classes in `_target_`s by current ones, with a warning for each."""
    plain = OmegaConf.to_container(config, resolve=False)
    renamed = renamed_targets(plain, warn_of_old_name)
    if renamed == plain:
        return config
    config = OmegaConf.create(renamed)
    OmegaConf.set_struct(config, True)
    return config


def _is_choice(override: Override, known: dict[str, list[str]]) -> bool:
    """Whether an override determines which keys exist: a choice, a `_target_`, or Hydra's settings."""
    key = override.key_or_group
    return key in known or "/" in key or key.startswith("hydra.") or key.endswith("._target_")


def _is_chosen(override: Override, composed: Composed) -> bool:
    """Whether Hydra already applied a choice. Not so a `_target_` within a part taken from an earlier run."""
    return _is_choice(override, composed.groups) and composed.run_of(override.key_or_group) is None


def _apply(override: Override, composed: Composed) -> str:
    """Set or delete a value like Hydra, and return the override with the prefix that Hydra requires.

    Hydra accepts only keys that are in a yaml; here, any argument of a constructor is accepted.
    """
    key, line = override.key_or_group, str(override.input_line)
    if override.is_delete():
        _delete(key, composed.config)
        return line
    # A dict may hold arguments that are in no yaml; the check rejects those that the constructor does not take.
    is_new = _is_new(key, composed) or isinstance(override.value(), dict)
    OmegaConf.update(composed.config, key, override.value(), merge=True, force_add=is_new)
    return ("++" if is_new else "") + line.lstrip("+")


def _refuse_deletion(key: str, known: dict[str, list[str]]) -> None:
    """Raises UsageError for a key that is needed to build anything."""
    if key.rpartition(".")[2] == "_target_" or ("." not in key and key in read_yaml([config_dir()], CONFIG_NAME)):
        raise UsageError(f"~{key}: this key cannot be removed; give it another value: {key}=VALUE")


def _delete(key: str, config: DictConfig) -> None:
    parent, _, word = key.rpartition(".")
    owner = OmegaConf.select(config, parent) if parent else config
    if not isinstance(owner, DictConfig) or word not in owner.keys():  # noqa: SIM118 - `in owner` denies missing values
        raise UsageError(
            f"~{key}: there is no such key; {did_you_mean(word, map(str, owner or ()), parent and f'{parent}.')}"
        )
    taken = signature(str(owner["_target_"])) if "_target_" in owner else None
    argument = taken.arguments.get(word) if taken else None
    if argument is not None and argument.default is None:
        raise UsageError(f"~{key}: {owner['_target_']} needs {word}; give it another value: {key}=VALUE")
    with open_dict(owner):
        del owner[word]


def _is_new(key: str, composed: Composed) -> bool:
    """Whether a key is in no yaml. Raises UsageError if it is not an argument of a constructor either."""
    if key == SHARED:
        return True
    owner: Any = composed.config
    words = key.split(".")
    for depth, word in enumerate(words):
        if not isinstance(owner, DictConfig):
            return True
        if word not in owner.keys():  # noqa: SIM118
            _refuse_unknown(".".join(words[:depth]), word, owner, composed)
            return True
        if depth + 1 < len(words):  # the value itself is replaced: it may refer to a missing one
            owner = None if OmegaConf.is_missing(owner, word) else owner.get(word)
    return False


def _refuse_unknown(prefix: str, word: str, owner: DictConfig, base: Composed) -> None:
    """Raises UsageError unless the node is an object whose constructor takes this argument."""
    if prefix == "task":
        raise UsageError(unknown_key(prefix, word, [], base))
    if prefix.rpartition(".")[2] in ("conditions", "players", "baselines"):  # by names of the user's own
        return
    if prefix == "model.lora" and all(isinstance(part, DictConfig) for part in owner.values()):  # by parts' names
        return
    taken = signature(str(owner["_target_"])) if "_target_" in owner else None
    if "_target_" in owner and (taken is None or taken.is_open or word in taken.arguments):
        return
    valid = [str(k) for k in owner if not str(k).startswith("_")] + list(taken.arguments if taken else ())
    raise UsageError(unknown_key(prefix, word, valid, base))
