"""Caption metrics: plain functions, imported on first use, and torchmetrics classes around them."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from capkit.metrics.coco.bleu import bleu
    from capkit.metrics.coco.cider import cider, cider_d
    from capkit.metrics.coco.rouge import rouge_l
    from capkit.text.ptb import ptb_tokenize

__all__ = ["bleu", "cider", "cider_d", "ptb_tokenize", "rouge_l"]

_MODULES = {
    "bleu": "capkit.metrics.coco.bleu",
    "cider": "capkit.metrics.coco.cider",
    "cider_d": "capkit.metrics.coco.cider",
    "ptb_tokenize": "capkit.text.ptb",
    "rouge_l": "capkit.metrics.coco.rouge",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
