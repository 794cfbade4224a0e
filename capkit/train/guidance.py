"""Loading the language model that guides a captioner."""

from pathlib import Path
from typing import Any

import torch

from capkit.checkpoint.files import is_export
from capkit.checkpoint.loading import load_captioner
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


def attach_language_model(captioner: Any, decoding: Decoding, device: torch.device | str) -> None:
    """Let `decoding.guide.language_model`, if there is one, guide the captioner. Both are frozen in eval mode.

    Raises UsageError if it cannot be loaded, if its tokenizer is another, or if a captioner is given a prompt.
    """
    guide = decoding.guide
    if isinstance(guide, LanguageModelGuide):
        captioner.language_model = _loaded(guide, captioner, device)


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
    return path.exists() and (is_export(path) or not (path / "config.json").is_file())
