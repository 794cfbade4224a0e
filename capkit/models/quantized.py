"""Weights in 4 bits for QLoRA (Dettmers et al. 2023, arXiv 2305.14314), through bitsandbytes where it is installed."""

from importlib.util import find_spec
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from capkit.errors import UsageError


def four_bit_settings() -> Any:
    """NormalFloat of 4 bits, with its scales quantized too; products in bfloat16, as the paper has them.

    Raises UsageError where bitsandbytes is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise UsageError(
            "model.four_bit=true needs bitsandbytes, which is not installed; pip install 'bitsandbytes>=0.46', or set "
            "model.four_bit=false for LoRA on the weights as they are"
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
