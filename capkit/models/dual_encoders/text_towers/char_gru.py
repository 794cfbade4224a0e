"""Characters to a sentence embedding: a bidirectional GRU with vectorial attention (Merkx & Frank 2019).

M texts, L characters, H hidden units of both directions, N heads, W = N * H width of the output.
"""

import itertools

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from capkit.models.dual_encoders.text_towers.base import never_empty
from capkit.models.dual_encoders.text_towers.tokenize import Characters
from capkit.utils.ranges import PositiveInt, check_ranges


class VectorialAttention(nn.Module):
    """Attention with a softmax over time of its own for every dimension: e = sum_t softmax_t(W2 tanh(W1 h_t)) * h_t."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.w1, self.w2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def weights(self, states: Float[Tensor, "M L H"], mask: Bool[Tensor, "M L"]) -> Float[Tensor, "M L H"]:
        """They sum to 1 over the real positions of each text, dimension by dimension."""
        scores = self.w2(torch.tanh(self.w1(states)))
        return scores.masked_fill(~mask.unsqueeze(-1), float("-inf")).softmax(1)

    def forward(self, states: Float[Tensor, "M L H"], mask: Bool[Tensor, "M L"]) -> Float[Tensor, "M H"]:
        return (self.weights(states, mask) * states).sum(1)


@check_ranges
class CharGRU(nn.Module):
    """Character embedding, bidirectional GRU of `hidden` units each way, vectorial attention heads concatenated.

    The paper has hidden 1024, one layer, and 2 heads for Flickr8k, 1 for COCO. Characters outside string.printable are
    read as one unknown character, the padding's (as in the paper). `max_length` is in characters.
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
        packed = pack_padded_sequence(self.embed(tokens), mask.sum(1).cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=tokens.shape[1])
        return torch.cat([head(states, mask) for head in self.heads], dim=1)

    def diversity_penalty(self, pooled: Float[Tensor, "M W"], margin: float = 1.0) -> Float[Tensor, " M"]:
        """How much alike the heads are: max(0, margin - distance), averaged over pairs of heads; 0 for one head.

        The distance of two heads is 1 - cosine of what they pool, so that a margin of 1 asks for orthogonal heads. Of
        the paper's three forms (on weights, attention or embeddings) this is the last: it needs the output alone.
        """
        parts = nn.functional.normalize(pooled.unflatten(1, (len(self.heads), -1)), dim=-1)  # (M N H)
        pairs = list(itertools.combinations(range(len(self.heads)), 2))
        if not pairs:
            return pooled.new_zeros(len(pooled))
        cosines = torch.stack([(parts[:, i] * parts[:, j]).sum(-1) for i, j in pairs])
        return (margin - (1 - cosines)).clamp(min=0).mean(0)

    def blocks(self) -> list[nn.Module]:
        return []

    def after_blocks(self) -> list[nn.Module]:
        return []
