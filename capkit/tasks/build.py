"""Builds the objects of a run from its config. Only tasks read the config; everything else gets objects."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from capkit.callbacks.checkpoints import newest_checkpoint
from capkit.errors import UsageError
from capkit.module import CaptionModule
from capkit.text import encode_captions, tokenizer_from_json, tokenizer_to_json, word_tokenizer
from capkit.weights import frozen_fingerprint, load_trainable_state


def plain(config: Any) -> Any:
    """A config as dicts, lists and numbers, all references resolved."""
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


def build(node: Any, **arguments: Any) -> Any:
    """The object a config node describes; nested dicts and lists reach it as plain Python."""
    return instantiate(node, _convert_="all", **arguments)


def build_all(group: Mapping[str, Any] | None) -> dict[str, Any]:
    """A "pick any" group: its named entries, built. An entry set to null is left out."""
    return {str(name): build(node) for name, node in (group or {}).items() if node is not None}


def build_model(node: DictConfig, captions: Callable[[], Iterable[str]], seed: int) -> nn.Module:
    """The captioner, its new weights drawn from `seed`; `tokenizer: word` is built from the training captions."""
    arguments = {}
    if node.get("tokenizer") == "word":
        arguments["tokenizer"] = word_tokenizer(captions())
    torch.manual_seed(seed)
    return build(node, **arguments)


def build_parts(cfg: DictConfig) -> dict[str, Any]:
    """All of a CaptionModule but its model: built first, so that a wrong value is told before data is touched."""
    return {
        "objective": build(cfg.objective),
        "optimizer": build(cfg.optimizer),
        "schedule": build(cfg.scheduler),
        "decoding": build(cfg.decoding),
        "metrics": build_all(cfg.metric),
        "micro_batch_size": cfg.micro_batch_size,
        "seed": cfg.seed,
    }


def applicable(metrics: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics that this data can be scored by; the others are named on the screen."""
    kept = {}
    for name, metric in metrics.items():
        missing = [key for key in getattr(metric, "needs", ()) if key not in metadata]
        if missing:
            print(f"metric {name} is left out: this data has no {' and '.join(missing)} in its metadata")
        else:
            kept[name] = metric
    return kept


def encoder_of(model: Any, max_length: int) -> Callable[[list[list[str]]], Any]:
    """What turns captions into the model's tokens; picklable, for the data workers."""
    return partial(encode_captions, model.tokenizer, prompt=model.prompt, max_length=max_length)


def checkpoint_extras(cfg: DictConfig, module: CaptionModule) -> dict[str, Any]:
    """What a checkpoint holds beside weights, as plain data: enough to build the same captioner again."""
    return {
        "config": plain(cfg),
        "tokenizer": tokenizer_to_json(module.model.tokenizer),
        "frozen_fingerprint": frozen_fingerprint(module.model),
    }


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's plain data and tensors, on the CPU; a folder means its newest checkpoint.

    Raises UsageError for a file that is not a capkit checkpoint. Nothing in the file is executed.
    """
    if path.is_dir():
        folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
        newest = newest_checkpoint(folder)
        if newest is None:
            raise UsageError(f"a checkpoint is wanted; {path} holds no step-*.ckpt; give ckpt=FILE or a run folder")
        path = newest
    if not path.is_file():
        raise UsageError(f"a checkpoint is wanted; {path} does not exist; give ckpt=FILE or a run folder")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UsageError(f"{path} cannot be read as a checkpoint ({type(error).__name__}: {error})") from error
    if not isinstance(checkpoint, dict) or "capkit" not in checkpoint or "state_dict" not in checkpoint:
        raise UsageError(f"{path} is not a capkit checkpoint: it has no 'capkit' and 'state_dict' entries")
    return checkpoint


def model_from_checkpoint(checkpoint: Mapping[str, Any]) -> nn.Module:
    """The captioner a checkpoint was saved from, with its weights.

    Only classes of capkit are built: a checkpoint from elsewhere cannot name code to run. Raises UsageError where the
    frozen weights, which checkpoints do not hold, differ from those it was trained with.
    """
    extras = checkpoint["capkit"]
    node = OmegaConf.create(extras["config"]["model"])
    refuse_foreign_targets(plain(node))
    torch.manual_seed(extras["config"]["seed"])
    model = build(node, tokenizer=tokenizer_from_json(extras["tokenizer"]))
    if frozen_fingerprint(model) != extras["frozen_fingerprint"]:
        raise UsageError(
            "the frozen (pretrained) weights are not those this checkpoint was trained with; "
            "use the same pretrained files, or train again"
        )
    load_trainable_state(model, {k.removeprefix("model."): v for k, v in checkpoint["state_dict"].items()})
    return model.eval()


def load_weights(module: CaptionModule, checkpoint: Mapping[str, Any]) -> None:
    """`init_from`: the weights alone, neither optimizer nor step. The tokenizers must agree."""
    ours, theirs = tokenizer_to_json(module.model.tokenizer), checkpoint["capkit"]["tokenizer"]
    if ours != theirs:
        raise UsageError(
            "init_from: the checkpoint was trained with another tokenizer, so its token embeddings mean other words; "
            "use the data and tokenizer it was trained with"
        )
    module.load_state_dict(checkpoint["state_dict"])


def refuse_foreign_targets(node: Any) -> None:
    """Raises UsageError where a checkpoint's config names a class that is not part of capkit."""
    if isinstance(node, Mapping):
        target = node.get("_target_", "capkit.")
        if not str(target).startswith("capkit."):
            raise UsageError(f"the checkpoint's config names {target}, which is not part of capkit; it is not run")
        for value in node.values():
            refuse_foreign_targets(value)
    elif isinstance(node, list):
        for value in node:
            refuse_foreign_targets(value)
