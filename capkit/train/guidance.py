"""What guides a loaded captioner: its training without images, and a language model."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from capkit.assets.cache import is_asset
from capkit.checkpoint.files import is_export
from capkit.checkpoint.loading import load_captioner, stored
from capkit.decoding.config import Decoding
from capkit.decoding.guide import LanguageModelGuide
from capkit.decoding.language_model import (
    CaptionerWithoutImage,
    CausalLanguageModel,
    LanguageModel,
    check_same_tokens,
    read_prompt,
)
from capkit.errors import UsageError
from capkit.models.pretrained import language_model
from capkit.text.tokenizers import load_tokenizer


def prepare_guide(
    captioner: Any, checkpoint: Mapping[str, Any], decoding: Decoding, device: torch.device | str
) -> None:
    """Let `decoding.guide.language_model`, if there is one, guide the captioner. Both are frozen in eval mode.

    Warns if the run that wrote the checkpoint missed no image (`objective.image_dropout`): such a captioner does not
    know what it would write without one. Raises UsageError if the language model cannot be loaded, if its tokenizer is
    another, or if a captioner is given a prompt.
    """
    guide = decoding.guide
    if guide is None:
        return
    if not missed_images(checkpoint):
        warnings.warn(
            "decoding.guide: this captioner was trained with every image, so what it writes without one is a guess, "
            "and guidance costs more CIDEr; tune it with objective.image_dropout=0.5 first",
            stacklevel=2,
        )
    if isinstance(guide, LanguageModelGuide):
        captioner.language_model = _loaded(guide, captioner, device)


def missed_images(checkpoint: Mapping[str, Any]) -> bool:
    """Whether the run that wrote the checkpoint was trained without a share of its images."""
    return bool((stored(checkpoint, "config", dict).get("objective") or {}).get("image_dropout"))


def _loaded(guide: LanguageModelGuide, captioner: Any, device: torch.device | str) -> LanguageModel:
    name = guide.language_model
    if _is_capkits(Path(name)):
        if guide.prompt is not None:
            raise UsageError(
                f"decoding.guide.prompt={guide.prompt}: expected a causal language model, which reads it, got the "
                f"captioner {name}; leave the prompt out"
            )
        other, _ = load_captioner(name)
        check_same_tokens(captioner, name, other.tokenizer)
        return CaptionerWithoutImage(other.to(device).eval().requires_grad_(False))
    prompt = read_prompt(guide.prompt)
    tokenizer = load_tokenizer(name)
    check_same_tokens(captioner, name, tokenizer)
    model = language_model(name, pretrained=True, tokenizer=tokenizer)
    return CausalLanguageModel(model.to(device).eval().requires_grad_(False), tokenizer, prompt)


def _is_capkits(path: Path) -> bool:
    """Whether the path is a run, a checkpoint or an export of capkit's, and not a folder of transformers'."""
    if not path.exists() or is_asset(path):  # `capkit prepare` leaves language models too
        return False
    return is_export(path) or not (path / "config.json").is_file()
