"""The decoding loop of greedy and sampled captions.

B images (where their captions have conditions of their own: pairs of an image and a condition), K captions per image
(S of them sampled), P prompt tokens, N stop tokens, V vocabulary, W bytes of a support.
"""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from capkit.decoding.cast import cast_once
from capkit.decoding.config import Decoding
from capkit.decoding.fused import has_kernels
from capkit.decoding.sampling import FusedChooser, TokenChooser, is_unrestricted
from capkit.types import Context

CHECK_EVERY = 5  # steps on a GPU between looks for captions that have ended: a look waits for the device


@dataclass(frozen=True)
class Plan:
    """What is written of each image: sampled captions, the greedy one, or both side by side in one loop."""

    decoding: Decoding
    num_sampled: int
    with_greedy: bool
    prompt: tuple[int, ...]  # token ids, BOS first
    eos_token_id: int
    stop_ids: tuple[int, ...] = ()  # tokens after which EOS follows
    other_ends: tuple[int, ...] = ()  # tokens that end a caption as EOS does

    @property
    def captions_per_image(self) -> int:
        return self.num_sampled + self.with_greedy


@dataclass(frozen=True)
class Given:
    """A plan's token ids on the device, and the images' own: nothing is moved there while the loop runs."""

    prompt: Int[Tensor, " P"]
    stops: Int[Tensor, " N"] | None
    ids: Int[Tensor, "B S"]  # of sampled captions: a caption's draws depend on its id alone

    @classmethod
    def of(cls, plan: Plan, ids: Int[Tensor, "B S"]) -> "Given":
        prompt = torch.tensor(plan.prompt, device=ids.device)
        return cls(prompt, torch.tensor(plan.stop_ids, device=ids.device) if plan.stop_ids else None, ids)


@dataclass
class Written:
    """An entry for each step: the new token of each caption. Tokens after a caption's EOS mean nothing."""

    tokens: list[Int[Tensor, "B K"]] = field(default_factory=list)
    logprobs: list[Float[Tensor, "B K"]] = field(default_factory=list)
    ended: list[Bool[Tensor, "B K"]] = field(default_factory=list)  # whether an end is among the tokens so far
    supports: list[UInt8[Tensor, "B S W"]] = field(default_factory=list)  # of sampled captions, if truncated

    def first(self, num_steps: int) -> "Written":
        return Written(*(getattr(self, name)[:num_steps] for name in ("tokens", "logprobs", "ended", "supports")))


def is_end(tokens: Int[Tensor, "*rows"], eos_token_id: int, other_ends: Sequence[int] = ()) -> Bool[Tensor, "*rows"]:
    """Where a token is EOS or one of `other_ends`; nothing is moved to the device for it."""
    found = tokens == eos_token_id
    for end in other_ends:
        found = found | (tokens == end)
    return found


class _RowChooser:
    """Chooses the next tokens of samples, then of greedy captions."""

    def __init__(self, plan: Plan, given: Given) -> None:
        ends = plan.num_sampled, plan.captions_per_image
        kinds = (slice(0, ends[0]), given.ids.flatten()), (slice(*ends), None)
        self._choosers = [
            (some, TokenChooser(plan.decoding, plan.eos_token_id, ids, given.stops, plan.other_ends))
            for some, ids in kinds
            if some.stop > some.start
        ]

    def __call__(
        self, logits: Float[Tensor, "B K V"], tokens: Int[Tensor, "B K T"]
    ) -> tuple[Int[Tensor, "B K"], Float[Tensor, "B K"], list[UInt8[Tensor, "B S W"]]]:
        """Tokens, their log-probabilities, and the samples' support if it is restricted."""
        images = (len(logits), -1)
        chosen = [
            choose(logits[:, some].flatten(0, 1), tokens[:, some].flatten(0, 1)).unflatten(0, images)
            for some, choose in self._choosers
        ]
        logprobs = [choose.logprobs[-1].unflatten(0, images) for _, choose in self._choosers]
        supports = [choose.supports[-1].unflatten(0, images) for _, choose in self._choosers if choose.supports]
        return torch.cat(chosen, dim=1), torch.cat(logprobs, dim=1), supports


def steps(captioner: Any, context: Context, plan: Plan, given: Given) -> Generator[Written, None, None]:
    """Write captions, a token of each at a step; yields all that is written, after each step.

    Nothing waits for the device.
    """
    prompt = given.prompt
    device, num_images, num_captions = context.states.device, context.num_prompts, plan.captions_per_image
    choose: Any = _RowChooser(plan, given)
    if is_unrestricted(plan.decoding, given.stops) and has_kernels(device):
        choose = FusedChooser(plan.decoding, given.ids, plan.with_greedy)
    written = Written()
    parts, head = captioner.decoder_parts()
    with cast_once(parts, head, device):
        cache = captioner.start(context, len(prompt) + plan.decoding.max_length)
        # Captions of an image differ from their first token on: the prompt is read once per image and condition.
        logits = captioner.step(context, prompt.expand(num_images, -1), cache)
        logits = logits[:, None].expand(-1, num_captions, -1)
        if num_captions > 1:
            cache.batch_repeat_interleave(num_captions)
        tokens = prompt.expand(num_images, num_captions, -1)
        for step in range(plan.decoding.max_length):
            if step:
                logits = captioner.step(context, tokens[..., -1].reshape(-1, 1), cache)
                logits = logits.unflatten(0, (num_images, -1))
            chosen, logprobs, supports = choose(logits[..., : captioner.vocab_size], tokens)
            tokens = torch.cat([tokens, chosen[..., None]], -1)
            ended = is_end(chosen, plan.eos_token_id, plan.other_ends)
            written.tokens.append(chosen)
            written.ended.append(ended | written.ended[-1] if step else ended)
            written.logprobs.append(logprobs)
            written.supports.extend(supports)
            yield written


def run(captioner: Any, context: Context, plan: Plan, ids: Int[Tensor, "B S"]) -> Written:
    """The loop, op by op, up to where every caption has ended."""
    check_every = 1 if context.states.device.type == "cpu" else CHECK_EVERY
    written = Written()
    with closing(steps(captioner, context, plan, Given.of(plan, ids))) as loop:
        for written in loop:
            if len(written.tokens) % check_every == 0 and bool(written.ended[-1].all()):
                break
    return written
