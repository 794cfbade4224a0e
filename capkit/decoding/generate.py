"""Generate captions with any captioner: greedy, beam search, reproducible sampling.

B images, K captions per image, R = B x K rows, T new tokens, L tokens in all, V vocabulary; G pairs of an image and the
conditions of its captions, N captions of an image under all of them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from torch import Tensor, nn

from capkit.decoding.beam import beam_search
from capkit.decoding.config import Decoding
from capkit.decoding.engine import Plan, is_end, run
from capkit.decoding.graphs import can_run_graphs, run_graphs
from capkit.decoding.guided import GuidedCaptioner
from capkit.decoding.sampling import stop_token_ids
from capkit.errors import UsageError
from capkit.text.tokenizers import decode_captions, given_ids, prompt_ids
from capkit.types import Context, Samples
from capkit.utils import rng


@runtime_checkable
class StepwiseCaptioner(Protocol):
    """The part of a captioner that generation uses.

    `start` returns an empty KV cache for `capacity` tokens, prompt included: a `transformers.Cache`
    (`capkit.decoding.cache`). `step` takes each row's new tokens (first the prompt, then one token at a time), appends
    them to the cache and returns the logits of the next token. Rows b K .. b K + K - 1 belong to image b of the
    context. `decoder_parts` are the modules that `step` runs, and the head among them. `is_graphable`: whether `step`
    can be captured in a CUDA graph, that is, never waits for the device.
    """

    tokenizer: Any
    prompt: str
    max_length: int
    vocab_size: int  # number of logits: at least the tokenizer's size

    def start(self, context: Context, capacity: int) -> Any: ...
    def step(self, context: Context, tokens: Int[Tensor, "R T"], cache: Any) -> Float[Tensor, "R V"]: ...
    def decoder_parts(self) -> tuple[list[nn.Module], nn.Module]: ...
    def is_graphable(self) -> bool: ...
    def logprobs(
        self,
        context: Context,
        tokens: Int[Tensor, "B K L"],
        mask: Bool[Tensor, "B K L"],
        temperature: float = 1.0,
        support: UInt8[Tensor, "B K M W"] | None = None,
    ) -> Float[Tensor, "B K M"]: ...


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Put every module in eval mode (no dropout), and restore each module's own mode on exit."""
    training = [module for module in model.modules() if module.training] if isinstance(model, nn.Module) else []
    for module in training:
        vars(module)["training"] = False  # nn.Module's own way to set it takes ten times as long, at every step
    try:
        yield
    finally:
        for module in training:
            vars(module)["training"] = True


def _check(
    captioner: StepwiseCaptioner, context: Context, decoding: Decoding, num_samples: int, prompt_length: int
) -> None:
    if decoding.num_candidates not in (None, num_samples):
        raise UsageError(
            f"decoding.num_candidates={decoding.num_candidates} needs a reranker, which only task=evaluate and "
            "task=caption have; leave it out here"
        )
    if decoding.num_candidates is not None and context.num_prompts > len(context.states):
        raise UsageError(
            f"decoding.num_candidates={decoding.num_candidates} are candidates of an image; got conditions or prompts "
            "of each of its captions; give one value for all, conditions.NAME=VALUE, or leave num_candidates out"
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
    prompt_length += context.prompt_places
    if prompt_length + decoding.max_length > captioner.max_length:
        raise UsageError(
            f"prompt and caption must fit the model's {captioner.max_length} positions; got {prompt_length} + "
            f"decoding.max_length={decoding.max_length}; lower decoding.max_length or raise model.max_length"
        )


def _sample_ids(context: Context, decoding: Decoding, num_samples: int) -> Int[Tensor, "G K"]:
    # One id per (seed, image, sample): draws do not depend on the batch, its order or the rank. An image's samples are
    # counted over all of its conditions.
    num_prompts = context.num_prompts
    samples = range(num_samples * num_prompts // max(1, len(context.keys)))
    ids = [[rng.stable_hash(decoding.seed, key, sample) for sample in samples] for key in context.keys]
    grouped = torch.tensor(ids, dtype=torch.int64).view(num_prompts, num_samples)
    return grouped.to(context.states.device, non_blocking=True)


def _start_ids(captioner: StepwiseCaptioner, decoding: Decoding) -> tuple[list[int], int]:
    """BOS, the captioner's prompt and the decoding's, and how many of these tokens are in front of the caption."""
    tokenizer = captioner.tokenizer
    own = prompt_ids(tokenizer, captioner.prompt)
    return own + given_ids(tokenizer, decoding.prompt, captioner.prompt), len(own)


def _stop_ids(captioner: StepwiseCaptioner, decoding: Decoding) -> tuple[int, ...]:
    return () if decoding.stop is None else stop_token_ids(captioner.tokenizer, decoding.stop)


def other_ends(captioner: Any) -> tuple[int, ...]:
    """Token ids that end a caption as EOS does, of a captioner that has any."""
    return getattr(captioner, "other_ends", ())


def _real(
    tokens: Int[Tensor, "B K L"], prompt_length: int, captioner: Any
) -> tuple[Bool[Tensor, "B K L"], Bool[Tensor, "B K"]]:
    """Masks of the real tokens (up to and including the first end after the prompt) and of the captions with one."""
    is_eos = is_end(tokens, captioner.tokenizer.eos_token_id, other_ends(captioner))
    is_eos[..., :prompt_length] = False  # BOS may be the same token as EOS (GPT-2)
    eos_before = is_eos.long().cumsum(-1) - is_eos.long()  # EOS tokens strictly before each position
    return eos_before == 0, is_eos.any(-1)


def _of_beams(captioner: StepwiseCaptioner, context: Context, decoding: Decoding, num_captions: int) -> Samples:
    start, _ = _start_ids(captioner, decoding)
    stops, ends = _stop_ids(captioner, decoding), other_ends(captioner)
    tokens = beam_search(captioner, context, decoding, num_captions, start, stops, ends)
    mask, ended = _real(tokens, len(start), captioner)
    logprobs = captioner.logprobs(context, tokens, mask)
    return Samples(texts=[], tokens=tokens, mask=mask, ended=ended, logprobs=logprobs)


def _by_image(written: Shaped[Tensor, "G K *rest"], context: Context) -> Shaped[Tensor, "B N *rest"]:
    """What was written under each of an image's conditions, one after the other."""
    return written.reshape(len(context.states), -1, *written.shape[2:])


def _of_loop(
    captioner: StepwiseCaptioner, context: Context, decoding: Decoding, num_samples: int, with_greedy: bool
) -> Samples:
    tokenizer, (start, _) = captioner.tokenizer, _start_ids(captioner, decoding)
    num_sampled = num_samples if decoding.method == "sample" else 0
    plan = Plan(
        # Without its seed, which is in the ids: what is captured for one step of a run serves the next.
        decoding=replace(decoding, seed=0),
        num_sampled=num_sampled,
        with_greedy=with_greedy or decoding.method == "greedy",
        prompt=tuple(start),
        eos_token_id=tokenizer.eos_token_id,
        stop_ids=_stop_ids(captioner, decoding),
        other_ends=other_ends(captioner),
    )
    ids = _sample_ids(context, decoding, num_sampled)
    written = (run_graphs if can_run_graphs(captioner, context) else run)(captioner, context, plan, ids)
    new = _by_image(torch.stack(written.tokens, -1), context)
    tokens = torch.cat([torch.tensor(start, device=new.device).expand(*new.shape[:2], -1), new], -1)
    mask, ended = _real(tokens, len(start), captioner)
    length = int(mask.flatten(0, 1).any(0).sum())
    # `logprobs` belong to tokens[..., 1:]: in front of the steps, one column for each given token after BOS.
    logprobs = nn.functional.pad(_by_image(torch.stack(written.logprobs, -1), context), (len(start) - 1, 0))
    support = None
    if written.supports:
        packed = torch.stack(written.supports, 2)
        packed = nn.functional.pad(packed, (0, 0, len(start) - 1, 0), value=255)  # given: no restriction
        support = nn.functional.pad(packed, (0, 0, 0, 0, 0, plan.captions_per_image - num_sampled), value=255)
        support = _by_image(support, context)[:, :, : length - 1]
    return Samples(
        texts=[],
        tokens=tokens[..., :length],
        mask=mask[..., :length],
        ended=ended,
        logprobs=logprobs[..., : length - 1],
        support=support,
    )


@torch.no_grad()
def generate(
    captioner: StepwiseCaptioner,
    context: Context,
    decoding: Decoding,
    num_samples: int = 1,
    with_greedy: bool = False,
) -> Samples:
    """Generate `num_samples` captions per image: samples, the best beams, or the single greedy caption.

    Runs in eval mode and without gradient. Recorded log-probabilities are those of the distribution sampled from
    (sample), or of the untruncated model at temperature 1 (greedy, beam). Where sampling is truncated or constrained,
    the tokens that it could choose from are recorded too. A caption that reaches `max_length` has no EOS. Under ZeRO-3
    the weights are gathered for the duration (capkit/distributed/zero.py), so ranks may take different numbers of
    steps.

    With `decoding.stop` EOS follows a stop token. It is no choice then: its log-probability is 0 if captions are
    sampled, while greedy and beam search record the model's, as for all their tokens.

    The words of `decoding.prompt` are in the texts, and their log-probabilities are 0, as those of all given tokens.

    With `decoding.guide` all of this is of the guided distribution.

    Where captions have conditions or prompts of their own, each image has `num_samples` captions under each of them, in
    their order. Tokens in the samples are those behind the prompts.

    `with_greedy` adds the greedy caption of each image, under the same constraints, behind its samples
    (method=sample): one more row of the same loop.
    """
    tokenizer, (start, prompt_length) = captioner.tokenizer, _start_ids(captioner, decoding)
    _check(captioner, context, decoding, num_samples, len(start))
    if with_greedy and (decoding.method != "sample" or context.num_prompts > len(context.states)):
        raise UsageError(
            f"with_greedy goes with method=sample and conditions or prompts of images, not of their captions; got "
            f"method={decoding.method}, {context.num_prompts} prompts of {len(context.states)} images"
        )
    writer = captioner
    if decoding.guide is not None:
        writer = GuidedCaptioner(captioner, decoding.guide, getattr(captioner, "language_model", None))
    with evaluating(captioner):
        if decoding.method == "beam":
            samples = _of_beams(writer, context, decoding, num_samples)
        else:
            samples = _of_loop(writer, context, decoding, num_samples, with_greedy)
    tokens, mask, logprobs = samples.tokens, samples.mask, samples.logprobs
    assert tokens is not None and mask is not None and logprobs is not None
    given = torch.arange(1, tokens.shape[-1], device=tokens.device) < len(start)
    logprobs = logprobs.masked_fill(given | ~mask[..., 1:], 0.0)
    tokens = tokens.masked_fill(~mask, tokenizer.pad_token_id)
    texts = decode_captions(tokenizer, tokens, mask, prompt_length)
    return replace(samples, texts=texts, tokens=tokens, logprobs=logprobs)
