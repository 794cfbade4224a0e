"""Character-level sentence embedding: a bidirectional GRU with vectorial attention (Merkx & Frank 2019).

M texts, L characters, H hidden units of both directions, N heads, P pairs of heads, W = N * H width of the output.
"""

import itertools
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from capkit.models.dual_encoders.text_towers.base import never_empty
from capkit.models.dual_encoders.text_towers.tokenize import Characters
from capkit.utils.ranges import PositiveInt, check_ranges
from capkit.utils.tensors import unit


class VectorialAttention(nn.Module):
    """Attention with a separate softmax over time per dimension: e = sum_t softmax_t(W2 tanh(W1 h_t)) * h_t."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.w1, self.w2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def weights(self, states: Float[Tensor, "M L H"], mask: Bool[Tensor, "M L"]) -> Float[Tensor, "M L H"]:
        """Attention weights; per dimension they sum to 1 over the real positions of a text."""
        scores = self.w2(torch.tanh(self.w1(states)))
        return scores.masked_fill(~mask.unsqueeze(-1), float("-inf")).softmax(1)

    def forward(self, states: Float[Tensor, "M L H"], mask: Bool[Tensor, "M L"]) -> Float[Tensor, "M H"]:
        return (self.weights(states, mask) * states).sum(1)

    def first_layer(self) -> Float[Tensor, "H A"]:
        """W1 transposed, computed by the layer's own call: ZeRO-3 gathers sharded weights in calls only."""
        unit_vectors = torch.eye(self.w1.in_features, device=self.w1.weight.device)
        return self.w1(unit_vectors) - self.w1(torch.zeros_like(unit_vectors[:1]))


@check_ranges
class CharGRU(nn.Module):
    """Character embedding, bidirectional GRU with `hidden` units per direction, concatenated vectorial attention heads.

    The paper uses hidden 1024, one layer, and 2 heads for Flickr8k or 1 for COCO. Characters outside string.printable
    share one unknown id, that of padding (as in the paper). `max_length` is in characters.
    """

    def __init__(
        self,
        hidden: PositiveInt = 1024,
        layers: PositiveInt = 1,
        heads: PositiveInt = 1,
        embedding: PositiveInt = 20,
        attention_hidden: PositiveInt = 128,
        max_length: PositiveInt = 256,
    ):
        super().__init__()
        self.tokenize = Characters(max_length)
        self.embed = nn.Embedding(Characters.num_ids, embedding, padding_idx=0)
        self.gru = nn.GRU(embedding, hidden, layers, batch_first=True, bidirectional=True)
        self.heads = nn.ModuleList(VectorialAttention(2 * hidden, attention_hidden) for _ in range(heads))
        self.width = 2 * hidden * heads

    def forward(self, tokens: Int[Tensor, "M L"], mask: Bool[Tensor, "M L"]) -> Float[Tensor, "M W"]:
        mask = never_empty(mask)
        states = self._states(tokens, mask)
        return torch.cat([head(states, mask) for head in self.heads], dim=1)

    def with_head_distances(
        self, tokens: Int[Tensor, "M L"], mask: Bool[Tensor, "M L"]
    ) -> tuple[Float[Tensor, "M W"], dict[str, Float[Tensor, "M P"]]]:
        """`forward`, and how far apart each pair of heads is, by what is compared.

        Distances are Euclidean (Frobenius): "weights" of the first layers W1, the same for every text; "attention" of a
        text's attention weights over all positions and dimensions; "embeddings" of the heads' parts of the unit-norm
        sentence embedding. `capkit.objectives.contrastive.diverse_heads` penalises small ones.
        """
        mask = never_empty(mask)
        states = self._states(tokens, mask)
        heads = [cast(VectorialAttention, head) for head in self.heads]
        attention = [head.weights(states, mask) for head in heads]
        parts = [(weights * states).sum(1) for weights in attention]
        pooled = torch.cat(parts, dim=1)
        compared = {
            "weights": [head.first_layer().flatten().expand(len(tokens), -1) for head in heads],
            "attention": [weights.flatten(1) for weights in attention],
            "embeddings": list(unit(pooled).chunk(len(parts), dim=1)),
        }
        pairs = list(itertools.combinations(range(len(parts)), 2))
        return pooled, {
            kind: torch.stack([torch.linalg.vector_norm(of[i] - of[j], dim=1) for i, j in pairs], dim=1)
            for kind, of in compared.items()
        }

    def _states(self, tokens: Int[Tensor, "M L"], mask: Bool[Tensor, "M L"]) -> Float[Tensor, "M L H"]:
        packed = pack_padded_sequence(self.embed(tokens), mask.sum(1).cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=tokens.shape[1])[0]

    def blocks(self) -> list[nn.Module]:
        return []

    def after_blocks(self) -> list[nn.Module]:
        return []
