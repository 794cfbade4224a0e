"""Base class of captioners whose logits are `head(hidden_states)`."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from capkit.decoding.config import Decoding
from capkit.decoding.generate import generate
from capkit.errors import UsageError
from capkit.models.captioners.logprobs import chunked_logprobs, chunked_token_losses
from capkit.models.conditions.parts import Conditions
from capkit.types import CaptionBatch, Context, Samples


class HeadedCaptioner(nn.Module, ABC):
    """Implements logits, losses and generation of the `Captioner` protocol, given hidden states and a head."""

    tokenizer: Any
    prompt: str
    max_length: int
    vocab_size: int
    language_model: Any = None  # what guides its decoding, by `decoding.guide`; not a part of it
    conditions: Conditions | None
    takes_prompts: bool = False  # whether captions may answer prompts of their own (`CaptionBatch.prompts`)
    other_ends: tuple[int, ...] = ()  # special tokens that end a caption as EOS does
    length_multiple = 1  # of the positions that layers see with teacher forcing: compiled ones want few lengths

    def _add_conditions(self, settings: Mapping[str, Any] | None, width: int) -> None:
        """Give the captioner its condition parts, as the last of its new weights: all others stay as without any."""
        self.conditions = Conditions(settings, width) if settings else None

    def _conditioned(self, context: Context, values: Mapping[str, Tensor]) -> Context:
        """The context with the vectors of these conditions; of those that are not in `values`, the learned ones."""
        if self.conditions is None:
            return context
        return replace(context, conditions=self.conditions(values, len(context.states)))

    def _prompted(self, context: Context, batch: CaptionBatch) -> Context:
        """The context with the prompts that the batch's captions answer, if they do.

        Raises UsageError for a captioner that cannot read them.
        """
        if batch.prompts is None or batch.prompts_mask is None:
            return context
        if not self.takes_prompts:
            raise UsageError(
                f"expected captions without prompts, which {type(self).__name__} does not read, got some; take "
                "model=text_writer, or model=clip_prefix with bos_after_prefix=true and a language model such as GPT-2"
            )
        prompts, mask = (value.to(context.states.device) for value in (batch.prompts, batch.prompts_mask))
        return replace(context, prompts=prompts, prompts_mask=mask)

    @property
    @abstractmethod
    def _head(self) -> nn.Module:
        """The module that maps hidden states to logits."""

    @property
    @abstractmethod
    def _decoder(self) -> nn.Module:
        """The network in front of the head that `step` runs."""

    @abstractmethod
    def _hidden(self, context: Context, tokens: Int[Tensor, "B K L"]) -> Float[Tensor, "B K L D"]:
        """Hidden states, from which the head predicts the token after each position."""

    @abstractmethod
    def start(self, context: Context, capacity: int) -> Any: ...

    @abstractmethod
    def step(self, context: Context, tokens: Int[Tensor, "R T"], cache: Any) -> Float[Tensor, "R V"]: ...

    def forward(
        self, context: Context, tokens: Int[Tensor, "B K L"], mask: Bool[Tensor, "B K L"]
    ) -> Float[Tensor, "B K L V"]:
        return self._head(self._hidden(context, tokens))

    def _before_each(self, context: Context, tokens: Int[Tensor, "B K L"]) -> Float[Tensor, "B K L-1 D"]:
        """Hidden states from which the tokens after the first are predicted.

        They do not depend on the padding behind them, which makes up a length that the layers have seen.
        """
        length = tokens.shape[-1] - 1
        padded = min(length + -length % self.length_multiple, max(length, self.max_length))
        return self._hidden(context, nn.functional.pad(tokens[..., :-1], (0, padded - length)))[..., :length, :]

    def logprobs(
        self,
        context: Context,
        tokens: Int[Tensor, "B K L"],
        mask: Bool[Tensor, "B K L"],
        temperature: float = 1.0,
        support: UInt8[Tensor, "B K M W"] | None = None,
    ) -> Float[Tensor, "B K L-1"]:
        hidden = self._before_each(context, tokens)
        return chunked_logprobs(
            hidden, self._head, tokens[..., 1:], mask[..., 1:], self.vocab_size, temperature, support=support
        )

    def token_losses(
        self, context: Context, tokens: Int[Tensor, "B K L"], mask: Bool[Tensor, "B K L"], label_smoothing: float
    ) -> Float[Tensor, "B K L-1"]:
        hidden = self._before_each(context, tokens)
        return chunked_token_losses(
            hidden, self._head, tokens[..., 1:], mask[..., 1:], self.vocab_size, label_smoothing
        )

    def decoder_parts(self) -> tuple[list[nn.Module], nn.Module]:
        return [self._decoder], self._head

    def is_graphable(self) -> bool:
        return False

    def generate(
        self, context: Context, decoding: Decoding, num_samples: int = 1, with_greedy: bool = False
    ) -> Samples:
        return generate(self, context, decoding, num_samples, with_greedy)
