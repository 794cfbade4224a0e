"""The Captioner protocol, and what every captioner computes from its decoder's hidden states.

B images, K captions per image, L tokens, N context tokens, D width, V vocabulary, R = B x K rows.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from capkit.decoding.decoding import Decoding
from capkit.decoding.support import restrict
from capkit.errors import UsageError
from capkit.text import load_tokenizer
from capkit.types import CaptionBatch, Context, Samples

CHUNK_ELEMENTS = 2**26  # logits held at once: 256 MiB in float32


@runtime_checkable
class Captioner(Protocol):
    """A network that writes text about an image. It owns its tokenizer.

    Tokens are BOS, the prompt's tokens, w1 .. wn, EOS. Images are encoded once; K captions share the encoding. `start`
    and `step` are what generation uses (see `capkit.decoding.generate`); `max_length` bounds prompt and caption.
    """

    tokenizer: Any
    prompt: str
    max_length: int

    def encode(self, batch: CaptionBatch) -> Context: ...

    def null_context(self, num_images: int, device: torch.device | str) -> Context:
        """The missing image: what guidance and contrastive rating condition on instead of a picture."""
        ...

    def __call__(
        self, context: Context, tokens: Int[Tensor, "B K L"], mask: Bool[Tensor, "B K L"]
    ) -> Float[Tensor, "B K L V"]:
        """Logits; those at position t predict `tokens[:, :, t + 1]`."""
        ...

    def logprobs(
        self,
        context: Context,
        tokens: Int[Tensor, "B K L"],
        mask: Bool[Tensor, "B K L"],
        temperature: float = 1.0,
        support: UInt8[Tensor, "B K M W"] | None = None,
    ) -> Float[Tensor, "B K L-1"]:
        """Log-probabilities of `tokens[..., 1:]` in nats, 0 at padding; never holds the whole (B K L V).

        With `support` (of M = L - 1 tokens, see `Samples`) they are those of the distribution restricted to it.
        """
        ...

    def token_losses(
        self, context: Context, tokens: Int[Tensor, "B K L"], mask: Bool[Tensor, "B K L"], label_smoothing: float
    ) -> Float[Tensor, "B K L-1"]:
        """Cross-entropy of `tokens[..., 1:]` in nats, 0 at padding; never holds the whole (B K L V)."""
        ...

    def generate(self, context: Context, decoding: Decoding, num_samples: int = 1) -> Samples: ...
    def start(self, context: Context) -> Any: ...
    def step(self, context: Context, tokens: Int[Tensor, "R T"], cache: Any) -> Float[Tensor, "R V"]: ...


def null_context(num_images: int, num_tokens: int, width: int, like: Tensor) -> Context:
    """Zeros in place of an image's states. Each model's own biases turn them into something learned."""
    states = like.new_zeros((num_images, num_tokens, width))
    mask = torch.ones((num_images, num_tokens), dtype=torch.bool, device=like.device)
    return Context(states=states, mask=mask, keys=[f"null-{i}" for i in range(num_images)])


def resolve_tokenizer(tokenizer: Any, default_name: str | None = None) -> Any:
    """The tokenizer object for a config's value: an object, a name or folder, or None for the model's own."""
    if tokenizer is None:
        tokenizer = default_name
    if tokenizer is None or tokenizer == "word":
        raise UsageError(
            f"a captioner needs a tokenizer object or the name of one; got {tokenizer!r}; "
            "build one with capkit.text.word_tokenizer(captions), which the tasks do for tokenizer=word"
        )
    return load_tokenizer(tokenizer) if isinstance(tokenizer, str) else tokenizer


def _over_positions(
    inputs: Sequence[Tensor],
    mask: Bool[Tensor, "*batch L"],
    values: Callable[..., Tensor],
    vocab_size: int,
    chunk_elements: int,
) -> Float[Tensor, "*batch L"]:
    """`values(*inputs)` at the masked positions, in chunks whose logits are made again for the gradient."""
    rows = [tensor[mask] for tensor in inputs]
    size = max(1, chunk_elements // vocab_size)
    if len(rows[0]) <= size:  # also when there is no position at all: the head must stay in the graph for DDP
        flat = values(*rows)
    else:
        chunks = zip(*(tensor.split(size) for tensor in rows), strict=True)
        flat = torch.cat([checkpoint(values, *chunk, use_reentrant=False) for chunk in chunks])
    return torch.zeros(mask.shape, dtype=flat.dtype, device=flat.device).masked_scatter(mask, flat)


def chunked_logprobs(
    hidden: Float[Tensor, "*batch L D"],
    head: nn.Module,
    targets: Int[Tensor, "*batch L"],
    mask: Bool[Tensor, "*batch L"],
    vocab_size: int,
    temperature: float = 1.0,
    chunk_elements: int = CHUNK_ELEMENTS,
    support: UInt8[Tensor, "*batch L W"] | None = None,
) -> Float[Tensor, "*batch L"]:
    """Log-probability of each target in nats (float32), 0 where the mask is False.

    Equals `log_softmax(head(hidden) / temperature).gather(targets)`, forward and gradient, with the head run on real
    positions only and at most about `chunk_elements` logits held at once. `support` restricts the softmax to the
    tokens that it holds.
    """

    def values(h: Tensor, t: Tensor, *allowed: Tensor) -> Tensor:
        logits = head(h).float() / temperature
        for packed in allowed:
            logits = restrict(logits, packed)
        return -nn.functional.cross_entropy(logits, t, reduction="none")

    inputs = (hidden, targets) if support is None else (hidden, targets, support)
    return _over_positions(inputs, mask, values, vocab_size, chunk_elements)


def chunked_token_losses(
    hidden: Float[Tensor, "*batch L D"],
    head: nn.Module,
    targets: Int[Tensor, "*batch L"],
    mask: Bool[Tensor, "*batch L"],
    vocab_size: int,
    label_smoothing: float = 0.0,
    chunk_elements: int = CHUNK_ELEMENTS,
) -> Float[Tensor, "*batch L"]:
    """Cross-entropy of each target in nats (float32), 0 where the mask is False; as `chunked_logprobs` otherwise.

    With smoothing e the target distribution is (1 - e) on the target plus e / V on every token (Szegedy et al. 2016).
    """

    def values(h: Tensor, t: Tensor) -> Tensor:
        return nn.functional.cross_entropy(head(h).float(), t, reduction="none", label_smoothing=label_smoothing)

    return _over_positions((hidden, targets), mask, values, vocab_size, chunk_elements)
