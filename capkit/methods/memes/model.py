"""CAMU: is a meme hateful? One of K generated captions is chosen, fused with the picture and classified.

Method: "CAMU: Context Augmentation for Meme Understanding" (arXiv 2504.17902). B memes, K candidate captions, N image
tokens of width W, D width of the encoder's embeddings, F width of the fusion, G = 2 F.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from capkit.errors import UsageError
from capkit.methods.memes.caption_choice import CaptionScorer, CosineScorer, select
from capkit.models.dual_encoders.trainable import TrainableDualEncoder
from capkit.models.tuning.frozen import eval_frozen
from capkit.types import CaptionBatch
from capkit.utils.ranges import DropoutRate, PositiveFloat, PositiveInt, check_ranges


class CrossModalFusion(nn.Module):
    """Image and text tokens in a common width F, each with what it attends to of the other; mean over tokens, joined.

    I' = I_p + CrossAttention(query I_p, keys and values T_p), and T' with the two exchanged. Where the text is one
    vector, as in CAMU, softmax over one key is 1: the image's side then adds a linear map of the text to every token.
    """

    def __init__(self, image_width: int, text_width: int, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        if width % num_heads:
            raise UsageError(f"fusion_width must be divisible by num_heads; got {width} and {num_heads}")
        self.image_projection = nn.Sequential(nn.Linear(image_width, width), nn.LayerNorm(width))
        self.text_projection = nn.Sequential(nn.Linear(text_width, width), nn.LayerNorm(width))
        self.image_attends = nn.MultiheadAttention(width, num_heads, dropout, batch_first=True)
        self.text_attends = nn.MultiheadAttention(width, num_heads, dropout, batch_first=True)

    def forward(self, image: Float[Tensor, "B N W"], text: Float[Tensor, "B M D"]) -> Float[Tensor, "B G"]:
        image, text = self.image_projection(image), self.text_projection(text)
        image_seen = image + self.image_attends(image, text, text, need_weights=False)[0]
        text_seen = text + self.text_attends(text, image, image, need_weights=False)[0]
        return torch.cat([image_seen.mean(1), text_seen.mean(1)], -1)


@dataclass
class MemeScores:
    """What CAMU says of B memes.

    `logits`: above 0 is hateful. `scores` of the candidates and `weights`, one-hot of the chosen one (zeros where a
    meme has no candidate). `images` and `texts` are the embeddings that a contrastive term compares.
    """

    logits: Float[Tensor, " B"]
    scores: Float[Tensor, "B K"]
    weights: Float[Tensor, "B K"]
    images: Float[Tensor, "B D"]
    texts: Float[Tensor, "B D"]

    @classmethod
    def join(cls, parts: "Sequence[MemeScores]") -> "MemeScores":
        """The memes of several micro-batches as one."""
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    @property
    def selected_scores(self) -> Float[Tensor, " B"]:
        """The chosen candidate's score, 0 where there is none. Its gradient reaches the scorer."""
        return (self.scores * self.weights.detach()).sum(-1)

    @property
    def has_caption(self) -> Bool[Tensor, " B"]:
        return self.weights.detach().sum(-1) > 0.5

    @property
    def selected(self) -> Int[Tensor, " B"]:
        """The chosen candidate's place, -1 where there is none."""
        return self.weights.argmax(-1).where(self.has_caption, -1)


@check_ranges
class Camu(nn.Module):
    """A dual encoder, a caption scorer, cross-attention fusion and a head of one logit.

    `encoder` is a dual encoder. Its image side and temperature are frozen here; its own `tune_text` says what of its
    text side trains. `image_tokens`: "patches", or "pooled" for the one embedding of an image. `selection`: "scorer"
    (learned), or "cosine" (the ablation without a scorer).

    A meme without any candidate is read with a learned embedding in place of the caption: it is still classified, from
    its picture.

    The paper's note is silent on sizes: fusion 1024 wide with 8 heads, dropout .2 and tau 1 are choices made here.
    """

    tokenizer_key = None  # the encoder comes with its own tokenizer

    def __init__(
        self,
        encoder: TrainableDualEncoder,
        selection: str = "scorer",
        image_tokens: str = "patches",
        scorer_width: PositiveInt = 512,
        fusion_width: PositiveInt = 1024,
        num_heads: PositiveInt = 8,
        dropout: DropoutRate = 0.2,
        tau: PositiveFloat = 1.0,
    ) -> None:
        super().__init__()
        if selection not in ("scorer", "cosine"):
            raise UsageError(f"selection must be scorer or cosine; got {selection!r}")
        if image_tokens not in ("patches", "pooled"):
            raise UsageError(f"image_tokens must be patches or pooled; got {image_tokens!r}")
        self.encoder = encoder
        text_side = {id(parameter) for module in encoder.side("text") for parameter in module.parameters()}
        for parameter in encoder.parameters():
            if id(parameter) not in text_side:
                parameter.requires_grad_(False)
        width = encoder.embed_dim
        self.scorer = CaptionScorer(width, scorer_width, dropout) if selection == "scorer" else CosineScorer()
        self.fusion = CrossModalFusion(width, width, fusion_width, num_heads, dropout)
        self.head = nn.Sequential(
            nn.Linear(2 * fusion_width, fusion_width), nn.GELU(), nn.Dropout(dropout), nn.Linear(fusion_width, 1)
        )
        self.no_caption = nn.Parameter(torch.zeros(width))
        self.image_tokens, self.tau = image_tokens, tau

    def train(self, mode: bool = True) -> "Camu":
        """Frozen parts stay in eval mode: no dropout, and BatchNorm keeps its statistics."""
        super().train(mode)
        eval_frozen(self)
        return self

    def forward(self, batch: CaptionBatch, noise: Float[Tensor, "B K"] | None = None) -> MemeScores:
        """Gumbel `noise` makes the choice of a caption random, as training wants; without it nothing is."""
        with torch.no_grad():
            if self.image_tokens == "patches":
                image, tokens = self.encoder.embed_images_and_patches(batch)
            else:
                image = self.encoder.embed_images(batch)  # (B D)
                tokens = image[:, None]
        captions, present = self._embed_candidates(batch)
        scores = self.scorer(captions, image).float()
        weights = select(scores, present, noise, self.tau)
        text = torch.einsum("bk,bkd->bd", weights, captions)
        text = text.where(present.any(-1, keepdim=True), self.no_caption)
        logits = self.head(self.fusion(tokens, text[:, None])).squeeze(-1)
        return MemeScores(logits.float(), scores, weights, image, text)

    def _embed_candidates(self, batch: CaptionBatch) -> tuple[Float[Tensor, "B K D"], Bool[Tensor, "B K"]]:
        """Embeddings of the candidates, and which there are: the others' embeddings are not read."""
        if batch.tokens is None or batch.mask is None:
            raise UsageError("CAMU reads candidate captions; this batch has none; choose data=memes or scene_memes")
        present = batch.mask.any(-1)
        rows = present.clone()
        rows[0, 0] |= ~present.any()  # transformers fail on no texts at all, and DDP waits for the tower's gradients
        embedded = self.encoder.embed_texts(batch.tokens[rows], batch.mask[rows])
        captions = embedded.new_zeros(*present.shape, self.encoder.embed_dim)
        captions[rows] = embedded
        return captions, present
