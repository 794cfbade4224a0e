"""Generate captions with any captioner through transformers' `generate`: greedy, beam search, reproducible sampling.

B images, K captions per image, R = B x K rows (beams included), P prompt tokens, T tokens so far, L tokens in all.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from transformers import GenerationConfig, GenerationMixin, LogitsProcessorList, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from capkit.decoding.config import Decoding
from capkit.decoding.sampling import ChooseToken, constraints, stop_token_ids, warpers
from capkit.errors import UsageError
from capkit.text.tokenizers import decode_captions, prompt_ids
from capkit.types import Context, Samples
from capkit.upstream.transformers import TokensAndCache, as_cache
from capkit.utils import rng


@runtime_checkable
class StepwiseCaptioner(Protocol):
    """The part of a captioner that generation uses.

    `start` returns an empty KV cache: a `transformers.DynamicCache`, or a subclass with its own `get_seq_length` and
    `reorder_cache`. `step` takes each row's new tokens (first the prompt, then one token at a time), appends them
    to the cache and returns the logits of the next token.
    Rows b K .. b K + K - 1 belong to image b of the context.
    """

    tokenizer: Any
    prompt: str
    max_length: int
    vocab_size: int  # number of logits: at least the tokenizer's size

    def start(self, context: Context) -> Any: ...
    def step(self, context: Context, tokens: Int[Tensor, "R T"], cache: Any) -> Float[Tensor, "R V"]: ...
    def logprobs(
        self,
        context: Context,
        tokens: Int[Tensor, "B K L"],
        mask: Bool[Tensor, "B K L"],
        temperature: float = 1.0,
        support: UInt8[Tensor, "B K M W"] | None = None,
    ) -> Float[Tensor, "B K M"]: ...


class _GenerationAdapter(TokensAndCache, PreTrainedModel, GenerationMixin):
    """Wraps a captioner and its context as the causal language model that transformers' `generate` expects.

    The context is an attribute rather than a model argument: `generate` would repeat an argument's rows for each
    caption, while the context keeps one row per image.
    """

    config_class = PretrainedConfig
    main_input_name = "input_ids"

    def __init__(self, captioner: StepwiseCaptioner, context: Context):
        config = PretrainedConfig()
        config.vocab_size = captioner.vocab_size  # beam search of transformers 5.17 divides by it
        super().__init__(config)
        # Bypasses nn.Module's registration: the adapter borrows the captioner and owns no parameter.
        self.__dict__["captioner"] = captioner
        self.context = context

    @property
    def device(self) -> torch.device:
        return self.context.states.device

    def forward(
        self, input_ids: Tensor, cache: Any = None, past_key_values: Any = None, return_dict: bool = True
    ) -> Any:
        """Accepts the cache under both of its names, since `generate` rejects arguments missing from this signature."""
        cache = past_key_values if cache is None else cache
        logits = self.__dict__["captioner"].step(self.context, input_ids, cache)
        return CausalLMOutputWithPast(logits=logits[:, None], **as_cache(cache))


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Put every module in eval mode (no dropout), and restore each module's own mode on exit."""
    training = [module for module in model.modules() if module.training] if isinstance(model, nn.Module) else []
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _check(captioner: StepwiseCaptioner, decoding: Decoding, num_samples: int, prompt_length: int) -> None:
    if decoding.num_candidates not in (None, num_samples):
        raise UsageError(
            f"decoding.num_candidates={decoding.num_candidates} needs a reranker, which only task=evaluate and "
            "task=caption have; leave it out here"
        )
    if num_samples < 1 or (decoding.method == "greedy" and num_samples != 1):
        raise UsageError(
            f"num_samples must be 1 for method=greedy and 1 or more otherwise; got {num_samples}; "
            "use decoding=sample for several captions of an image"
        )
    if decoding.method == "beam" and num_samples > decoding.num_beams:
        raise UsageError(
            f"beam search gives at most num_beams={decoding.num_beams} captions; got num_samples={num_samples}; "
            "raise decoding.num_beams"
        )
    if prompt_length + decoding.max_length > captioner.max_length:
        raise UsageError(
            f"prompt and caption must fit the model's {captioner.max_length} positions; got {prompt_length} + "
            f"decoding.max_length={decoding.max_length}; lower decoding.max_length or raise model.max_length"
        )


def _sample_ids(context: Context, decoding: Decoding, num_samples: int) -> Int[Tensor, " R"]:
    # One id per (seed, image, sample): draws do not depend on the batch, its order or the rank.
    ids = [rng.stable_hash(decoding.seed, key, sample) for key in context.keys for sample in range(num_samples)]
    return torch.tensor(ids, dtype=torch.int64, device=context.states.device)


def _config(captioner: StepwiseCaptioner, decoding: Decoding, num_samples: int) -> GenerationConfig:
    beam = decoding.method == "beam"
    return GenerationConfig(
        do_sample=False,
        max_new_tokens=decoding.max_length,
        num_beams=decoding.num_beams if beam else 1,
        num_return_sequences=num_samples if beam else 1,
        length_penalty=decoding.length_penalty if beam else None,
        early_stopping=False if beam else None,
        pad_token_id=captioner.tokenizer.pad_token_id,
        eos_token_id=captioner.tokenizer.eos_token_id,
        use_cache=True,
    )


def _written(
    tokens: Int[Tensor, "B K L"], prompt_length: int, eos_token_id: int
) -> tuple[Bool[Tensor, "B K L"], Bool[Tensor, "B K"]]:
    """Masks of the real tokens (up to and including the first EOS after the prompt) and of the captions with EOS."""
    is_eos = tokens == eos_token_id
    is_eos[..., :prompt_length] = False  # BOS may be the same token as EOS (GPT-2)
    eos_before = is_eos.long().cumsum(-1) - is_eos.long()  # EOS tokens strictly before each position
    return eos_before == 0, is_eos.any(-1)


@torch.no_grad()
def generate(captioner: StepwiseCaptioner, context: Context, decoding: Decoding, num_samples: int = 1) -> Samples:
    """Generate `num_samples` captions per image: samples, the best beams, or the single greedy caption.

    Runs in eval mode and without gradient. Recorded log-probabilities are those of the distribution sampled from
    (sample), or of the untruncated model at temperature 1 (greedy, beam). Where sampling is truncated or constrained,
    the tokens that it could choose from are recorded too. A caption that reaches `max_length` has no EOS. Under ZeRO-3
    the weights are gathered for the duration (capkit/distributed/zero.py), so ranks may take different numbers of
    steps.

    With `decoding.stop` EOS follows a stop token. It is no choice then: its log-probability is 0 if captions are
    sampled, while greedy and beam search record the model's, as for all their tokens.
    """
    tokenizer, start = captioner.tokenizer, prompt_ids(captioner.tokenizer, captioner.prompt)
    _check(captioner, decoding, num_samples, len(start))
    num_images, device = context.states.shape[0], context.states.device
    rows_per_image = num_samples if decoding.method == "sample" else 1
    prompt = torch.tensor(start, device=device).expand(num_images * rows_per_image, -1)
    stop_ids = () if decoding.stop is None else stop_token_ids(tokenizer, decoding.stop)
    processors = constraints(decoding, len(start), tokenizer.eos_token_id, device, stop_ids)
    chooser = None
    if decoding.method != "beam":
        ids = _sample_ids(context, decoding, num_samples) if decoding.method == "sample" else None
        chooser = ChooseToken(processors, warpers(decoding), ids)
        processors = LogitsProcessorList([chooser])
    with evaluating(captioner):
        adapter: Any = _GenerationAdapter(captioner, context)
        sequences = adapter.generate(
            prompt,
            generation_config=_config(captioner, decoding, num_samples),
            logits_processor=processors,
            **as_cache(captioner.start(context)),
        )
        tokens = sequences.unflatten(0, (num_images, num_samples))
        mask, ended = _written(tokens, len(start), tokenizer.eos_token_id)
        support = None
        if chooser is None:
            logprobs = captioner.logprobs(context, tokens, mask)
        else:
            # On some devices transformers runs one step past the end, which it cuts from the sequences.
            num_steps = tokens.shape[-1] - len(start)
            steps = torch.stack(chooser.logprobs, -1)[:, :num_steps]
            # `logprobs` belong to tokens[..., 1:]: in front of the steps, one column for each given token after BOS.
            logprobs = nn.functional.pad(steps, (len(start) - 1, 0)).unflatten(0, (num_images, num_samples))
            if chooser.supports:
                packed = torch.stack(chooser.supports, 1)[:, :num_steps]
                support = nn.functional.pad(packed, (0, 0, len(start) - 1, 0), value=255)  # given: no restriction
                support = support.unflatten(0, (num_images, num_samples))
    given = torch.arange(1, tokens.shape[-1], device=device) < len(start)
    logprobs = logprobs.masked_fill(given | ~mask[..., 1:], 0.0)
    tokens = tokens.masked_fill(~mask, tokenizer.pad_token_id)
    texts = decode_captions(tokenizer, tokens, mask, len(start))
    return Samples(texts=texts, tokens=tokens, mask=mask, ended=ended, logprobs=logprobs, support=support)
