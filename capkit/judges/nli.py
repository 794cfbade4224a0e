"""Judge of contradiction: any natural language inference (NLI) model of transformers.

P pairs of texts, L labels.
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
    """A sequence classifier of transformers trained for NLI, by hub name or folder.

    The contradiction label is read from the config, since its index differs between models. Pairs longer than
    `max_length` tokens are truncated at the end of the longer text. A frozen plain object in float32, never part of a
    checkpoint. Raises UsageError if there is no such model, or not exactly one label named contradiction.
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
        return self.probabilities(premises, hypotheses)[:, self.label]

    def probabilities(self, premises: list[str], hypotheses: list[str]) -> Float[Tensor, "P L"]:
        """Of each label of the model, in its order."""
        pairs = list(zip(premises, hypotheses, strict=True))
        rows = map_unique(pairs, self._judge, self.batch_size)
        return torch.tensor(rows, dtype=torch.float32).reshape(len(pairs), self.model.config.num_labels)

    def provenance(self) -> dict[str, Any]:
        return {"judge": self.name, "label": self.model.config.id2label[self.label], "max_length": self.max_length}

    @torch.no_grad()
    def _judge(self, pairs: list[tuple[str, str]]) -> list[list[float]]:
        premises, hypotheses = (list(texts) for texts in zip(*pairs, strict=True))
        # Special tokens spelled out in a caption ("</s>") stay text: BART would take them for the end.
        settings = {"padding": True, "truncation": True, "max_length": self.max_length, "return_tensors": "pt"}
        inputs = tokenize_as_text(self.tokenizer, premises, hypotheses, **settings).to(self.model.device)
        return self.model(**inputs).logits.float().softmax(-1).tolist()


def contradiction_label(labels: Mapping[int, str], name: str) -> int:
    """Index of the label named contradiction, ignoring case."""
    found = [int(number) for number, label in labels.items() if "contradict" in label.lower()]
    if len(found) != 1:
        raise UsageError(
            f"NLIModel expected one label named contradiction, got {list(labels.values())} of {name!r}; "
            "use a model trained for NLI, such as facebook/bart-large-mnli, or name its labels in id2label"
        )
    return found[0]


def inference_labels(labels: Mapping[int, str], name: str) -> tuple[int, int, int]:
    """Indices of entailment, contradiction and neutral, by their names, ignoring case.

    "not_entailment", of models of two labels, is none of them.
    """
    found = []
    for start in ("entail", "contradict", "neutral"):
        places = [int(number) for number, label in labels.items() if label.lower().startswith(start)]
        if len(places) != 1:
            raise UsageError(
                f"expected one label each named entailment, contradiction and neutral, got {list(labels.values())} of "
                f"{name!r}; use a model trained for NLI with three labels, such as facebook/bart-large-mnli, or name "
                "its labels in id2label"
            )
        found += places
    return found[0], found[1], found[2]
