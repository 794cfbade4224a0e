"""Fluency: likelihood of a caption under a language model that does not see the picture.

B images, K samples per image, T texts, L tokens.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from capkit.errors import UsageError
from capkit.models.batching import map_unique
from capkit.models.dual_encoders.text_towers.tokenize import pad_rows
from capkit.models.pretrained import load_pretrained
from capkit.scorers.base import BaseScorer
from capkit.scorers.flatten import flat_texts, unflatten_scores
from capkit.text.tokenizers import load_tokenizer, tokenize_as_text
from capkit.types import CaptionBatch, Samples
from capkit.utils.ranges import PositiveInt, check_ranges

PER = ("token", "caption")


@check_ranges
class Fluency(BaseScorer):
    """Log-probability of each caption under a causal language model of transformers, in nats.

    The text is scored unchanged (in lower case if written so), after the model's BOS, or EOS if it has none. The end is
    not scored: language models expect text to continue, so an incomplete caption loses nothing. A caption without a
    token gets NaN.

    Args:
        name: Hub name or folder. A separate frozen copy in float32, never the captioner itself, which would rate its
            own captions as fluent.
        per: "token": the mean over tokens; "caption": their sum, which decreases with every word.
        max_length: Texts are truncated to this many tokens.
        batch_size: Texts per forward pass.
    """

    def __init__(
        self, name: str, per: str = "token", max_length: PositiveInt = 256, batch_size: PositiveInt = 32
    ) -> None:
        if per not in PER:
            raise UsageError(f"Fluency wants per=token or per=caption; got {per!r}")
        self.tokenizer = load_tokenizer(name)
        self.model = load_pretrained(AutoModelForCausalLM, name, "language model").eval().requires_grad_(False)
        self.name, self.per, self.max_length, self.batch_size = name, per, max_length, batch_size

    def to(self, device: torch.device | str) -> "Fluency":
        self.model.to(device)
        return self

    def __call__(self, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K"]:
        return unflatten_scores(map_unique(flat_texts(samples), self._logprobs, self.batch_size), samples)

    def provenance(self) -> dict[str, Any]:
        start = self.tokenizer.convert_ids_to_tokens(self.tokenizer.bos_token_id)
        return {"judge": self.name, "per": self.per, "start": start, "max_length": self.max_length}

    @torch.no_grad()
    def _logprobs(self, texts: list[str]) -> list[float]:
        encoded = tokenize_as_text(self.tokenizer, texts, add_special_tokens=False)["input_ids"]
        rows = [[self.tokenizer.bos_token_id, *ids[: self.max_length - 1]] for ids in encoded]
        tokens, mask = (tensor.to(self.model.device) for tensor in pad_rows(rows, self.tokenizer.pad_token_id))
        logits = self.model(input_ids=tokens, attention_mask=mask.long()).logits[:, :-1]
        losses = nn.functional.cross_entropy(logits.float().transpose(1, 2), tokens[:, 1:], reduction="none")
        sums = -(losses * mask[:, 1:]).sum(1)
        counts = mask[:, 1:].sum(1)
        totals = sums / counts if self.per == "token" else sums
        return [value if count else math.nan for value, count in zip(totals.tolist(), counts.tolist(), strict=True)]
