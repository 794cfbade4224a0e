"""A task on a run takes the run's data, transform, metrics and decoding, unless they are chosen for the task itself.

The task's yaml says which: `of_run: {ckpt: [data, metric, decoding]}` takes these groups from the run of `ckpt`.
"""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

from capkit.config.locations import exists
from capkit.config.run_config import RunConfig, problem, read_run_config
from capkit.config.targets import RUN_PARTS, check_targets
from capkit.errors import UsageError

if TYPE_CHECKING:
    from capkit.config.compose import Composed

# Arguments of val and test that are their own, also where they happen to equal train's.
_OWN = frozenset({"_target_", "split", "count", "path"})


def take_from_run(composed: "Composed", parsed: list[Override]) -> None:
    """Puts the run's parts into the config, before the values of the command line are applied.

    A group that the command line or the experiment chooses stays theirs in full, but for the transform: with data that
    the command line chooses it is the run's still, for which its model was built. Raises UsageError where the run's
    config names what is not ours, or where nothing says which data.
    """
    for key, groups in composed.of_run.items():
        value = _value(key, parsed, composed.config)
        if isinstance(value, str) and exists(value) and problem(Path(value)) is None:
            _take(composed, parsed, groups, read_run_config(Path(value)), f"{key}={value}")
            return


def _value(key: str, parsed: list[Override], config: DictConfig) -> Any:
    """A key's value once the command line is applied."""
    config = copy.deepcopy(config)
    for override in parsed:
        if f"{key}.".startswith(f"{override.key_or_group}.") and not override.is_delete():
            OmegaConf.update(config, override.key_or_group, override.value(), merge=True, force_add=True)
    return OmegaConf.select(config, key, throw_on_missing=False)


def _take(composed: "Composed", parsed: list[Override], groups: list[str], run: RunConfig | None, given: str) -> None:
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
                raise UsageError(f"{given} does not say what data it was trained on; give it: data=NAME (docs/data.md)")
            continue
        own = {"curriculum"} if key == "data" else set()  # what this run decides itself
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
    """The groups whose choice a config file overrides, itself or by the files of its group that it builds on."""
    path = next((path for folder in folders if (path := folder / f"{name}.yaml").is_file()), None)
    body = yaml.safe_load(path.read_text(encoding="utf-8")) if path else None
    for entry in (body or {}).get("defaults", []):
        if isinstance(entry, dict):
            yield from (str(key).split()[-1].lstrip("/") for key in entry)
        elif entry != "_self_":
            yield from _chosen_in(entry.lstrip("/") if "/" in entry else f"{name.split('/')[0]}/{entry}", folders)


def _at(body: Any, key: str) -> Any:
    for word in key.split("."):
        body = body.get(word) if isinstance(body, Mapping) else None
    return body


def _explicit(composed: "Composed", key: str) -> Iterator[Any]:
    """What the task's, the experiment's and the debug file say under a key, in this order."""
    for file in composed.files:
        if file.is_explicit and (said := _at(file.body, key)) is not None:
            yield said


def _linked(data: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """A run's data with the references that it was resolved from: values of val and test that are train's follow it.

    The curriculum is this run's, and the seed where it was that one's.
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
