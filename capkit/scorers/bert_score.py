"""BERTScore of captions (Zhang et al. 2020, arXiv 1904.09675), and MOCHa's adequacy derived from it.

B images, K samples per image, R references, L tokens of a caption, M of a reference, D width.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModel

from capkit.errors import UsageError
from capkit.models.batching import map_unique
from capkit.models.pretrained import load_pretrained
from capkit.scorers.base import BaseScorer
from capkit.scorers.flatten import flat_texts, references_of, says_something, unflatten_scores
from capkit.text.tokenizers import load_tokenizer, tokenize_as_text
from capkit.types import CaptionBatch, Samples
from capkit.utils.ranges import PositiveInt, Range, check_ranges
from capkit.utils.tensors import unit

FORMS = ("f1", "adequacy")
_Tokens = tuple[Float[Tensor, "_ D"], Float[Tensor, " _"]]  # unit vectors and weights


@check_ranges
class BertScore(BaseScorer):
    """F1 of greedily matched tokens, with the best reference, as computed by the package bert-score.

    Each token is matched with the token of the other text that has the largest cosine. Precision is the weighted mean
    over the caption's tokens, recall over the reference's. Special tokens have weight 0 but can be matched. A caption
    without a word gets NaN. The model is frozen and in float32.

    Differences from the package: (1) idf comes from the training references and not from the scored ones, so that a
    score does not depend on the batch; (2) a caption whose tokens all have weight 0 is NaN, not 0.

    Args:
        name: Hub name or folder of the text encoder.
        layer: The layer whose output is compared, 1 being the first; null: the last.
        baseline: F1 of unrelated texts with this model and layer: F1 is rescaled to (F1 - baseline) / (1 - baseline).
        idf: Weight a token by log((N + 1) / (n + 1)) if n of the N training references contain it, instead of 1;
            `fit` must be called first.
        form: "f1", or "adequacy" for MOCHa's r_a = clip(2 (F1 - .35), -1, 1) of the rescaled F1 (arXiv 2312.03631).
        max_length: Texts are truncated to this many tokens.
        batch_size: Texts per forward pass.
    """

    needs_references = True

    def __init__(
        self,
        name: str,
        layer: PositiveInt | None = None,
        baseline: Annotated[float | int, Range(below=1)] = 0.0,
        idf: bool = False,
        form: str = "f1",
        max_length: PositiveInt = 256,
        batch_size: PositiveInt = 64,
    ) -> None:
        if form not in FORMS:
            raise UsageError(f"BertScore wants form=f1 or form=adequacy; got {form!r}")
        self.tokenizer = load_tokenizer(name)
        self.model = load_pretrained(AutoModel, name, "text encoder").eval().requires_grad_(False)
        self.layer = _keep_layers(self.model, layer)
        self.name, self.baseline, self.idf, self.form = name, baseline, idf, form
        self.needs_fit = idf
        self.max_length, self.batch_size = max_length, batch_size
        self._weights: dict[int, float] | None = None
        self._unseen = 1.0

    def to(self, device: torch.device | str) -> "BertScore":
        self.model.to(device)
        return self

    def fit(self, references: Sequence[Sequence[str]]) -> None:
        """Count document frequencies of tokens if `idf` is set; each reference is a document."""
        if not self.idf:
            return
        texts = [text for image in references for text in image]
        counts = Counter(token for ids in self._encode(texts)["input_ids"] for token in set(ids))
        self._weights = {token: math.log((len(texts) + 1) / (count + 1)) for token, count in counts.items()}
        self._unseen = math.log(len(texts) + 1)

    def __call__(self, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K"]:
        """Score the samples. Raises UsageError for an image without references, or before `fit` with `idf`."""
        if self.idf and self._weights is None:
            raise UsageError("BertScore(idf=true) wants document frequencies; got none; call fit(references) first")
        references = references_of(batch, "BertScore")
        captions = flat_texts(samples)
        spoken = [text for text in captions if says_something(text)]
        texts = list(dict.fromkeys([*spoken, *(text for image in references for text in image)]))
        tokens = dict(zip(texts, map_unique(texts, self._embed, self.batch_size), strict=True))
        scores = []
        for own, others in zip(samples.texts, references, strict=True):
            heard = [text for text in own if says_something(text)]
            found = iter(best_f1([tokens[text] for text in heard], [tokens[text] for text in others]) if heard else [])
            scores += [self._scaled(next(found)) if says_something(text) else math.nan for text in own]
        return unflatten_scores(scores, samples)

    def provenance(self) -> dict[str, Any]:
        return {
            "judge": self.name,
            "layer": self.layer,
            "idf": self.idf,
            "baseline": self.baseline,
            "form": self.form,
            "max_length": self.max_length,
        }

    def _scaled(self, f1: float) -> float:
        rescaled = (f1 - self.baseline) / (1 - self.baseline)
        return rescaled if self.form == "f1" else adequacy(rescaled)

    def _encode(self, texts: list[str]) -> Any:
        # Special tokens spelled out in a caption stay text.
        return tokenize_as_text(self.tokenizer, texts, truncation=True, max_length=self.max_length)

    @torch.no_grad()
    def _embed(self, texts: list[str]) -> list[_Tokens]:
        encoded = self._encode(texts)
        inputs = self.tokenizer.pad(encoded, return_tensors="pt").to(self.model.device)
        states = unit(self.model(**inputs).last_hidden_state)  # (B L D)
        return [
            (row[: len(ids)], torch.tensor(self._token_weights(ids), device=row.device))
            for row, ids in zip(states, encoded["input_ids"], strict=True)
        ]

    def _token_weights(self, ids: list[int]) -> list[float]:
        special = {self.tokenizer.cls_token_id, self.tokenizer.sep_token_id}
        if self._weights is None:
            return [float(token not in special) for token in ids]
        return [0.0 if token in special else self._weights.get(token, self._unseen) for token in ids]


def adequacy(f1: float) -> float:
    """MOCHa's r_a = clip(2 (F1 - .35), -1, 1)."""
    return min(max(2 * (f1 - 0.35), -1.0), 1.0)


def best_f1(captions: Sequence[_Tokens], references: Sequence[_Tokens]) -> list[float]:
    """F1 of each caption with its best reference, before rescaling; NaN if no token has weight."""
    states, weights, mask = _padded(captions)
    other_states, other_weights, other_mask = _padded(references)
    cosines = torch.einsum("kld,rmd->krlm", states, other_states)
    cosines = cosines.masked_fill(~(mask[:, None, :, None] & other_mask[None, :, None, :]), -torch.inf)
    precision = _weighted_mean(cosines.amax(3), weights[:, None], mask[:, None])
    recall = _weighted_mean(cosines.amax(2), other_weights[None], other_mask[None])
    f1 = 2 * precision * recall / (precision + recall)  # (K R)
    best = f1.nan_to_num(nan=-torch.inf).amax(1)
    return best.masked_fill(best.isinf(), torch.nan).tolist()


def _weighted_mean(
    values: Float[Tensor, "K R X"], weights: Float[Tensor, "_ _ X"], mask: Bool[Tensor, "_ _ X"]
) -> Float[Tensor, "K R"]:
    return (values.masked_fill(~mask, 0.0) * weights).sum(-1) / weights.sum(-1)


def _padded(
    texts: Sequence[_Tokens],
) -> tuple[Float[Tensor, "T L D"], Float[Tensor, "T L"], Bool[Tensor, "T L"]]:
    states, weights = (pad_sequence(list(parts), batch_first=True) for parts in zip(*texts, strict=True))
    lengths = torch.tensor([len(row) for _, row in texts], device=states.device)
    return states, weights, torch.arange(states.shape[1], device=states.device) < lengths[:, None]


def _keep_layers(model: Any, layer: int | None) -> int:
    """Remove the layers after `layer`, so that its output is the model's; return its number."""
    stacks = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == model.config.num_hidden_layers]
    if len(stacks) != 1:
        raise UsageError(
            f"BertScore wants an encoder with one stack of layers; {type(model).__name__} has {len(stacks)}; take "
            "BERT, RoBERTa, DeBERTa or the like"
        )
    layers = stacks[0]
    chosen = len(layers) if layer is None else layer
    if not 1 <= chosen <= len(layers):
        raise UsageError(f"BertScore wants a layer from 1 to {len(layers)}, as this model has; got {layer}")
    del layers[chosen:]
    return chosen
