"""Finding what a name stands for, a run, a checkpoint, an export or a model of transformers, and loading it for use."""

import os
from pathlib import Path
from typing import Any

import torch

from capkit.checkpoint.files import is_export
from capkit.checkpoint.hub_models import Preprocess, load_hub_model
from capkit.checkpoint.loading import model_from_checkpoint, read_checkpoint, stored, stored_transform
from capkit.config.instantiate import build
from capkit.config.run_config import problem
from capkit.config.targets import RUN_PARTS, check_targets
from capkit.data.transforms import ImageTransform
from capkit.decoding.config import Decoding
from capkit.errors import UsageError
from capkit.loaded import LoadedCaptioner, LoadedEncoder
from capkit.models.captioners.chat_vlm import ChatVLM
from capkit.models.captioners.coca import CoCa
from capkit.models.captioners.hf_captioner import HFCaptioner
from capkit.models.dual_encoders.trainable import TrainableDualEncoder
from capkit.models.open_clip import CONFIG
from capkit.models.raters.base import Rater
from capkit.train.conditions import kinds_of


def load_model(source: str | os.PathLike[str], device: torch.device) -> LoadedCaptioner | LoadedEncoder:
    """A run's, checkpoint's or export's model, or one of transformers by folder or hub name, or a CoCa of open_clip.

    Raises UsageError.
    """
    return _of_checkpoint(Path(source), device) if _is_own(Path(source)) else _of_hub(source, device)


def _is_own(path: Path) -> bool:
    """Whether capkit wrote it: a run, a checkpoint or an export, and no folder of transformers' or open_clip's."""
    if not path.exists():
        return False
    if why := problem(path):
        raise UsageError(f"{path}: expected a run, a checkpoint or a model's folder, got {why}; give another path")
    return is_export(path) or not any((path / name).is_file() for name in ("config.json", CONFIG))


def _of_checkpoint(path: Path, device: torch.device) -> LoadedCaptioner | LoadedEncoder:
    checkpoint = read_checkpoint(path)
    model: Any = model_from_checkpoint(checkpoint)
    if isinstance(model, TrainableDualEncoder):
        return LoadedEncoder(model.requires_grad_(False), device)
    if isinstance(model, Rater):
        raise UsageError(
            f"{path}: expected a captioner or a dual encoder, got a rater; captions are scored by it in reward=[rater] "
            "and metric=[rater], and in Python by capkit.scorers.rater.RaterScore (docs/raters.md)"
        )
    preprocess = _preprocess(stored_transform(checkpoint))
    settings = stored(checkpoint, "config", dict).get("decoding")
    if settings is not None:
        check_targets(settings, "decoding", str(path), RUN_PARTS, "give a checkpoint that capkit wrote")
    decoding = Decoding() if settings is None else build(settings)
    kinds = kinds_of(stored(checkpoint, "config.model", dict))
    return LoadedCaptioner(model, preprocess, decoding, kinds, checkpoint, device)


def _preprocess(transform: ImageTransform) -> Preprocess:
    return lambda images: transform.normalize(torch.stack([transform(image) for image in images]))


def _of_hub(source: str | os.PathLike[str], device: torch.device) -> LoadedCaptioner | LoadedEncoder:
    name = os.fspath(source)
    try:
        model, preprocess = load_hub_model(name)
    except UsageError as error:
        if Path(name).exists():
            raise
        raise UsageError(
            f"{name}: expected a run, a checkpoint, an exported folder or a hub name; there is no such path from "
            f"{Path.cwd()}, and {error}"
        ) from error
    if isinstance(model, ChatVLM):
        preprocess = _preprocess(ImageTransform(model.image_size))
    if isinstance(model, HFCaptioner | ChatVLM | CoCa):
        assert preprocess is not None
        return LoadedCaptioner(model, preprocess, Decoding(), {}, None, device)
    return LoadedEncoder(model, device)
