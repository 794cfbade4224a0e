"""Judges of contradiction: any inference model of transformers, and exact rules for SceneWorld's language.

P pairs of texts.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from capkit.errors import UsageError
from capkit.models.batching import map_unique
from capkit.models.pretrained import load_pretrained
from capkit.text.tokenizers import load_tokenizer, tokenize_as_text
from capkit.utils.ranges import PositiveInt, check_ranges


@check_ranges
class NLIModel:
    """A sequence classifier of transformers that was trained for inference, by hub name or folder.

    Which of its labels is contradiction is read from its config: they stand in another order in each model. Pairs
    longer than `max_length` tokens lose words from the end of the longer text. A frozen plain object, in float32, never
    part of a checkpoint. Raises UsageError where there is no model, or no label, or more than one, named contradiction.
    """

    def __init__(self, name: str, max_length: PositiveInt = 256, batch_size: PositiveInt = 64) -> None:
        self.tokenizer = load_tokenizer(name)
        self.model = load_pretrained(AutoModelForSequenceClassification, name, "inference model")
        self.model.eval().requires_grad_(False)
        self.label = contradiction_label(self.model.config.id2label, name)
        self.name, self.max_length, self.batch_size = name, max_length, batch_size

    def to(self, device: torch.device | str) -> "NLIModel":
        self.model.to(device)
        return self

    def contradiction(self, premises: list[str], hypotheses: list[str]) -> Float[Tensor, " P"]:
        pairs = list(zip(premises, hypotheses, strict=True))
        return torch.tensor(map_unique(pairs, self._judge, self.batch_size), dtype=torch.float32)

    def provenance(self) -> dict[str, Any]:
        return {"judge": self.name, "label": self.model.config.id2label[self.label], "max_length": self.max_length}

    @torch.no_grad()
    def _judge(self, pairs: list[tuple[str, str]]) -> list[float]:
        premises, hypotheses = (list(texts) for texts in zip(*pairs, strict=True))
        # Special tokens that a caption spells out ("</s>") are its text: BART would take them for the end.
        settings = {"padding": True, "truncation": True, "max_length": self.max_length, "return_tensors": "pt"}
        inputs = tokenize_as_text(self.tokenizer, premises, hypotheses, **settings).to(self.model.device)
        return self.model(**inputs).logits.float().softmax(-1)[:, self.label].tolist()


def contradiction_label(labels: Mapping[int, str], name: str) -> int:
    """The number of the label that is named contradiction, whatever its case."""
    found = [int(number) for number, label in labels.items() if "contradict" in label.lower()]
    if len(found) != 1:
        raise UsageError(
            f"NLIModel wants a model with one label named contradiction; {name!r} has labels {list(labels.values())}; "
            "take one that was trained for inference, such as facebook/bart-large-mnli, or name its labels in id2label"
        )
    return found[0]
