"""Language models that guide a captioner: what the next token would be without any image.

R rows, T new tokens, V vocabulary.
"""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import Cache, DynamicCache

from capkit.errors import UsageError
from capkit.types import Context
from capkit.upstream.transformers import as_cache


@runtime_checkable
class LanguageModel(Protocol):
    """Next-token log-probabilities in nats, step by step, in a captioner's vocabulary.

    The methods are those of a captioner (`capkit.decoding.generate`); of the context only its number of images and its
    device count. `step` reads each row's new tokens: first BOS and the captioner's prompt, then one at a time.
    """

    def start(self, context: Context, capacity: int) -> Any: ...
    def step(self, context: Context, tokens: Int[Tensor, "R T"], cache: Any) -> Float[Tensor, "R V"]: ...
    def parts(self) -> list[nn.Module]:
        """The modules that `step` runs."""
        ...


class CaptionerWithoutImage:
    """A captioner as a language model: it writes about missing images."""

    def __init__(self, captioner: Any) -> None:
        self.captioner = captioner

    def _missing(self, context: Context) -> Context:
        return self.captioner.null_context(len(context.states), context.states.device).without_image()

    def start(self, context: Context, capacity: int) -> Cache:
        return self.captioner.start(self._missing(context), capacity)

    def step(self, context: Context, tokens: Int[Tensor, "R T"], cache: Cache) -> Float[Tensor, "R V"]:
        logits = self.captioner.step(self._missing(context), tokens, cache)
        return logits[..., : self.captioner.vocab_size].float().log_softmax(-1)

    def parts(self) -> list[nn.Module]:
        parts, head = self.captioner.decoder_parts()
        return [*parts, head]


class CausalLanguageModel:
    """A causal language model of transformers that reads `prompt` first: example captions, separated by blank lines.

    What it gives to line breaks counts as the end, since an example ends with one (Kornblith et al. 2023, section 3.3).
    """

    def __init__(self, model: nn.Module, tokenizer: Any, prompt: str = "") -> None:
        self.model, self.eos_token_id = model, tokenizer.eos_token_id
        text = f"{prompt.strip()}\n\n" if prompt.strip() else ""
        words = tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
        self._given = torch.tensor([[tokenizer.bos_token_id, *words]])
        pieces = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
        self._breaks = torch.tensor([i for i, piece in enumerate(pieces) if piece and not piece.strip("\r\n")]).long()

    def start(self, context: Context, capacity: int) -> Cache:
        """All that is given but its last token is read, once for all captions."""
        cache = DynamicCache()
        read = self._given[:, :-1].to(context.states.device)
        if read.shape[1]:
            self.model(input_ids=read, use_cache=True, **as_cache(cache))
        return cache

    def step(self, context: Context, tokens: Int[Tensor, "R T"], cache: Cache) -> Float[Tensor, "R V"]:
        if cache.get_seq_length() == self._given.shape[1] - 1:
            # BOS stands in front of the examples; the captioner's prompt follows them.
            cache.batch_repeat_interleave(len(tokens))
            last = self._given[:, -1:].to(tokens.device).expand(len(tokens), -1)
            tokens = torch.cat([last, tokens[:, 1:]], dim=1)
        logits = self.model(input_ids=tokens, use_cache=True, **as_cache(cache)).logits[:, -1]
        return self._ending_at_breaks(logits.float().log_softmax(-1))

    def _ending_at_breaks(self, logprobs: Float[Tensor, "R V"]) -> Float[Tensor, "R V"]:
        breaks = self._breaks.to(logprobs.device)
        ends = torch.cat([breaks, breaks.new_tensor([self.eos_token_id])])
        total = logprobs[:, ends].logsumexp(-1)
        logprobs = logprobs.index_fill(-1, breaks, -torch.inf)
        logprobs[:, self.eos_token_id] = total
        return logprobs

    def parts(self) -> list[nn.Module]:
        return [self.model]


def check_same_tokens(captioner: Any, name: str, tokenizer: Any) -> None:
    """Raises UsageError unless a language model's tokenizer gives the captioner's ids to the captioner's tokens."""
    own = captioner.tokenizer
    if own.get_vocab() == tokenizer.get_vocab() and _special(own) == _special(tokenizer):
        return
    raise UsageError(
        f"decoding.guide.language_model={name}: expected the captioner's tokenizer ({_shown(own)}), got another "
        f"({_shown(tokenizer)}); guide it with a language model of the same tokenizer"
    )


def _special(tokenizer: Any) -> tuple[int | None, ...]:
    return tokenizer.bos_token_id, tokenizer.eos_token_id


def _shown(tokenizer: Any) -> str:
    return f"{type(tokenizer).__name__} of {len(tokenizer):,} tokens, BOS and EOS {_special(tokenizer)}"


def read_prompt(path: str | None) -> str:
    """The text of `decoding.guide.prompt`, "" without one. Raises UsageError for a file that cannot be read."""
    if path is None:
        return ""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"decoding.guide.prompt={path}: expected a text file, got {error}; give its path") from error
