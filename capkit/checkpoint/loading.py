"""Reading checkpoints: the same model again from the file alone, without running anything that the file names."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

import torch
from hydra.errors import InstantiationException
from omegaconf import OmegaConf
from torch import Tensor, nn

from capkit.checkpoint.exported import load_exported, read_export
from capkit.checkpoint.files import is_export, load_checkpoint, resolve_checkpoint
from capkit.config.defaults import with_defaults
from capkit.config.instantiate import build, nested, plain
from capkit.config.targets import MODELS, check_arguments, check_targets
from capkit.errors import UsageError, usage_error_behind
from capkit.models.dual_encoders.trainable import TrainableDualEncoder
from capkit.models.tuning.lora import LoRA
from capkit.models.tuning.policy import Tuning
from capkit.models.weights import frozen_fingerprint, load_trainable_state
from capkit.text.tokenizers import tokenizer_from_json, tokenizer_to_json

TOKENIZER_KEY = "tokenizer"  # where a captioner's config names its tokenizer


def checkpoint_extras(config: Any, model: Any) -> dict[str, Any]:
    """What a checkpoint holds beside weights, as plain data: enough to build the same model again."""
    key = getattr(model, "tokenizer_key", TOKENIZER_KEY)
    as_config = plain(config)
    as_config["model"] = getattr(model, "model_config", as_config["model"])
    as_config["seed"] = getattr(model, "model_seed", as_config["seed"])  # random weights that stay frozen come from it
    return {
        "config": with_defaults(as_config),  # a later change of a default does not change this model
        "tokenizer_key": key,
        "tokenizer": None if key is None or model.tokenizer is None else tokenizer_to_json(model.tokenizer),
        "frozen_fingerprint": frozen_fingerprint(model),
    }


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's plain data and tensors, on the CPU; a run folder means its newest whole checkpoint.

    A folder that `capkit export` wrote is read too: `folders` then says where the weights lie that are no tensors here.

    Raises UsageError for what is no checkpoint of capkit, or a broken one. Nothing in it is executed.
    """
    path = resolve_checkpoint(path)
    if is_export(path):
        return read_export(path)
    try:
        checkpoint = load_checkpoint(path)
    except Exception as error:  # torch and safetensors raise almost anything for a file of another kind
        raise UsageError(f"{path} cannot be read as a checkpoint ({type(error).__name__}: {error})") from error
    if not isinstance(checkpoint, dict) or "capkit" not in checkpoint or "state_dict" not in checkpoint:
        raise UsageError(f"{path} is not a capkit checkpoint: it has no 'capkit' and 'state_dict' entries")
    weights = checkpoint["state_dict"]
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise UsageError(f"{path} is broken: its state_dict must name tensors; give another checkpoint")
    return checkpoint


def stored(checkpoint: Mapping[str, Any], key: str, *kinds: type) -> Any:
    """An entry of what capkit saved beside the weights, by its dotted key, of one of these types.

    Raises UsageError where it is missing or of another type.
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
    """The model a checkpoint was saved from, with its weights.

    Only what capkit/config/targets.py lists is built: a checkpoint from elsewhere cannot name code to run. Raises
    UsageError where the checkpoint names anything else or is broken, and where the frozen weights, which checkpoints do
    not hold, differ from those it was trained with.
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
    """The object that a node of a checkpoint's config describes, checked first; `key` is its place in the config.

    Raises UsageError where it names what it may not name, or cannot be built.
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


def stored_tokenizer(checkpoint: Mapping[str, Any]) -> Any:
    """A checkpoint's tokenizer; None for a model that has none of its own. Raises UsageError where it is broken."""
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
    """A captioner and the checkpoint it comes from. Raises UsageError where the checkpoint holds a dual encoder."""
    checkpoint = read_checkpoint(Path(ckpt))
    model = model_from_checkpoint(checkpoint)
    if isinstance(model, TrainableDualEncoder):
        raise UsageError(
            f"ckpt={ckpt} holds a dual encoder, which writes no captions; use task=evaluate_encoder for it"
        )
    return model, checkpoint


def load_captioner_to_tune(
    ckpt: str | None, lora: Mapping[str, Mapping[str, Any]] | None = None, freeze: Sequence[str] | None = None
) -> Any:
    """A captioner trained by capkit, from its run folder or checkpoint, to be trained further.

    `lora` maps names of its parts ("lm", "image_encoder") to the settings of adapters (rank, alpha, dropout, targets):
    such a part's own weights are frozen. Parts and parameters whose names begin with one of `freeze` are frozen as they
    are. Without both, checkpoints of the new run stand alone; with either they need `ckpt`, whose weights they leave
    out.

    Raises UsageError where the checkpoint holds a dual encoder, or a name is none of the captioner's.
    """
    if ckpt is None:
        raise UsageError("a captioner to tune is wanted; give init_from=RUN, a run or checkpoint of one")
    model, checkpoint = load_captioner(ckpt)
    model.train()
    parts = [name for name, _ in model.named_children()]
    for name, settings in (lora or {}).items():
        if name not in parts:
            raise UsageError(f"model.lora names parts of the captioner: {', '.join(parts)}; got {name!r}")
        LoRA.from_mapping(settings).add_to(getattr(model, name))
    for start in freeze or ():
        found = [p for name, p in model.named_parameters() if name == start or name.startswith(f"{start}.")]
        if not found:
            raise UsageError(
                f"model.freeze={start} is no part or parameter of the captioner; parts: {', '.join(parts)}"
            )
        for parameter in found:
            parameter.requires_grad_(False)
    if lora or freeze:
        model.tokenizer_key = None  # the checkpoint named here has it
    else:
        model.model_config = stored(checkpoint, "config.model", dict)
        model.model_seed = stored(checkpoint, "config.seed", int)
    return model


def load_dual_encoder(
    ckpt: str | None, tune_image: Tuning | None = None, tune_text: Tuning | None = None, grammar_head: bool = False
) -> TrainableDualEncoder:
    """A dual encoder trained by capkit, from its run folder or checkpoint: to judge, or to be tuned further.

    A tuning says what trains of its side; a side without one is frozen. `grammar_head` adds a new head
    where the checkpoint has none. Raises UsageError where the checkpoint holds a captioner.
    """
    if ckpt is None:
        raise UsageError(
            "expected a trained dual encoder, got null; give its run or checkpoint: ckpt=RUN, or "
            "reward_encoder=RUN eval_encoder=RUN"
        )
    model = model_from_checkpoint(read_checkpoint(Path(ckpt)))
    if not isinstance(model, TrainableDualEncoder):
        raise UsageError(f"ckpt={ckpt} holds a {type(model).__name__}; a dual encoder is wanted (task=fit_encoder)")
    model.tokenizer_key = None  # the checkpoint named here has it
    for side, tuning in (("image", tune_image), ("text", tune_text)):
        for module in model.side(side) if tuning is None else ():
            module.requires_grad_(False)
    if tune_image is None and tune_text is None:
        model.requires_grad_(False)
    model.tune(tune_image, tune_text)
    if grammar_head:
        model.add_grammar_head()
    return model


def load_weights(module: nn.Module, checkpoint: Mapping[str, Any]) -> None:
    """`init_from`: the weights alone, neither optimizer nor step. The tokenizers must agree."""
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
    module.load_state_dict(checkpoint["state_dict"])
