"""Converts SmolLM2 from its GGUF file to a plain folder that transformers loads quickly."""

from pathlib import Path

from capkit.errors import UsageError


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Dequantise a GGUF language model to float32 weights, with config and tokenizer, in `folder`.

    The weights are 4-bit ones multiplied out: real and trained, but not bit-equal to the original model's. transformers
    refuses to save a model that it loaded from GGUF, so the weights go into a fresh one.
    Raises UsageError where the package gguf is not installed.
    """
    try:
        import gguf as _  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "converting the language model needs the package gguf: pip install 'capkit[stamps]'"
        ) from error
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    with torch.device("meta"):
        plain = type(model)(model.config)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)
