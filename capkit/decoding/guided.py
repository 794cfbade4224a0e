"""Guidance: each token scored with the image, without it and, if wanted, by a language model.

B images, K captions per image, R = B x K rows, T new tokens, L tokens in all, M = L - 1 predicted ones, V vocabulary.
"""

import math
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from transformers import Cache

from capkit.decoding.guide import Guide, LanguageModelGuide
from capkit.decoding.language_model import LanguageModel
from capkit.errors import UsageError
from capkit.types import Context

# The least log-probability without the image, that of the smallest normal float32. A token that is impossible without
# the image would have an infinite score otherwise.
LEAST = math.log(torch.finfo(torch.float32).tiny)


def guided_logprobs(
    with_image: Float[Tensor, "*rows V"],
    without_image: Float[Tensor, "*rows V"],
    weights: tuple[float, float],
    language: Float[Tensor, "*rows V"] | None = None,
) -> Float[Tensor, "*rows V"]:
    """Log-probabilities log_softmax(a l_c - b l_u + log q) of two logits (or log-probabilities) and weights (a, b).

    a = g and b = g - 1 give l_u + g (l_c - l_u), classifier-free guidance (arXiv 2307.16686, section 3.2). `language`
    are log-probabilities q of a language model (section 3.3).
    """
    image, no_image = weights
    scores = image * with_image.float().log_softmax(-1)
    scores = scores - no_image * without_image.float().log_softmax(-1).clamp(min=LEAST)
    return (scores if language is None else scores + language).log_softmax(-1)


class GuidedCache(Cache):
    """The cache of 2 R rows, R with the image and then R without it, and the language model's of R rows."""

    def __init__(self, rows: Cache, language: Any = None) -> None:
        super().__init__(layers=[])
        self.rows, self.language = rows, language

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.rows.get_seq_length()

    def batch_repeat_interleave(self, repeats: int) -> None:
        self.rows.batch_repeat_interleave(repeats)
        if self.language is not None:
            self.language.batch_repeat_interleave(repeats)

    def reorder_cache(self, beam_idx: Int[Tensor, " R"]) -> None:
        twice: Any = torch.cat([beam_idx, beam_idx + len(beam_idx)])
        self.rows.reorder_cache(twice)
        if self.language is not None:
            self.language.reorder_cache(beam_idx)


class GuidedCaptioner:
    """A captioner whose next token's logits are guided, for every method of decoding.

    The image is encoded once. Both of its readings are rows of one forward pass.
    """

    def __init__(
        self, captioner: Any, guide: Guide | LanguageModelGuide, language_model: LanguageModel | None = None
    ) -> None:
        if isinstance(guide, LanguageModelGuide) and language_model is None:
            raise UsageError(
                f"decoding.guide.language_model={guide.language_model}: expected task=evaluate or task=caption, which "
                "load it, got another; set decoding=greedy"
            )
        self.captioner, self.guide, self.language_model = captioner, guide, language_model
        self.tokenizer, self.prompt = captioner.tokenizer, captioner.prompt
        self.max_length, self.vocab_size = captioner.max_length, captioner.vocab_size
        self.other_ends: tuple[int, ...] = getattr(captioner, "other_ends", ())

    @staticmethod
    def _twice(context: Context) -> Context:
        """The images, and then the same number of missing ones."""
        states = torch.cat([context.states, context.without_image().states])
        mask = None if context.mask is None else context.mask.repeat(2, 1)
        conditions = None if context.conditions is None else context.conditions.repeat(2, 1, 1, 1)
        prompts, real = context.prompts, context.prompts_mask
        return replace(
            context,
            states=states,
            mask=mask,
            keys=context.keys * 2,
            conditions=conditions,
            prompts=None if prompts is None else prompts.repeat(2, 1, 1),
            prompts_mask=None if real is None else real.repeat(2, 1, 1),
        )

    def start(self, context: Context, capacity: int) -> GuidedCache:
        rows = self.captioner.start(self._twice(context), capacity)
        if self.language_model is None:
            return GuidedCache(rows)
        return GuidedCache(rows, self.language_model.start(context, capacity))

    def step(self, context: Context, tokens: Int[Tensor, "R T"], cache: GuidedCache) -> Float[Tensor, "R V"]:
        logits = self.captioner.step(self._twice(context), torch.cat([tokens, tokens]), cache.rows)
        with_image, without_image = logits[..., : self.vocab_size].chunk(2)
        language = None
        if self.language_model is not None:
            language = self.language_model.step(context, tokens, cache.language)[..., : self.vocab_size]
        return guided_logprobs(with_image, without_image, self.guide.weights, language)

    def decoder_parts(self) -> tuple[list[nn.Module], nn.Module]:
        parts, head = self.captioner.decoder_parts()
        return [*parts, *([] if self.language_model is None else self.language_model.parts())], head

    def is_graphable(self) -> bool:
        return self.language_model is None and self.captioner.is_graphable()

    def logprobs(
        self,
        context: Context,
        tokens: Int[Tensor, "B K L"],
        mask: Bool[Tensor, "B K L"],
        temperature: float = 1.0,
        support: UInt8[Tensor, "B K M W"] | None = None,
    ) -> Float[Tensor, "B K M"]:
        """Log-probabilities of `tokens[..., 1:]` in nats, 0 at padding, read step by step."""
        assert temperature == 1.0 and support is None  # only beam search asks, which has neither
        rows, targets = tokens.flatten(0, 1), tokens[..., 1:]
        cache, logprobs = self.start(context, rows.shape[1]), []
        for place in range(rows.shape[1] - 1):
            scores = self.step(context, rows[:, place : place + 1], cache)
            logprobs.append(scores.gather(-1, rows[:, place + 1, None]).squeeze(-1))
        return torch.stack(logprobs, -1).view_as(targets).masked_fill(~mask[..., 1:], 0.0)
