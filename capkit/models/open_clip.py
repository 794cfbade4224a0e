"""Loading models of the package open_clip, which is an optional one."""

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from capkit.errors import UsageError
from capkit.text.tokenizers import hub_reachable

CONFIG = "open_clip_config.json"
"""The file that makes a folder one of open_clip's."""


def package(name: str) -> Any:
    """The package open_clip. Raises UsageError, by the name of the wanted model, where it is not installed."""
    try:
        import open_clip
    except ImportError as error:
        raise UsageError(
            f"the model {name!r} is one of open_clip, which is not installed ({error}); pip install 'capkit[openclip]'"
        ) from error
    return open_clip


def schema_name(name: str) -> str:
    """open_clip's own spelling of a model's name: a folder of its kind is "local-dir:FOLDER"."""
    return f"local-dir:{name}" if (Path(name) / CONFIG).is_file() else name


@contextmanager
def telling_failures(what: str, fix: str) -> Iterator[None]:
    """Whatever open_clip raises becomes a UsageError, "open_clip could not `what`: ...; `fix`".

    What it logs by the root logger meanwhile is part of that message, or is not told; its handler there goes again.
    Where the hub is out of reach, only its cache is read: the client would retry for most of a minute.
    """
    handlers, is_offline = list(logging.root.handlers), huggingface_hub.constants.HF_HUB_OFFLINE
    logged: list[str] = []

    def note(record: logging.LogRecord) -> bool:
        logged.extend([record.getMessage()] if record.levelno >= logging.WARNING else [])
        return False

    logging.root.addFilter(note)
    huggingface_hub.constants.HF_HUB_OFFLINE = is_offline or not hub_reachable()
    try:
        yield
    except UsageError:
        raise
    except Exception as error:  # damaged files of weights raise nearly everything
        told = " ".join(" ".join([f"{type(error).__name__}: {error}", *logged[-1:]]).split())
        raise UsageError(f"open_clip could not {what}: {told[:400]}; {fix}") from error
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE = is_offline
        logging.root.removeFilter(note)
        logging.root.handlers[:] = handlers


def load_network(name: str, weights: str | None) -> Any:
    """The network with its weights, in float32. Raises UsageError where open_clip cannot load them."""
    open_clip = package(name)
    of_weights = "" if weights is None else f" with the weights {weights!r}"
    fix = "give a tag that open_clip lists (with network) or a file, hf-hub:OWNER/MODEL, or a folder"
    with telling_failures(f"load {name!r}{of_weights}", fix):
        return open_clip.create_model(
            schema_name(name), pretrained=weights, pretrained_text=False, require_pretrained=True
        )


def preprocess(visual: Any, images: Sequence[Any]) -> Float[Tensor, "B 3 H W"]:
    """Pictures (H W 3) as the image tower `visual` was trained to read them."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    known = {field.name for field in dataclasses.fields(PreprocessCfg)}
    settings = {name: value for name, value in visual.preprocess_cfg.items() if name in known}
    transform = image_transform_v2(PreprocessCfg(**settings), is_train=False)
    return torch.stack([transform(Image.fromarray(np.asarray(image))) for image in images])
