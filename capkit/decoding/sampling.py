"""How each row's next token is chosen: constraints, temperature, truncation, and draws by one uniform number.

R rows (images x samples), V vocabulary, T tokens so far.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
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

BLOCK = 256  # tokens whose probabilities are summed at the first level of `inverse_cdf`


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
    other_ends: Sequence[int] = (),
) -> LogitsProcessorList:
    """For beam search: no end before `min_length`, no repeated n-grams, EOS after a token of `stop_ids`.

    `other_ends` end a caption as EOS does.
    """
    processors = LogitsProcessorList()

    def forbid_before(num_tokens: int, tokens: list[int]) -> None:
        if num_tokens > 0 and tokens:
            processors.append(MinNewTokensLengthLogitsProcessor(prompt_length, num_tokens, tokens, device=str(device)))

    forbid_before(decoding.min_length, [eos_token_id, *other_ends])
    forbid_before(decoding.min_length - 1, list(stop_ids))  # a stop is the caption's last token, EOS comes after it
    if decoding.no_repeat_ngram_size:
        processors.append(NoRepeatNGramLogitsProcessor(decoding.no_repeat_ngram_size))
    if stop_ids:
        processors.append(EndAfterStop(stop_ids, eos_token_id, prompt_length, device))
    return processors


def constrained(
    scores: Float[Tensor, "R V"],
    tokens: Int[Tensor, "R T"],
    step: int,
    decoding: Decoding,
    eos_token_id: int,
    stops: Int[Tensor, " N"] | None = None,
    other_ends: Sequence[int] = (),
) -> Float[Tensor, "R V"]:
    """The same constraints at a step, counted from 0, without waiting for the device. `stops` are the `stop_ids`."""
    if step < decoding.min_length:
        scores = scores.clone()
        for end in (eos_token_id, *other_ends):
            scores[:, end] = -torch.inf
    if stops is not None and step < decoding.min_length - 1:
        scores = scores.index_fill(-1, stops, -torch.inf)
    size = decoding.no_repeat_ngram_size
    if size and tokens.shape[1] >= size:
        ngrams = tokens.unfold(1, size, 1)  # (R, T - size + 1, size)
        last = tokens[:, tokens.shape[1] - size + 1 :]
        repeats = (ngrams[..., :-1] == last[:, None]).all(-1)
        # An n-gram that the last tokens do not begin again adds 0 to the score of its final token.
        penalty = torch.zeros_like(repeats, dtype=scores.dtype).masked_fill(repeats, -torch.inf)
        scores = scores + torch.zeros_like(scores).scatter_reduce(-1, ngrams[..., -1], penalty, "amin")
    if stops is not None and step:  # a prompt may contain the stop text
        only_eos = torch.full_like(scores, -torch.inf)
        only_eos[:, eos_token_id] = 0.0
        scores = torch.where(torch.isin(tokens[:, -1:], stops), only_eos, scores)
    return scores


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


def inverse_cdf(probabilities: Float[Tensor, "R V"], uniforms: Float[Tensor, " R"]) -> Int[Tensor, " R"]:
    """Draw a token per row by inverting its cumulative distribution over the vocabulary, in token order.

    In two levels: first a block of `BLOCK` tokens, then a token in it. Sums are in float64. Only the chosen block is
    cumulated token by token, which on a GPU takes a twentieth of the time of the whole vocabulary.
    """
    short = -probabilities.shape[-1] % BLOCK
    blocks = torch.nn.functional.pad(probabilities, (0, short)).unflatten(-1, (-1, BLOCK))
    cumulated = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    total = cumulated[:, -1:]
    # The probabilities sum to 1 only up to rounding, so the uniform is scaled by their sum. It must stay strictly below
    # it: an index past the last token of positive probability would be returned otherwise.
    threshold = torch.minimum(uniforms.double()[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    # The first block with a cumulated probability above the threshold: blocks of probability 0 are never hit.
    # A row of NaN has none: any token will do, where an index past the end would end a GPU's process.
    block = torch.searchsorted(cumulated, threshold, right=True).clamp(max=blocks.shape[1] - 1)
    before = torch.nn.functional.pad(cumulated, (1, 0)).gather(1, block)
    inside = blocks.gather(1, block[..., None].expand(-1, -1, BLOCK)).squeeze(1).double().cumsum(-1)
    place = torch.searchsorted(inside, threshold - before, right=True)
    # Both levels round differently: the block's last token of positive probability is the first that reaches its sum.
    last = (inside < inside[:, -1:]).sum(-1, keepdim=True)
    return (block * BLOCK + torch.minimum(place, last)).squeeze(-1)


def is_unrestricted(decoding: Decoding, stops: Int[Tensor, " N"] | None) -> bool:
    """Whether every token may be sampled at every step: no constraint and no truncation."""
    limits = decoding.min_length or decoding.no_repeat_ngram_size or decoding.top_k or decoding.top_p < 1.0
    return stops is None and not limits


class FusedChooser:
    """`TokenChooser` for samples and greedy captions at once where nothing is excluded, on a GPU.

    Reads the logits once, in their own type, and keeps no probabilities.
    """

    def __init__(self, decoding: Decoding, ids: Int[Tensor, "B S"], with_greedy: bool) -> None:
        positions = torch.arange(decoding.max_length, device=ids.device)
        uniforms = rng.uniform(ids, positions[:, None, None])  # (L, B, S)
        # Negative: the most probable token.
        self._uniforms = iter(torch.nn.functional.pad(uniforms, (0, int(with_greedy)), value=-1.0).unbind(0))
        self._temperature = float(decoding.temperature)

    def __call__(
        self, logits: Float[Tensor, "B K V"], tokens: Int[Tensor, "B K T"]
    ) -> tuple[Int[Tensor, "B K"], Float[Tensor, "B K"], list[UInt8[Tensor, "B S W"]]]:
        from capkit.decoding import kernels

        return *kernels.choose(logits, next(self._uniforms), self._temperature), []


class TokenChooser:
    """Chooses the next token of each row, and records its log-probability (nats, float32).

    With `ids`, tokens are sampled by one uniform number per (id, position). The recorded log-probability is that of
    the distribution sampled from, after constraints, temperature and truncation; if these can exclude tokens,
    `supports` records the tokens that remain. Without `ids`, the token is the most probable one that the constraints
    allow, and the log-probability is that of the unmodified model.
    """

    def __init__(
        self,
        decoding: Decoding,
        eos_token_id: int,
        ids: Int[Tensor, " R"] | None,
        stops: Int[Tensor, " N"] | None = None,
        other_ends: Sequence[int] = (),
    ) -> None:
        self.decoding, self.eos_token_id, self.ids, self.stops = decoding, eos_token_id, ids, stops
        self.other_ends = tuple(other_ends)
        self.warp: Any = warpers(decoding)
        self.logprobs: list[Float[Tensor, " R"]] = []
        self.supports: list[UInt8[Tensor, "R W"]] = []
        self._truncates = not is_unrestricted(decoding, stops)

    def __call__(self, logits: Float[Tensor, "R V"], tokens: Int[Tensor, "R T"]) -> Int[Tensor, " R"]:
        """The next token after `tokens`, prompt included."""
        step = len(self.logprobs)
        raw = logits.float()
        scores = constrained(raw, tokens, step, self.decoding, self.eos_token_id, self.stops, self.other_ends)
        if self.ids is None:
            chosen = scores.argmax(-1)
            logprobs = raw.gather(-1, chosen[:, None]).squeeze(-1) - raw.logsumexp(-1)
        else:
            scores = self.warp(tokens, scores)
            probabilities = scores.softmax(-1)
            chosen = inverse_cdf(probabilities, rng.uniform(self.ids, step))
            logprobs = probabilities.gather(-1, chosen[:, None]).squeeze(-1).log()
            if self._truncates:
                self.supports.append(pack(scores > -torch.inf))
        self.logprobs.append(logprobs)
        return chosen
