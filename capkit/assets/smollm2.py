"""Converts SmolLM2 from its GGUF file to a plain folder that transformers loads quickly."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from capkit.errors import UsageError


def convert_gguf(file: Path, folder: Path) -> None:
    """Dequantise a GGUF language model to float32 weights, with config and tokenizer, in `folder`.

    The weights are 4-bit ones multiplied out: real and trained, but not bit-equal to the original model's. transformers
    refuses to save a model that it loaded from GGUF, so the weights go into a fresh one.
    Raises UsageError where the package gguf is not installed.
    """
    try:
        import gguf
    except ImportError as error:
        raise UsageError(
            "converting the language model needs the package gguf: pip install 'capkit[stamps]'"
        ) from error
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    with _read_once(gguf):
        model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(**source)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    with torch.device("meta"):
        plain = type(model)(model.config)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@contextmanager
def _read_once(gguf: Any) -> Iterator[None]:
    """Within it a file is parsed once: transformers parses it for the config, the weights and the tokenizer."""
    reader = gguf.GGUFReader
    gguf.GGUFReader = cache(reader)
    try:
        yield
    finally:
        gguf.GGUFReader = reader
