"""Sampling as a logits processor, so that transformers' greedy loop draws tokens and records their probabilities.

R rows (images x samples), V vocabulary, T tokens so far.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from capkit.decoding.config import Decoding
from capkit.decoding.truncation import pack
from capkit.errors import UsageError
from capkit.utils import rng


class EndAfterStop(LogitsProcessor):
    """After a new token of `stop_ids`, EOS is the only possible token, with log-probability 0."""

    def __init__(self, stop_ids: Sequence[int], eos_token_id: int, prompt_length: int, device: torch.device) -> None:
        self._stop_ids = torch.tensor(stop_ids, device=device)
        self._eos_token_id, self._prompt_length = eos_token_id, prompt_length

    def __call__(self, input_ids: Int[Tensor, "R T"], scores: Float[Tensor, "R V"]) -> Float[Tensor, "R V"]:
        if input_ids.shape[1] <= self._prompt_length:  # a prompt may contain the stop text
            return scores
        only_eos = torch.full_like(scores, -torch.inf)
        only_eos[:, self._eos_token_id] = 0.0
        return torch.where(torch.isin(input_ids[:, -1:], self._stop_ids), only_eos, scores)


@functools.lru_cache(maxsize=8)
def stop_token_ids(tokenizer: Any, stop: str) -> tuple[int, ...]:
    """Ids of all tokens whose text contains `stop`: 121 of GPT-2's contain ".". Raises UsageError if there are none."""
    special = set(tokenizer.all_special_ids)
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    found = tuple(token for token, text in enumerate(texts) if stop in text and token not in special)
    if not found:
        raise UsageError(
            f"decoding.stop={stop!r}: expected text that a token of the tokenizer contains, got none among "
            f"{len(texts)} tokens; set decoding.stop=null, or train on captions with it"
        )
    return found


def constraints(
    decoding: Decoding,
    prompt_length: int,
    eos_token_id: int,
    device: torch.device,
    stop_ids: Sequence[int] = (),
) -> LogitsProcessorList:
    """Constraints of every method: no end before `min_length`, no repeated n-grams, EOS after a token of `stop_ids`."""
    processors = LogitsProcessorList()

    def forbid_before(num_tokens: int, tokens: list[int]) -> None:
        if num_tokens > 0 and tokens:
            processors.append(MinNewTokensLengthLogitsProcessor(prompt_length, num_tokens, tokens, device=str(device)))

    forbid_before(decoding.min_length, [eos_token_id])
    forbid_before(decoding.min_length - 1, list(stop_ids))  # a stop is the caption's last token, EOS comes after it
    if decoding.no_repeat_ngram_size:
        processors.append(NoRepeatNGramLogitsProcessor(decoding.no_repeat_ngram_size))
    if stop_ids:
        processors.append(EndAfterStop(stop_ids, eos_token_id, prompt_length, device))
    return processors


def warpers(decoding: Decoding) -> LogitsProcessorList:
    """Temperature, then top-k, then top-p, each only if enabled."""
    processors = LogitsProcessorList()
    if decoding.temperature != 1.0:
        processors.append(TemperatureLogitsWarper(float(decoding.temperature)))
    if decoding.top_k:
        processors.append(TopKLogitsWarper(decoding.top_k))
    if decoding.top_p < 1.0:
        processors.append(TopPLogitsWarper(float(decoding.top_p)))
    return processors


def inverse_cdf(logprobs: Float[Tensor, "R V"], uniforms: Float[Tensor, " R"]) -> Int[Tensor, " R"]:
    """Draw a token per row by inverting its cumulative distribution over the vocabulary, in token order."""
    cumulated = logprobs.double().exp().cumsum(-1)
    total = cumulated[:, -1:]
    # The probabilities sum to 1 only up to rounding, so the uniform is scaled by their sum. It must stay strictly below
    # it: an index past the last token of positive probability would be returned otherwise.
    threshold = torch.minimum(uniforms.double()[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    # The first token with a cumulated probability above the threshold: tokens of probability 0 are never hit.
    return torch.searchsorted(cumulated, threshold, right=True).squeeze(-1)


class ChooseToken(LogitsProcessor):
    """Choose each row's next token, mask all others, and record the token's log-probability (nats, float32).

    With `ids`, the token is sampled by one uniform number per (id, position). The recorded log-probability is that of
    the distribution sampled from, after constraints, temperature and truncation; if these can exclude tokens,
    `supports` records the tokens that remain. Without `ids`, the token is the most probable one that the constraints
    allow, and the log-probability is that of the unmodified model.
    """

    def __init__(self, allowed: LogitsProcessorList, warp: LogitsProcessorList, ids: Int[Tensor, " R"] | None):
        # Typed as plain callables: transformers' own signature asks for narrower tensor types.
        self.allowed: Callable[[Any, Any], Any] = allowed
        self.warp: Callable[[Any, Any], Any] = warp
        self.ids = ids
        self.logprobs: list[Tensor] = []
        self.supports: list[Tensor] = []
        self._truncates = any(not isinstance(p, TemperatureLogitsWarper) for p in (*allowed, *warp))

    def __call__(self, input_ids: Int[Tensor, "R T"], scores: Float[Tensor, "R V"]) -> Float[Tensor, "R V"]:
        raw = scores.float()
        scores = self.allowed(input_ids, raw)
        if self.ids is None:
            chosen, logprobs = scores.argmax(-1), raw.log_softmax(-1)
        else:
            logprobs = self.warp(input_ids, scores).log_softmax(-1)
            chosen = inverse_cdf(logprobs, rng.uniform(self.ids, len(self.logprobs)))
            if self._truncates:
                self.supports.append(pack(logprobs > -torch.inf))
        self.logprobs.append(logprobs.gather(-1, chosen[:, None]).squeeze(-1))
        # Log-probability 0 at the chosen token: transformers' argmax can pick nothing else.
        return torch.full_like(scores, -torch.inf).scatter_(-1, chosen[:, None], 0.0)
