"""Rebuilding a model from a checkpoint alone, without executing anything that the file names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

import torch
from hydra.errors import InstantiationException
from omegaconf import OmegaConf
from torch import Tensor, nn

from capkit.checkpoint.export_reader import load_exported, read_export
from capkit.checkpoint.files import is_export, load_checkpoint
from capkit.checkpoint.run_checkpoints import resolve_checkpoint
from capkit.config.defaults import with_defaults
from capkit.config.instantiate import build, nested, plain
from capkit.config.targets import MODELS, check_arguments, check_targets
from capkit.errors import UsageError, usage_error_behind
from capkit.models.dual_encoders.ensemble import Ensemble
from capkit.models.dual_encoders.trainable import TrainableDualEncoder
from capkit.models.raters.base import Rater
from capkit.models.tuning.lora import LoRA
from capkit.models.tuning.policy import Tuning
from capkit.models.weights import frozen_fingerprint, load_trainable_state
from capkit.text.tokenizers import tokenizer_from_json, tokenizer_to_json

TOKENIZER_KEY = "tokenizer"  # where a captioner's config names its tokenizer


@dataclass(frozen=True)
class Origin:
    """The `origin` of a model that was loaded from a checkpoint: what `checkpoint_extras` says of it in a new one.

    With the `config` and `seed` of the earlier checkpoint the new one rebuilds the model as the earlier one does, and
    does not need it. Without them the run's own config names the earlier checkpoint. `tokenizer_key` is where the
    stored config takes the tokenizer; None if that comes from a checkpoint which the stored config names.
    """

    tokenizer_key: str | None = None
    config: dict[str, Any] | None = None
    seed: int | None = None


def checkpoint_extras(config: Any, model: Any) -> dict[str, Any]:
    """Plain data that a checkpoint needs besides weights to rebuild the same model."""
    as_config = plain(config)
    origin: Origin | None = getattr(model, "origin", None)
    key = getattr(model, "tokenizer_key", TOKENIZER_KEY) if origin is None else origin.tokenizer_key
    if origin is not None and origin.config is not None:
        as_config |= {"model": origin.config, "seed": origin.seed}  # it seeds random weights that stay frozen
    return {
        "config": with_defaults(as_config),  # so that a later change of a default does not change this model
        "tokenizer_key": key,
        "tokenizer": None if key is None or model.tokenizer is None else tokenizer_to_json(model.tokenizer),
        "frozen_fingerprint": frozen_fingerprint(model),
    }


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint's plain data and tensors, on the CPU. A run folder stands for its newest intact checkpoint.

    Also reads a folder written by `capkit export`; its entry `folders` names the folders that hold weights.

    Raises UsageError if it is damaged or not a capkit checkpoint. Nothing in it is executed.
    """
    path = resolve_checkpoint(path)
    if is_export(path):
        return read_export(path)
    try:
        checkpoint = load_checkpoint(path)
    except Exception as error:  # torch and safetensors raise almost anything for other kinds of files
        raise UsageError(f"{path} cannot be read as a checkpoint ({type(error).__name__}: {error})") from error
    if not isinstance(checkpoint, dict) or "capkit" not in checkpoint or "state_dict" not in checkpoint:
        raise UsageError(f"{path} is not a capkit checkpoint: it has no 'capkit' and 'state_dict' entries")
    weights = checkpoint["state_dict"]
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise UsageError(f"{path} is broken: expected only tensors in its state_dict; give another checkpoint")
    return checkpoint


def stored(checkpoint: Mapping[str, Any], key: str, *kinds: type) -> Any:
    """An entry of the plain data in a checkpoint, by dotted key, of one of the given types.

    Raises UsageError if it is missing or of another type.
    """
    value: Any = checkpoint["capkit"]
    for name in key.split("."):
        if not isinstance(value, Mapping) or name not in value:
            raise _broken(f"it has no capkit.{key}")
        value = value[name]
    if not isinstance(value, kinds):
        expected = " or ".join("null" if kind is NoneType else kind.__name__ for kind in kinds)
        raise _broken(f"capkit.{key}: expected {expected}, got {type(value).__name__}")
    return value


def _broken(why: str) -> UsageError:
    return UsageError(f"the checkpoint is broken: {why}; give another checkpoint of the run")


def model_from_checkpoint(checkpoint: Mapping[str, Any]) -> nn.Module:
    """The model that a checkpoint was saved from, with its weights.

    Only classes listed in capkit/config/targets.py are built, so that a foreign checkpoint cannot name code to run.
    Raises UsageError if the checkpoint names anything else or is damaged, or if the frozen weights, which it does not
    contain, differ from those it was trained with.
    """
    seed = stored(checkpoint, "config.seed", int)
    if not 0 <= seed < 2**63:
        raise _broken(f"capkit.config.seed: expected a number from 0 to 2^63 - 1, got {seed}")
    torch.manual_seed(seed)
    tokenizer = stored_tokenizer(checkpoint)
    arguments = {} if tokenizer is None else nested(stored(checkpoint, "tokenizer_key", str), tokenizer)
    model = build_stored(stored(checkpoint, "config.model", dict), "model", **arguments)
    if not isinstance(model, nn.Module):
        raise _broken(f"capkit.config.model: expected a model, got a {type(model).__name__}")
    if "folders" in checkpoint:
        load_exported(model, checkpoint)
        return model.eval()
    if frozen_fingerprint(model) != stored(checkpoint, "frozen_fingerprint", int):
        raise UsageError(
            "the frozen (pretrained) weights are not those this checkpoint was trained with; "
            "use the same pretrained files, or train again"
        )
    load_trainable_state(model, {k.removeprefix("model."): v for k, v in checkpoint["state_dict"].items()})
    return model.eval()


def build_stored(node: Mapping[str, Any], key: str, **arguments: Any) -> Any:
    """Build the object that a node of a checkpoint's config describes, after checking it. `key`: the node's place.

    Raises UsageError if it names a class that is not allowed, or cannot be built.
    """
    source = "the checkpoint's config"
    check_targets(node, key, source, MODELS, "where another version of capkit wrote the file, use that version")
    check_arguments(node, key, source)
    try:
        return build(OmegaConf.create(dict(node)), **arguments)
    except InstantiationException as error:
        if told := usage_error_behind(error):
            raise told from error
        cause = error.__cause__ or error
        raise _broken(f"capkit.config.{key} cannot be built ({type(cause).__name__}: {cause})") from error


def stored_transform(checkpoint: Mapping[str, Any]) -> Any:
    """The transform of pictures that a captioner was trained with, without augmentation.

    Raises UsageError for one that was trained on features or on texts alone.
    """
    trained_on = stored(checkpoint, "config.data", dict)
    if trained_on.get("pictures") is False:
        raise UsageError(
            "expected a captioner of pictures, got one that answers prompts; export it (capkit export ckpt=RUN "
            "out=DIR) and ask it as text_lm=hf text_lm.name=DIR, or evaluate it on data=answers"
        )
    if trained_on.get("transform") is None:
        raise UsageError("this captioner was trained on cached features alone; its config says nothing about pixels")
    settings = {**stored(checkpoint, "config.data.transform", dict), "augment": None}
    return build_stored(settings, "data.transform")


def stored_tokenizer(checkpoint: Mapping[str, Any]) -> Any:
    """A checkpoint's tokenizer; None if its model has none of its own. Raises UsageError if it is damaged."""
    data = stored(checkpoint, "tokenizer", dict, NoneType)
    if data is None:
        return None
    for name, token in stored(checkpoint, "tokenizer.special_tokens", dict).items():
        if not str(name).endswith("_token") or not isinstance(token, str):
            raise _broken(f"capkit.tokenizer.special_tokens: expected tokens by name, got {name}: {token!r}")
    try:
        return tokenizer_from_json(data)
    except Exception as error:  # tokenizers raises bare Exceptions
        raise _broken(f"its tokenizer cannot be read ({type(error).__name__}: {error})") from error


def load_captioner(ckpt: str) -> tuple[Any, dict[str, Any]]:
    """A captioner and its checkpoint. Raises UsageError if the checkpoint holds a dual encoder or a rater."""
    checkpoint = read_checkpoint(Path(ckpt))
    model = model_from_checkpoint(checkpoint)
    if isinstance(model, TrainableDualEncoder):
        raise UsageError(
            f"expected a captioner, got ckpt={ckpt}, which holds a dual encoder; evaluate it with task=evaluate_encoder"
        )
    if isinstance(model, Rater):
        raise UsageError(
            f"expected a captioner, got ckpt={ckpt}, which holds a rater; captions are scored by it in reward=[rater] "
            "and metric=[rater] (docs/raters.md)"
        )
    return model, checkpoint


def load_captioner_to_tune(
    ckpt: str | None, lora: Mapping[str, Mapping[str, Any]] | None = None, freeze: Sequence[str] | None = None
) -> Any:
    """A captioner trained by capkit, to be trained further.

    Args:
        ckpt: its run folder or checkpoint.
        lora: adapter settings (rank, alpha, dropout, targets) by name of a part ("lm", "image_encoder"), whose own
            weights are then frozen.
        freeze: names of parts and parameters to freeze, or their beginnings.

    With `lora` or `freeze`, checkpoints of the new run omit the weights of `ckpt`, and need it to be loaded. With
    neither, they are self-contained. Raises UsageError for a dual encoder's checkpoint, or a name that the captioner
    does not have.
    """
    if ckpt is None:
        raise UsageError("expected a captioner to tune, got null; give init_from=RUN, its run or checkpoint")
    model, checkpoint = load_captioner(ckpt)
    model.train()
    parts = [name for name, _ in model.named_children()]
    for name, settings in (lora or {}).items():
        if name not in parts:
            raise UsageError(f"model.lora: expected parts of the captioner ({', '.join(parts)}), got {name!r}")
        LoRA.from_mapping(settings).add_to(getattr(model, name))
    for start in freeze or ():
        found = [p for name, p in model.named_parameters() if name == start or name.startswith(f"{start}.")]
        if not found:
            raise UsageError(
                f"model.freeze: expected a part or parameter of the captioner, got {start}; parts: {', '.join(parts)}"
            )
        for parameter in found:
            parameter.requires_grad_(False)
    model.origin = Origin()
    if not lora and not freeze:
        model.origin = Origin(
            stored(checkpoint, "tokenizer_key", str, NoneType),
            stored(checkpoint, "config.model", dict),
            stored(checkpoint, "config.seed", int),
        )
    return model


def load_image_encoder(ckpt: str) -> nn.Module:
    """The image encoder of a captioner trained by capkit, frozen: what `capkit prepare` computes features with.

    Raises UsageError for a dual encoder's checkpoint, or a captioner without an image encoder of its own.
    """
    model, _ = load_captioner(ckpt)
    if not isinstance(getattr(model, "image_encoder", None), nn.Module):
        raise UsageError(
            f"expected a captioner with an image encoder, got ckpt={ckpt} with a {type(model).__name__} without one; "
            "give another run"
        )
    return model.image_encoder.requires_grad_(False)


def load_dual_encoder(
    ckpt: str | None, tune_image: Tuning | None = None, tune_text: Tuning | None = None, grammar_head: bool = False
) -> TrainableDualEncoder:
    """A dual encoder trained by capkit, to score with or to be trained further.

    Args:
        ckpt: its run folder or checkpoint.
        tune_image: what to train of the image side; null freezes it.
        tune_text: what to train of the text side; null freezes it.
        grammar_head: add a new head if the checkpoint has none.

    Raises UsageError if the checkpoint holds a captioner.
    """
    if ckpt is None:
        raise UsageError(
            "expected a trained dual encoder, got null; give its run or checkpoint: ckpt=RUN, or "
            "reward_encoder=RUN eval_encoder=RUN"
        )
    model = _dual_encoder_in(read_checkpoint(Path(ckpt)), ckpt)
    model.origin = Origin()
    for side, tuning in (("image", tune_image), ("text", tune_text)):
        for module in model.side(side) if tuning is None else ():
            module.requires_grad_(False)
    if tune_image is None and tune_text is None:
        model.requires_grad_(False)
    model.tune(tune_image, tune_text)
    if grammar_head:
        model.add_grammar_head()
    return model


def load_ensemble(ckpts: Sequence[str]) -> Ensemble:
    """The ensemble of several checkpoints of one run, frozen, e.g. of the ends of its learning-rate cycles.

    Raises UsageError for fewer than two checkpoints, one named twice, or checkpoints of runs that differ in seed,
    model, data, objective or optimization, whose embedding spaces are not aligned.
    """
    paths = [resolve_checkpoint(Path(ckpt)) for ckpt in ckpts]
    for number, path in enumerate(paths):
        if path.resolve() in [earlier.resolve() for earlier in paths[:number]]:
            raise UsageError(f"an ensemble expected different checkpoints, got {path} twice; leave one of them out")
    checkpoints = [read_checkpoint(path) for path in paths]
    first = {key: stored(checkpoints[0], "config", dict).get(key) for key in _OF_ONE_RUN}
    for path, checkpoint in zip(paths[1:], checkpoints[1:], strict=True):
        config = stored(checkpoint, "config", dict)
        if differing := [key for key in _OF_ONE_RUN if config.get(key) != first[key]]:
            raise UsageError(
                f"an ensemble expected checkpoints of one run, got {paths[0]} and {path}, which differ in "
                f"{', '.join(differing)}; give checkpoints of one run: ckpt=[RUN/checkpoints/step-....ckpt, ...]"
            )
    models = [_dual_encoder_in(*pair) for pair in zip(checkpoints, ckpts, strict=True)]
    return Ensemble([model.requires_grad_(False) for model in models])


# The entries of a run's config that make another run of it, in the order of a message.
_OF_ONE_RUN = ("seed", "model", "data", "objective", "optimizer", "scheduler")


def _dual_encoder_in(checkpoint: Mapping[str, Any], ckpt: str) -> TrainableDualEncoder:
    model = model_from_checkpoint(checkpoint)
    if not isinstance(model, TrainableDualEncoder):
        raise UsageError(
            f"expected a dual encoder, got ckpt={ckpt} with a {type(model).__name__}; train one with task=fit_encoder"
        )
    return model


def load_weights(module: nn.Module, checkpoint: Mapping[str, Any]) -> None:
    """Load the weights for `init_from`, without optimizer and step. Raises UsageError if the tokenizers differ.

    Conditions that the checkpoint does not have keep their new weights.
    """
    tokenizer: Any = module.model.tokenizer  # type: ignore[union-attr]
    theirs = stored(checkpoint, "tokenizer", dict, NoneType)
    ours = None if tokenizer is None else tokenizer_to_json(tokenizer)
    if ours != theirs:
        raise UsageError(
            "init_from: the checkpoint was trained with another tokenizer, so its token embeddings mean other words; "
            "use the data and tokenizer it was trained with"
        )
    if "folders" in checkpoint:
        exported = model_from_checkpoint(checkpoint).state_dict()
        checkpoint = {"state_dict": {f"model.{name}": value for name, value in exported.items()}}
    own = module.state_dict().items()
    new = {name: value for name, value in own if name.startswith("model.conditions.")}
    module.load_state_dict({**new, **checkpoint["state_dict"]})
