"""Which of an image's K candidate captions is read: a score for each, and a choice that lets gradients through.

B images, K candidates, D width of embeddings. `present` is False where there is no candidate: an image had fewer than
others, or the model that was asked refused to describe it.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from capkit.errors import UsageError
from capkit.utils.rng import stable_hash, uniform

NUM_HIDDEN = 3


class CaptionScorer(nn.Module):
    """A score for each candidate from its text embedding alone.

    Three hidden layers, each a weight-normed Linear -> LayerNorm -> GELU -> Dropout, then a Linear to one number
    (CAMU, arXiv 2504.17902, caption scorer).
    """

    def __init__(self, width: int, hidden_width: int = 512, dropout: float = 0.2) -> None:
        super().__init__()
        if width < 1 or hidden_width < 1 or not 0 <= dropout < 1:
            raise UsageError(
                f"CaptionScorer wants widths of 1 or more and dropout in [0, 1); got {width}, {hidden_width}, {dropout}"
            )
        layers: list[nn.Module] = []
        for number in range(NUM_HIDDEN):
            linear = weight_norm(nn.Linear(width if number == 0 else hidden_width, hidden_width))
            layers += [linear, nn.LayerNorm(hidden_width), nn.GELU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden_width, 1))

    def forward(self, captions: Float[Tensor, "B K D"], image: Float[Tensor, "B D"]) -> Float[Tensor, "B K"]:
        return self.layers(captions).squeeze(-1)


class CosineScorer(nn.Module):
    """The cosine of candidate and image, times `scale`: the ablation that selects without a learned scorer."""

    def __init__(self, scale: float = 100.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, captions: Float[Tensor, "B K D"], image: Float[Tensor, "B D"]) -> Float[Tensor, "B K"]:
        return self.scale * torch.einsum("bkd,bd->bk", captions, image)


def gumbel_noise(seed: int, step: int, keys: list[str], num_candidates: int) -> Float[Tensor, "B K"]:
    """Standard Gumbel noise that belongs to (seed, step, example, candidate), whichever batch or rank it falls into."""
    ids = torch.tensor([stable_hash(seed, "gumbel", step, key) for key in keys], dtype=torch.int64)
    uniforms = torch.stack([uniform(ids, k) for k in range(num_candidates)], -1).clamp(min=2.0**-54)
    return -(-uniforms.log()).log().float()


def select(
    scores: Float[Tensor, "B K"],
    present: Bool[Tensor, "B K"],
    noise: Float[Tensor, "B K"] | None = None,
    tau: float = 1.0,
) -> Float[Tensor, "B K"]:
    """One-hot weights of the chosen candidates; a row of zeros where an image has none.

    Without noise: the highest score, no randomness. With Gumbel noise: a sample of softmax(scores), whose gradient is
    that of softmax((scores + noise) / tau) (straight-through Gumbel-softmax, Jang et al. 2017, arXiv 1611.01144).
    """
    lowest = torch.finfo(scores.dtype).min
    logits = ((scores if noise is None else scores + noise) / tau).masked_fill(~present, lowest)
    chosen = nn.functional.one_hot(logits.argmax(-1), scores.shape[-1]) * present
    if noise is None:
        return chosen.to(scores.dtype)
    soft = logits.softmax(-1) * present
    return chosen + soft - soft.detach()
