"""The Captioner protocol, and helpers that its implementations share.

B images, K captions per image, L tokens, N context tokens, D width, V vocabulary, R = B x K rows.
"""

from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from capkit.decoding.config import Decoding
from capkit.errors import UsageError
from capkit.text.tokenizers import load_tokenizer
from capkit.types import CaptionBatch, Context, Samples


@runtime_checkable
class Captioner(Protocol):
    """A network that generates text about an image, with its tokenizer.

    Tokens are BOS, the prompt's tokens, w1 .. wn, EOS. Each image is encoded once; its K captions share the encoding.
    Generation uses `start` and `step` (see `capkit.decoding.generate`). `max_length` bounds prompt plus caption.
    """

    tokenizer: Any
    prompt: str
    max_length: int

    def encode(self, batch: CaptionBatch) -> Context: ...

    def null_context(self, num_images: int, device: torch.device | str) -> Context:
        """The context of a missing image, for classifier-free guidance and contrastive scoring."""
        ...

    def __call__(
        self, context: Context, tokens: Int[Tensor, "B K L"], mask: Bool[Tensor, "B K L"]
    ) -> Float[Tensor, "B K L V"]:
        """Logits with teacher forcing; those at position t predict `tokens[:, :, t + 1]`."""
        ...

    def logprobs(
        self,
        context: Context,
        tokens: Int[Tensor, "B K L"],
        mask: Bool[Tensor, "B K L"],
        temperature: float = 1.0,
        support: UInt8[Tensor, "B K M W"] | None = None,
    ) -> Float[Tensor, "B K L-1"]:
        """Log-probabilities of `tokens[..., 1:]` in nats, 0 at padding; never materialises all (B K L V) logits.

        With `support` (of M = L - 1 tokens, see `Samples`), of the distribution restricted to it.
        """
        ...

    def token_losses(
        self, context: Context, tokens: Int[Tensor, "B K L"], mask: Bool[Tensor, "B K L"], label_smoothing: float
    ) -> Float[Tensor, "B K L-1"]:
        """Cross-entropy of `tokens[..., 1:]` in nats, 0 at padding; never materialises all (B K L V) logits."""
        ...

    def generate(
        self, context: Context, decoding: Decoding, num_samples: int = 1, with_greedy: bool = False
    ) -> Samples: ...
    def decoder_parts(self) -> tuple[list[nn.Module], nn.Module]: ...
    def is_graphable(self) -> bool: ...
    def start(self, context: Context, capacity: int) -> Any: ...
    def step(self, context: Context, tokens: Int[Tensor, "R T"], cache: Any) -> Float[Tensor, "R V"]: ...


def null_context(num_images: int, num_tokens: int, width: int, like: Tensor) -> Context:
    """Zeros in place of an image's states; the model's biases turn them into a learned representation."""
    states = like.new_zeros((num_images, num_tokens, width))
    return Context(states=states, mask=None, keys=[f"null-{i}" for i in range(num_images)])


def resolve_tokenizer(tokenizer: Any, default_name: str | None = None) -> Any:
    """Resolve a config's tokenizer: an object, a hub name, a folder, or None for the model's own."""
    if tokenizer is None:
        tokenizer = default_name
    if tokenizer in (None, "word") or isinstance(tokenizer, bool | int | float | list | dict):
        raise UsageError(
            f"model.tokenizer: expected word, a folder, a hub name or an object, got {tokenizer!r}; give "
            "model.tokenizer=word on the command line, capkit.text.tokenizers.word_tokenizer(captions) in Python"
        )
    return load_tokenizer(tokenizer) if isinstance(tokenizer, str) else tokenizer
