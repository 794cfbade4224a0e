"""Base class of trainable dual encoders: embeddings of training batches, and the DualEncoder protocol.

B images, K captions an image; N images and M captions of a batch; L tokens, P patches; W width of a tower, D of the
space.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from capkit.errors import UsageError
from capkit.models.batching import embed_distinct, fixed_shape
from capkit.models.dual_encoders.fingerprint import config_digest, digest_of, tokenizer_digest
from capkit.models.dual_encoders.grammar_head import GrammarHead, grammar_probability
from capkit.models.dual_encoders.logit_scale import LogitScale
from capkit.models.dual_encoders.patch_grouping import PatchGrouping
from capkit.models.dual_encoders.text_towers.base import Tokenize
from capkit.models.tuning.frozen import eval_frozen
from capkit.models.tuning.policy import Tuning
from capkit.models.weights import weights_fingerprint
from capkit.types import CaptionBatch, PairEmbeddings
from capkit.utils.rng import stable_hash
from capkit.utils.tensors import send, unit

TokenizeImages = Callable[[list[list[str]]], tuple[Tensor, Tensor, int]]


class EncodeTexts:
    """Tokenize captions of B images, K each, to (tokens (B K L), mask (B K L), 0). Picklable, for data workers.

    This is the only place that prepends the prompt, separated by one space.
    """

    def __init__(self, tokenize: Tokenize, prompt: str) -> None:
        self.tokenize, self.prompt = tokenize, prompt.strip()

    def prompted(self, texts: Sequence[str]) -> list[str]:
        return [f"{self.prompt} {text}" for text in texts] if self.prompt else list(texts)

    def __call__(self, captions: list[list[str]]) -> tuple[Int[Tensor, "B K L"], Bool[Tensor, "B K L"], int]:
        flat = [text for texts in captions for text in texts]
        num_captions = max(map(len, captions), default=0)
        if not flat:
            empty = torch.zeros(len(captions), num_captions, 1, dtype=torch.int64)
            return empty, empty.bool(), 0
        ids, real = self.tokenize(self.prompted(flat))
        rows = torch.tensor([[i < len(texts) for i in range(num_captions)] for texts in captions])
        tokens = ids.new_zeros(*rows.shape, ids.shape[1])
        mask = torch.zeros_like(tokens, dtype=torch.bool)
        tokens[rows], mask[rows] = ids, real
        return tokens, mask, 0


class PairRows(NamedTuple):
    """A batch's captions as rows, with the ids of images, owners and texts."""

    tokens: Int[Tensor, "M L"]
    mask: Bool[Tensor, "M L"]
    image_ids: Int[Tensor, " N"]
    owners: Int[Tensor, " M"]
    text_ids: Int[Tensor, " M"]
    image_of: Int[Tensor, " M"]
    slots: Int[Tensor, " M"]  # which of its image's texts each one is, from 0

    @classmethod
    def of(cls, batch: CaptionBatch) -> "PairRows":
        """Build the rows; synchronises with the GPU. Raises UsageError for a batch without captions."""
        tokens, mask, image_of, slots = caption_rows(batch)
        image_ids = torch.tensor([stable_hash(key) for key in batch.keys], device=tokens.device)
        return cls(tokens, mask, image_ids, image_ids[image_of], text_ids(tokens, mask), image_of, slots)


class TrainableDualEncoder(nn.Module, ABC):
    """A dual encoder: `forward` embeds a training batch; `encode_image` and `encode_text` serve evaluation.

    Subclasses define how pixels and tokens become features; scale, prompt, grammar head and ids are common to all.
    `batch_size` is the number of texts per forward pass of `encode_text`.
    """

    tokenizer_key: str | None = "tokenizer"  # where the config names the tokenizer that checkpoints store
    origin: Any = None  # of one that was loaded from a checkpoint: a `capkit.checkpoint.loading.Origin`

    def __init__(
        self,
        tokenize: Tokenize,
        embed_dim: int,
        scale: LogitScale,
        prompt: str = "",
        name: str | None = None,
        batch_size: int = 256,
    ) -> None:
        super().__init__()
        self.tokenize, self.embed_dim, self.scale = tokenize, embed_dim, scale
        self.prompt, self.name, self.batch_size = prompt, name or type(self).__name__, batch_size
        self.encode = EncodeTexts(tokenize, prompt)
        self.grammar_head: GrammarHead | None = None
        self.grouping: PatchGrouping | None = None
        self.tells_slots = False

    @property
    @abstractmethod
    def text_width(self) -> int:
        """Width W of the features that `pool_texts` returns."""

    @abstractmethod
    def side(self, side: str) -> list[nn.Module]:
        """The modules of a side, "image" or "text": its tower first, then its projection and pooling."""

    @abstractmethod
    def about_features(self) -> dict[str, Any]:
        """The provenance that cached features must have for this model (`FeatureStore.check`).

        Raises UsageError if this model cannot be trained on cached features.
        """

    @abstractmethod
    def about_preprocessing(self) -> Any:
        """Settings of the image preprocessing, as plain data."""

    @abstractmethod
    def pool_images(self, batch: CaptionBatch) -> Float[Tensor, "B W"]:
        """The image tower's pooled features, before the projection."""

    @abstractmethod
    def embed_images(self, batch: CaptionBatch) -> Float[Tensor, "B D"]:
        """Unit-norm image embeddings, with gradient."""

    @abstractmethod
    def embed_patches(self, batch: CaptionBatch) -> Float[Tensor, "B P D"]:
        """Unit-norm patch embeddings in the joint space."""

    @abstractmethod
    def embed_images_and_patches(self, batch: CaptionBatch) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B P D"]]:
        """`embed_images` and `embed_patches`, both with gradient, of one pass of the image tower."""

    @abstractmethod
    def pool_texts(self, tokens: Int[Tensor, "M L"], mask: Bool[Tensor, "M L"]) -> Float[Tensor, "M W"]:
        """The text tower's pooled features, before the projection."""

    @abstractmethod
    def project_texts(self, pooled: Float[Tensor, "M W"]) -> Float[Tensor, "M D"]:
        """Unit-norm text embeddings from pooled features."""

    @abstractmethod
    def preprocess(self, images: Sequence[Any]) -> Float[Tensor, "B 3 H W"]:
        """Resize and normalise pictures (uint8 H W 3 arrays or PIL) for `encode_image`."""

    def tune(self, image: Tuning | None = None, text: Tuning | None = None) -> None:
        """Freeze weights and add adapters as configured; None leaves a side unchanged."""
        for tuning, (tower, *after) in ((image, self.side("image")), (text, self.side("text"))):
            if tuning is not None:
                tuning.apply(tower, after)

    def add_grammar_head(self) -> None:
        """Add a head on the text tower's pooled features, unless there is one."""
        self.grammar_head = self.grammar_head or GrammarHead(self.text_width)

    def group_patches(self, sigma: float | int | str) -> None:
        """Let `forward` give the extra `grouped` (M D): the picture as each text sees it (`PatchGrouping`)."""
        self.grouping = PatchGrouping(sigma)

    def tell_slots(self) -> None:
        """Let `forward` give the extra `slots` (M): which of its image's texts each one is, from 0."""
        self.tells_slots = True

    def train(self, mode: bool = True) -> "TrainableDualEncoder":
        super().train(mode)
        for part in self.children():
            eval_frozen(part)
        return self

    def embed_texts(self, tokens: Int[Tensor, "M L"], mask: Bool[Tensor, "M L"]) -> Float[Tensor, "M D"]:
        return self.project_texts(self.pool_texts(tokens, mask))

    def forward(self, batch: CaptionBatch, rows: PairRows | None = None) -> PairEmbeddings:
        """Embed the batch's images and all of their captions. Raises UsageError for a batch without captions.

        If `rows` is computed beforehand, this call does not synchronise with the GPU.
        """
        rows = rows or PairRows.of(batch)
        # Images first: their longer GPU work hides the launch of the text tower's kernels.
        images, patches = (
            (self.embed_images(batch), None) if self.grouping is None else self.embed_images_and_patches(batch)
        )
        pooled, of_tower = self.pool_with_extras(rows.tokens, rows.mask)
        texts = self.project_texts(pooled)
        if self.grouping is not None and patches is not None and batch.tokens is not None:
            of_tower["grouped"] = self.grouping(texts, patches, rows.image_of, rows.slots, batch.tokens.shape[1])
        if self.tells_slots:
            of_tower["slots"] = rows.slots
        scale, bias = self.scale()
        return PairEmbeddings(
            images=images,
            texts=texts,
            logit_scale=scale,
            image_ids=rows.image_ids,
            owners=rows.owners,
            text_ids=rows.text_ids,
            logit_bias=bias,
            extras=of_tower | self.extras(batch, pooled),
        )

    def pool_with_extras(
        self, tokens: Int[Tensor, "M L"], mask: Bool[Tensor, "M L"]
    ) -> tuple[Float[Tensor, "M W"], dict[str, Tensor]]:
        """`pool_texts` in training, and further outputs of the text tower for objectives, with a row for each text."""
        return self.pool_texts(tokens, mask), {}

    def extras(self, batch: CaptionBatch, pooled: Float[Tensor, "M W"]) -> dict[str, Tensor]:
        """Additional outputs for objectives: embeddings and text ids of edited captions, and the grammar head's logits
        of captions and of edited ones."""
        head = self.grammar_head
        found = {} if head is None else {"grammar_logits": head(pooled)}
        if batch.negative_tokens is not None and batch.negative_mask is not None:
            real = batch.negative_mask.flatten(0, 1).any(-1)
            tokens, mask = batch.negative_tokens.flatten(0, 1)[real], batch.negative_mask.flatten(0, 1)[real]
            edited = self.pool_texts(tokens, mask)
            found |= {"negative_texts": self.project_texts(edited), "negative_text_ids": text_ids(tokens, mask)}
            if head is not None:
                found["grammar_negative_logits"] = head(edited)
        return found

    @property
    def max_length(self) -> int:
        return self.tokenize.max_length

    @property
    def device(self) -> torch.device:
        return self.scale.log_scale.device

    @property
    def logit_scale(self) -> Float[Tensor, ""]:
        return self.scale()[0].detach()

    @torch.no_grad()
    def encode_image(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        return self.embed_images(_pictures(pixels.to(self.device)))

    @torch.no_grad()
    def encode_features(self, features: Float[Tensor, "B P F"]) -> Float[Tensor, "B D"]:
        """Like `encode_image`, from cached features instead of pixels."""
        return self.embed_images(CaptionBatch(keys=[""] * len(features), features=features.to(self.device)))

    @torch.no_grad()
    def encode_pooled(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B F"]:
        """The image tower's pooled features of preprocessed pixels, before projection and normalisation."""
        return self.pool_images(_pictures(pixels.to(self.device)))

    @torch.no_grad()
    def encode_patches(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B P D"]:
        return self.embed_patches(_pictures(pixels.to(self.device)))

    @torch.no_grad()
    def encode_text(self, texts: list[str]) -> Float[Tensor, "B D"]:
        return embed_distinct(texts, self._encode, self.batch_size)

    @torch.no_grad()
    def grammatical(self, texts: list[str]) -> Float[Tensor, " B"]:
        """Probability that each text is grammatical. Raises UsageError for a model without a grammar head."""
        if self.grammar_head is None:
            raise UsageError(f"{self.name} has no grammar head; train one with experiment=grammar_clip")
        head = self.grammar_head
        logits = embed_distinct(texts, lambda part: head(self._pooled(part)), self.batch_size)
        return grammar_probability(logits)

    def fingerprint_fields(self, side: str) -> dict[str, Any]:
        """Everything that a side's embeddings depend on (see `capkit.models.dual_encoders.base.CacheableEncoder`)."""
        modules = self.side(side)
        configs = [config_digest(m.config) for m in modules[0].modules() if hasattr(m, "config")]
        facts: dict[str, Any] = {
            "side": side,
            "weights": weights_fingerprint(nn.ModuleList(modules)),
            "architecture": digest_of([str(nn.ModuleList(modules)), configs]),
        }
        if side == "image":
            return {**facts, "preprocessing": self.about_preprocessing()}
        tokenizer: Any = self.tokenizer
        vocabulary = None if tokenizer is None else tokenizer_digest(tokenizer)
        reads = {"tokenizer": [type(self.tokenize).__name__, vocabulary], "max_length": self.max_length}
        return {**facts, **reads, "prompt": self.encode.prompt}

    def is_cut(self, texts: list[str]) -> list[bool]:
        return self.tokenize.is_cut(self.encode.prompted(texts))

    def _pooled(self, texts: list[str]) -> Float[Tensor, "n W"]:
        tokens, mask = self.tokenize(self.encode.prompted(texts))
        if self.device.type == "cuda":
            tokens, mask = fixed_shape(tokens, mask, self.max_length)
        return self.pool_texts(send(tokens, self.device), send(mask, self.device))[: len(texts)]

    def _encode(self, texts: list[str]) -> Float[Tensor, "n D"]:
        return unit(self.project_texts(self._pooled(texts)))


def caption_rows(
    batch: CaptionBatch,
) -> tuple[Int[Tensor, "M L"], Bool[Tensor, "M L"], Int[Tensor, " M"], Int[Tensor, " M"]]:
    """Tokens and mask of the batch's captions, and the image and the slot of each; empty slots are dropped."""
    if batch.tokens is None or batch.mask is None:
        raise UsageError("a dual encoder expected captions in every batch, got images only; use data with captions")
    real = batch.mask.any(-1)  # (B K)
    image_of, slots = real.nonzero().unbind(1)
    return batch.tokens[real], batch.mask[real], image_of, slots


def text_ids(tokens: Int[Tensor, "M L"], mask: Bool[Tensor, "M L"]) -> Int[Tensor, " M"]:
    """Hash captions to ids that agree across ranks and paddings: a sum of tokens times odd 64-bit weights."""
    weights = np.array([stable_hash("token position", i) * 2 + 1 for i in range(tokens.shape[1])], dtype=np.uint64)
    factors = torch.from_numpy(weights.view(np.int64)).to(tokens.device)
    return ((tokens + 1) * mask * factors).sum(-1)  # wraps around in int64, as intended


def _pictures(pixels: Float[Tensor, "B 3 H W"]) -> CaptionBatch:
    return CaptionBatch(keys=[""] * len(pixels), pixels=pixels)
