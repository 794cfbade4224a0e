"""Reading what `capkit.checkpoint.exported` wrote: an exported folder gives what a checkpoint gives."""

from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from capkit.checkpoint.export_parts import FORMAT, parts_of
from capkit.checkpoint.files import ABOUT, read_tensors
from capkit.errors import UsageError
from capkit.run.folder import RunFolder, read_object
from capkit.text.tokenizers import tokenizer_to_json
from capkit.utils.renamed import renamed_targets
from capkit.utils.text_files import expect, member


def read_export(path: Path) -> dict[str, Any]:
    """Read an exported folder like a checkpoint (capkit/checkpoint/loading.py); its entry `folders` names the folders
    that hold weights.

    Raises UsageError if the folder is incomplete.
    """
    where = str(path / ABOUT)
    about = read_object(path / ABOUT, "export the checkpoint again")
    if member(about, "format", "a whole number", where) > FORMAT:
        raise UsageError(f"{where}: format {about['format']} is of a newer capkit; this one reads {FORMAT}; update it")
    folders = member(about, "folders", "an object", where)
    node = renamed_targets(member(about, "config", "an object", where))
    for key, folder in member(about, "sources", "an object", where).items():
        _set(node, key, str(path / expect(folder, "text", where, key)))
    if (rest := path / member(about, "rest", "text", where)).parent != path or not rest.is_file():
        raise UsageError(f"{path} is incomplete: it has no {rest.name}; export the checkpoint again")
    try:
        state = {f"model.{name}": value for name, value in read_tensors(rest).items()}
        tokenizer = None if about["tokenizer_key"] is None else tokenizer_to_json(AutoTokenizer.from_pretrained(path))
    except Exception as error:  # safetensors and tokenizers raise almost anything for a damaged file
        raise UsageError(f"{path} cannot be read as an export ({type(error).__name__}: {error})") from error
    run = RunFolder(path).config() or {}
    return {
        "state_dict": state,
        "global_step": member(about, "step", "a whole number", where),
        "folders": {name: str(path / folder) for name, folder in folders.items()},
        "capkit": {
            "config": {"seed": 0, **run, "model": node},
            "tokenizer_key": about["tokenizer_key"],
            "tokenizer": tokenizer,
        },
    }


def _set(node: dict[str, Any], key: str, value: str) -> None:
    """Set a value by its dotted key. Raises UsageError if the config has no such place."""
    *before, last = key.split(".")
    for name in before:
        node = member(node, name, "an object", f"{ABOUT}'s config")
    node[last] = value


def _shapes(shapes: Mapping[str, Any], others: Mapping[str, Any]) -> str:
    """Those that differ from the others, for a message: the first three by name."""
    differing = [f"{name} {tuple(shape)}" for name, shape in shapes.items() if others.get(name) != shape]
    more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
    return ", ".join(differing[:3]) + more or "none of these"


def _read_again(network: Any, folder: str) -> Any:
    """The network of a part's folder, without a pooler where this one has none: BLIP's matching model drops it."""
    takes_pooler = "add_pooling_layer" in signature(type(network).__init__).parameters
    without = {"add_pooling_layer": False} if takes_pooler and network.pooler is None else {}
    return type(network).from_pretrained(folder, **without)


def load_exported(model: Any, checkpoint: Mapping[str, Any]) -> None:
    """Load the weights of an exported folder. Raises UsageError if they do not fit the model."""
    folders = checkpoint["folders"]
    for part in parts_of(model):
        folder = folders.get(part.names[0])
        if folder is None:
            raise UsageError(f"the export is broken: it has no folder for {part.names[0]}; export the checkpoint again")
        part.network.load_state_dict(_read_again(part.network, folder).state_dict())
    rest = {name.removeprefix("model."): value for name, value in checkpoint["state_dict"].items()}
    apart = tuple(f"{name}." for name in folders)
    expected = {name: value.shape for name, value in model.state_dict().items() if not name.startswith(apart)}
    if expected != (found := {name: value.shape for name, value in rest.items()}):
        lacking, unknown = (_shapes(a, b) for a, b in ((expected, found), (found, expected)))
        raise UsageError(
            f"the export is broken: its weights do not fit its config: expected {lacking}, got {unknown}; export the "
            "checkpoint again, by the version of capkit that trained it where parameters have other names since"
        )
    model.load_state_dict(rest, strict=False)
