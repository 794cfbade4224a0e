"""Tasks on a run take the run's data, transform, metrics and decoding, unless the command chooses others.

The task's yaml lists them: `of_run: {ckpt: [data, metric, decoding]}` takes these groups from the run of `ckpt`.
"""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from capkit.config.composed import Composed
from capkit.config.locations import exists
from capkit.config.run_config import RunConfig, problem, read_run_config
from capkit.config.targets import RUN_PARTS, check_targets
from capkit.errors import UsageError
from capkit.utils.yaml_files import load_yaml

# Arguments that val and test set independently, even if they happen to equal train's.
_OWN = frozenset({"_target_", "split", "count", "path"})


def take_from_run(composed: Composed, parsed: list[Override]) -> None:
    """Copy the run's parts into the config, before the command line's values are applied.

    Groups that the command line or the experiment chooses are not copied, with one exception: data chosen on the
    command line still gets the run's transform, for which the model was built. Raises UsageError if the run's config
    names classes that are not capkit's, or if neither gives the data.
    """
    for key, groups in composed.of_run.items():
        value = _value(key, parsed, composed.config)
        if isinstance(value, ListConfig) and value:
            value = value[0]  # of an ensemble: its members are of one run
        if isinstance(value, str) and exists(value) and problem(Path(value)) is None:
            _take(composed, parsed, groups, read_run_config(Path(value)), f"{key}={value}")
            return


def _value(key: str, parsed: list[Override], config: DictConfig) -> Any:
    """A key's value after the command line is applied."""
    config = copy.deepcopy(config)
    for override in parsed:
        if f"{key}.".startswith(f"{override.key_or_group}.") and not override.is_delete():
            OmegaConf.update(config, override.key_or_group, override.value(), merge=True, force_add=True)
    return OmegaConf.select(config, key, throw_on_missing=False)


def _take(composed: Composed, parsed: list[Override], groups: list[str], run: RunConfig | None, given: str) -> None:
    typed = {override.key_or_group for override in parsed}
    by_experiment = {
        group
        for kind in ("experiment", "debug")
        if isinstance(name := composed.hydra.runtime.choices.get(kind), str)
        for group in _chosen_in(f"{kind}/{name}", composed.folders)
    }
    for group in groups:
        key = group
        if group in typed | by_experiment:
            if group != "data" or group not in typed or "transform" not in (composed.config.data or {}):
                continue
            key = "data.transform"
        body = _at(run.body, key) if run is not None else None
        if run is None or body is None:
            if key == "data":
                raise UsageError(f"{given} does not record what data it was trained on; give data=NAME (docs/data.md)")
            continue
        own = {"curriculum"} if key == "data" else set()  # never taken from the run
        said = {name: value for name, value in body.items() if name not in own}
        check_targets(said, key, str(run.file), RUN_PARTS, f"if it is yours, choose it here: {group}=NAME")
        if key == "data":
            body = _linked(body, run.body)
        node: Any = OmegaConf.create(body)
        for explicit in _explicit(composed, key):
            node = OmegaConf.merge(node, explicit)
        with open_dict(composed.config):
            OmegaConf.update(composed.config, key, node, merge=False)
        composed.taken[key] = run.file


def _chosen_in(name: str, folders: list[Path]) -> Iterator[str]:
    """Groups whose choice a config file overrides, directly or through files of its group in its defaults list."""
    path = next((path for folder in folders if (path := folder / f"{name}.yaml").is_file()), None)
    body = load_yaml(path.read_text(encoding="utf-8")) if path else None
    for entry in (body or {}).get("defaults", []):
        if isinstance(entry, dict):
            yield from (str(key).split()[-1].lstrip("/") for key in entry)
        elif entry != "_self_":
            yield from _chosen_in(entry.lstrip("/") if "/" in entry else f"{name.split('/')[0]}/{entry}", folders)


def _at(body: Any, key: str) -> Any:
    for word in key.split("."):
        body = body.get(word) if isinstance(body, Mapping) else None
    return body


def _explicit(composed: Composed, key: str) -> Iterator[Any]:
    """Values that the task, experiment and debug files set under a key, in this order."""
    for file in composed.files:
        if file.is_explicit and (said := _at(file.body, key)) is not None:
            yield said


def _linked(data: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """A run's data with references restored: values of val and test that equal train's follow train again.

    The curriculum is the new run's; so is the seed, if the data's seed was the run's seed.
    """
    linked: dict[str, Any] = copy.deepcopy(dict(data))
    for split in ("val", "test"):
        if isinstance(linked.get(split), dict) and isinstance(linked.get("train"), dict):
            linked[split] = _following(linked[split], linked["train"], "data.train")
    if "seed" in linked and linked["seed"] == run.get("seed"):
        linked["seed"] = "${seed}"
    if "curriculum" in linked:
        linked["curriculum"] = "${oc.select:curriculum,null}"
    return linked


def _following(node: dict[str, Any], leader: dict[str, Any], key: str) -> dict[str, Any]:
    followed: dict[str, Any] = {}
    for name, value in node.items():
        theirs = leader.get(name)
        if isinstance(value, dict) and isinstance(theirs, dict):
            followed[name] = _following(value, theirs, f"{key}.{name}")
        else:
            follows = name not in _OWN and name in leader and value == theirs
            followed[name] = f"${{{key}.{name}}}" if follows else value
    return followed
