"""Rollouts written by a vLLM server that runs beside the training, in place of the process that trains.

B images, S side of a picture in pixels.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from capkit.decoding.config import Decoding
from capkit.distributed.collectives import gather_objects, on_rank_zero
from capkit.errors import ServerFailed, UsageError
from capkit.llm.at_once import at_once
from capkit.llm.chat_server import picture_part
from capkit.llm.connection import Connection
from capkit.llm.pace import Pace
from capkit.models.captioners.chat_pictures import PIXEL_MEAN, PIXEL_STD
from capkit.models.captioners.chat_vlm import ChatVLM
from capkit.models.quantized import is_quantized
from capkit.objectives.policy.base import PolicyObjective
from capkit.objectives.policy.ppo import PPO
from capkit.text.tokenizers import decode_captions, prompt_ids
from capkit.train.rl.adapter_versions import AdapterVersions
from capkit.train.rl.vllm_client import Reply, VLLMClient, Written
from capkit.types import CaptionBatch, Samples
from capkit.utils.ranges import NonNegativeFloat, PositiveFloat, PositiveInt, check_ranges
from capkit.utils.rng import stable_hash

# Families whose language model vLLM serves with adapters (its table of supported models, 2026), and why not the others.
SERVED = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "smolvlm", "idefics3", "llava", "internvl")
_NOT_SERVED = {
    "llava_onevision": "vLLM takes no adapters for it",
    "paligemma": "it has no chat template, without which vLLM answers no chats",
}
_NUM_SEEDS = 2**31
# What a server would take from the model's generation_config.json where a request says nothing.
_PLAIN = {
    "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0,
    "frequency_penalty": 0.0, "min_tokens": 0,
}  # fmt: skip


@check_ranges
class VLLMRollout:
    """Asks a vLLM server for the samples of a rollout, and keeps its weights those of the policy.

    Weights: adapters of the language model, which must be all that trains (docs/rollout_server.md), saved into a folder
    that the server sees and loaded under a new name before every `sync_every`-th rollout (`AdapterVersions`). A reply
    by another name is an error, and so is one whose prompt has other token ids than the policy reads: another
    tokenizer, template or size of picture.

    Log-probabilities are the policy's own, computed anew by the update's forward pass; the server's are compared with
    them: `rl/logprob_gap` above `max_gap` ends the run. Between synchronisations the policy has moved on, and the
    server's log-probabilities are those that the ratio of PPO and GRPO starts from.

    Args:
        url: Of the server, such as http://localhost:8000/v1.
        model: Its name for the base model, which is the model that the run started from, without adapters.
        adapters_dir: Folder for the adapters of runs, the same path for the server; null: `rollout` in the run's own.
        sync_every: Rollouts with the same weights; above 1 for PPO and GRPO only.
        max_gap: Largest mean difference of the server's and the policy's log-probabilities, in nats a token.
        api_key_variable: Environment variable with the server's key, which is sent to `url` only and stored nowhere.
        timeout_s: Longest silence of the server.
        num_attempts: Attempts per request.
        first_wait_s: Delay before the first retry, then doubled, at most a minute.
        num_connections: Requests of a process at one time, one an image.
    """

    def __init__(
        self,
        url: str,
        model: str,
        adapters_dir: str | None = None,
        sync_every: PositiveInt = 1,
        max_gap: PositiveFloat = 0.2,
        api_key_variable: str | None = None,
        timeout_s: PositiveFloat = 600.0,
        num_attempts: PositiveInt = 5,
        first_wait_s: NonNegativeFloat = 1.0,
        num_connections: PositiveInt = 64,
    ) -> None:
        self._client = VLLMClient(
            Connection(url, api_key_variable, timeout_s, num_attempts, first_wait_s, num_connections, Pace())
        )
        self._base, self._adapters_dir, self._num_connections = model, adapters_dir, num_connections
        self.sync_every, self.max_gap = sync_every, max_gap
        self._name: str | None = None  # of the adapters that the server has
        self._synced_at = -1  # the step at whose beginning it got them
        self._versions: AdapterVersions | None = None

    # -- before the run

    def find(self) -> None:
        """Raises UsageError where there is no such server or model."""
        known = self._client.models()
        if self._base not in known:
            raise UsageError(
                f"rollout.model={self._base}: expected a name of {self._client.url}, got one that it does not have; it "
                f"has {', '.join(sorted(known))}"
            )

    def check(self, model: Any, objective: PolicyObjective) -> None:
        """Raises UsageError for a policy that the server cannot be, or an objective that needs more than it gives."""
        self._check_model(model)
        rollout = objective.rollout
        heeded = {name: getattr(rollout, name) for name in ("max_length", "temperature", "seed")}
        if rollout.method != "sample" or rollout != Decoding("sample", **heeded):
            raise UsageError(
                f"rollout=vllm samples from all tokens at a temperature up to max_length; got {rollout}; leave other "
                "settings of objective.rollout out, or sample in the training process (rollout=null)"
            )
        if self.sync_every > 1 and not isinstance(objective, PPO):
            raise UsageError(
                f"rollout.sync_every={self.sync_every}: samples of earlier weights need the ratio of PPO or GRPO, got "
                f"{type(objective).__name__}; give rollout.sync_every=1, or objective=ppo or grpo"
            )
        if len(model.asked_ids) - model.num_image_tokens + rollout.max_length > model.max_length:
            raise UsageError(
                f"objective.rollout.max_length={rollout.max_length}: expected question and caption within "
                f"model.max_length={model.max_length} tokens; lower it, or raise model.max_length"
            )

    def _check_model(self, model: Any) -> None:
        if not isinstance(model, ChatVLM):
            raise UsageError(
                f"rollout=vllm: expected model=chat_vlm, got {type(model).__name__}, which vLLM does not serve: it has "
                "chat models of transformers; leave rollout out"
            )
        kind = model.model.config.model_type
        if kind not in SERVED:
            raise UsageError(
                f"rollout=vllm: expected one of {', '.join(SERVED)}, got {kind}: {_NOT_SERVED[kind]}; leave rollout out"
            )
        if is_quantized(model):
            raise UsageError(
                "rollout=vllm: expected weights in full precision, got model.four_bit=true, whose rounded weights are "
                "not the server's; leave one of both out"
            )
        if not model.serves_adapters:
            raise UsageError(
                "rollout=vllm: expected adapters of the language model to be all that trains, got other weights, which "
                "a vLLM server takes over NCCL from a process with vLLM only; give model.lora.model={rank:16,alpha:32} "
                "for init_from=RUN, model.lora={rank:16,alpha:32} model.freeze=[vision,projector] for init_from=null, "
                "or leave rollout out"
            )

    def probe(self, model: ChatVLM, decoding: Decoding) -> None:
        """Ask the base model about a grey picture. Raises UsageError for an answer that cannot be learned from."""
        grey = np.full((model.image_size, model.image_size, 3), 128, np.uint8)
        self._ask(model, self._body(model, grey, self._base, decoding, 1, seed=0) | {"max_tokens": 2}, self._base)

    def attach(self, folder: Path) -> None:
        """Where adapters are saved, unless the config says so: the run's folder."""
        where = folder / "rollout"
        if self._adapters_dir is not None:  # runs of one name in different folders are different runs
            where = Path(self._adapters_dir) / f"{folder.name}-{stable_hash(str(folder.absolute())) & 0xFFFFFFFF:08x}"
        self._versions = AdapterVersions(self._client, self._base, where)

    # -- in a step

    def is_behind(self, step: int) -> bool:
        """Whether the policy has moved on since the server got its weights."""
        return self._synced_at != step

    def sync(self, model: Any, step: int) -> None:
        """Give the server the policy's weights if it is time. A collective; all weights must be there.

        Raises ServerFailed, on all ranks, where it does not take them.
        """
        if self._name is not None and 0 <= step - self._synced_at < self.sync_every:
            return
        assert self._versions is not None
        publish = self._versions.publish
        try:
            self._name = on_rank_zero(lambda: publish(model))
        except UsageError as error:
            raise ServerFailed(f"rollout: {error}") from error
        self._synced_at = step

    def sample(
        self,
        model: ChatVLM,
        batch: CaptionBatch,
        decoding: Decoding,
        num_samples: int,
        with_greedy: bool,
        is_stopping: Callable[[], bool],
    ) -> Samples | None:
        """Captions of this rank's images, the greedy one last; None once the run is to stop. A collective.

        What an image is asked depends on (seed, its key) and not on its rank. Raises ServerFailed, on all ranks, where
        one rank cannot be answered.
        """

        def ask(image: int) -> list[Written]:
            assert self._name is not None
            picture, seed = pictures[image], stable_hash(decoding.seed, batch.keys[image]) % _NUM_SEEDS
            body = self._body(model, picture, self._name, decoding, num_samples, seed)
            found = self._ask(model, body, self._name).captions
            if with_greedy:
                best = self._body(model, picture, self._name, replace(decoding, temperature=1.0), 1, None)
                found = found + self._ask(model, best, self._name).captions
            return found

        written, problem, pictures = None, None, _as_bytes(batch)
        try:
            _check_prompts(batch)
            written = at_once(ask, range(len(batch)), self._num_connections, is_stopping)
        except UsageError as error:
            problem = str(error)
        if problems := [found for found in gather_objects(problem) if found is not None]:
            raise ServerFailed(f"rollout: {problems[0]}")
        return None if written is None else _samples(model, written)

    def check_gap(self, gap: float, step: int) -> None:
        """Raises ServerFailed where the server's log-probabilities are not those of the weights that it was given."""
        if self.is_behind(step) or not gap > self.max_gap:
            return
        raise ServerFailed(
            f"rollout: the log-probabilities of {self._client.url} differ from the policy's by {gap:.3f} nats a token, "
            f"above rollout.max_gap={self.max_gap}: it has other weights, reads pictures otherwise, or gives "
            "log-probabilities before temperature; start it from the model that the run started from, with "
            "--logprobs-mode processed_logprobs and --dtype of the run's precision (docs/rollout_server.md)"
        )

    def _body(
        self,
        model: ChatVLM,
        picture: UInt8[np.ndarray, "S S 3"],
        name: str,
        decoding: Decoding,
        number: int,
        seed: int | None,
    ) -> dict[str, Any]:
        """A request for `number` samples of a picture; for its greedy caption, without a seed."""
        messages, is_completed = model.asked(picture_part(picture))
        body = {
            "model": name,
            "messages": messages,
            "n": number,
            "max_tokens": decoding.max_length,
            "temperature": 0.0 if seed is None else float(decoding.temperature),
            **_PLAIN,
            # Ends are those of the policy, and not of the server's generation_config.json.
            "ignore_eos": True,
            "stop_token_ids": _ends(model),
            "logprobs": True,
            "top_logprobs": 0,
            "return_token_ids": True,
            "add_special_tokens": is_completed,
        }
        return body if seed is None else {**body, "seed": seed}

    def _ask(self, model: ChatVLM, body: dict[str, Any], name: str) -> Reply:
        reply = self._client.complete(body, frozenset(_ends(model)))
        if reply.model != name:
            raise UsageError(
                f"{self._client.url}: expected captions by {name}, the policy's weights, got some by {reply.model}; "
                "ask a vLLM server itself, without a router that picks models"
            )
        if reply.prompt_ids != model.asked_ids:
            raise UsageError(
                f"{self._client.url} reads a picture and the question otherwise than the policy: expected "
                f"{_shown(model.asked_ids)}, got {_shown(reply.prompt_ids)}; start it from an export of the model "
                "(capkit export), whose tokenizer, chat template and size of pictures are the policy's"
            )
        if wrong := [t for caption in reply.captions for t in caption.token_ids if not 0 <= t < model.vocab_size]:
            raise UsageError(f"{self._client.url}: expected token ids below {model.vocab_size}, got {wrong[0]}")
        return reply


def _check_prompts(batch: CaptionBatch) -> None:
    if batch.prompts is not None:
        raise UsageError("rollout=vllm asks model.question of each picture, got captions with prompts of their own")


def _ends(model: ChatVLM) -> list[int]:
    return [int(model.tokenizer.eos_token_id), *model.other_ends]


def _shown(ids: list[int]) -> str:
    """Ids with how often each comes in a row, where it is often: those of a picture."""
    runs: list[list[int]] = []
    for token in ids:
        if runs and runs[-1][0] == token:
            runs[-1][1] += 1
        else:
            runs.append([token, 1])
    return f"{len(ids)} ids " + " ".join(f"{token} x {count}" if count > 1 else str(token) for token, count in runs)


def _as_bytes(batch: CaptionBatch) -> UInt8[np.ndarray, "B S S 3"]:
    """The pictures as the data's transform made them, before it normalised them."""
    assert batch.pixels is not None
    pixels = (batch.pixels.float() * PIXEL_STD + PIXEL_MEAN) * 255
    return pixels.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def _samples(model: ChatVLM, written: list[list[Written]]) -> Samples:
    """The captions as what generation would have returned."""
    tokenizer, device = model.tokenizer, next(model.parameters()).device
    start = prompt_ids(tokenizer, model.prompt)
    longest = max(len(caption.token_ids) for captions in written for caption in captions)
    shape = (len(written), len(written[0]), len(start) + longest)
    tokens = torch.full(shape, int(tokenizer.pad_token_id))
    mask, logprobs = torch.zeros(shape, dtype=torch.bool), torch.zeros((*shape[:2], shape[2] - 1))
    for image, captions in enumerate(written):
        for number, caption in enumerate(captions):
            ids = [*start, *caption.token_ids]
            tokens[image, number, : len(ids)] = torch.tensor(ids)
            mask[image, number, : len(ids)] = True
            logprobs[image, number, len(start) - 1 : len(ids) - 1] = torch.tensor(caption.logprobs)
    ended = torch.tensor([[caption.ended for caption in captions] for captions in written])
    texts = decode_captions(tokenizer, tokens, mask, len(start))
    tensors = (value.to(device) for value in (tokens, mask, ended, logprobs))
    return Samples(texts, *tensors)
