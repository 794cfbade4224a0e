"""What a rollout asks of vLLM's OpenAI-compatible server: models, adapters that it loads while it runs, captions.

Field names and paths are those of vLLM's documentation (docs.vllm.ai: OpenAI-compatible server, LoRA adapters).
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from capkit.errors import UsageError
from capkit.llm.connection import Connection, Unanswered

_ROUNDING = 1e-3  # by which a log-probability of a half-precision softmax may be above 0


@dataclass(frozen=True)
class Written:
    """One caption: its token ids, their log-probabilities in nats, and whether an end token is the last of them."""

    token_ids: list[int]
    logprobs: list[float]
    ended: bool


@dataclass(frozen=True)
class Reply:
    """What was given to one request: by which model, after which ids, `captions` in the order of their numbers."""

    model: str
    prompt_ids: list[int]
    captions: list[Written]


class VLLMClient:
    """One vLLM server. Every method raises UsageError where the server cannot do it, or cannot be reached."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.url = connection.url

    def models(self) -> dict[str, dict[str, Any]]:
        """What the server answers as, by name: base models and adapters, whose "root" is their folder."""
        reply = self._asked("/models", None, _parsed)
        try:
            return {str(card["id"]): card for card in reply["data"]}
        except (KeyError, TypeError) as error:
            raise UsageError(
                f"{self.url}/models: expected a list of models, got {str(reply)[:200]}; give the address of a vLLM "
                "server, such as http://localhost:8000/v1"
            ) from error

    def load_adapter(self, name: str, folder: str) -> None:
        """Load peft's folder, as the server sees it, under a name that it does not have."""
        try:
            self._post("/load_lora_adapter", {"lora_name": name, "lora_path": folder})
        except UsageError as error:
            if name in self.models():  # by an attempt whose reply was lost
                return
            raise UsageError(
                f"the server does not load the adapters in {folder}: {error}; start it with "
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, --enable-lora and --max-lora-rank of at least model.lora.rank, "
                "and give a folder that it can read as rollout.adapters_dir"
            ) from error

    def unload_adapter(self, name: str) -> None:
        try:
            self._post("/unload_lora_adapter", {"lora_name": name})
        except UsageError:
            if name in self.models():
                raise

    def complete(self, body: Mapping[str, Any], ends: frozenset[int]) -> Reply:
        """The captions that a request gets; `ends`: the tokens that end one."""
        data = json.dumps(body).encode()
        return self._asked("/chat/completions", data, lambda reply: _read(reply, body, ends))

    def _post(self, path: str, body: Mapping[str, Any]) -> None:
        self._asked(path, json.dumps(body).encode(), lambda reply: None)

    def _asked(self, path: str, data: bytes | None, read: Any) -> Any:
        def attempt() -> Any:
            self._connection.pace.enter(0)
            return read(self._connection.send(path, data))

        try:
            return self._connection.insist(attempt, data or path.encode())
        except Unanswered as problem:
            what = "no connection to" if problem.is_lost else "no answer from"
            help_ = "start the server or correct rollout.url" if problem.is_lost else "see the server's log"
            raise UsageError(f"{what} {self.url}{path} ({problem}); {help_}") from problem


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        raise Unanswered(f"the reply is no JSON: {data[:200].decode(errors='replace')!r}") from error


def _read(data: bytes, body: Mapping[str, Any], ends: frozenset[int]) -> Reply:
    """Raises Unanswered for a reply that was broken off, UsageError for one that lacks what was asked for."""
    reply = _parsed(data)
    try:
        choices = sorted(reply["choices"], key=lambda choice: choice["index"])
        reasons = [choice["finish_reason"] for choice in choices]
    except (KeyError, TypeError) as error:
        raise Unanswered(f"malformed reply: {str(reply)[:200]}") from error
    if [choice["index"] for choice in choices] != list(range(body["n"])):
        raise UsageError(f"expected {body['n']} captions, got {len(choices)}; take a server that heeds n, such as vLLM")
    if odd := [reason for reason in reasons if reason not in ("stop", "length")]:
        raise Unanswered(f"a caption ended by {odd[0]!r}", may_pass=True)  # vLLM's "abort" while it is paused
    if not reply.get("prompt_token_ids") or any(choice.get("token_ids") is None for choice in choices):
        raise UsageError(
            "the server gives no token ids: captions would have to be tokenized again; take vLLM 0.11 or newer, which "
            "knows return_token_ids"
        )
    try:
        captions = [_caption(choice, body["max_tokens"], ends) for choice in choices]
        return Reply(str(reply.get("model")), [int(token) for token in reply["prompt_token_ids"]], captions)
    except UsageError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unanswered(f"malformed reply: {str(reply)[:200]}") from error


def _caption(choice: Mapping[str, Any], max_tokens: int, ends: frozenset[int]) -> Written:
    token_ids = [int(token) for token in choice["token_ids"]]
    logprobs = [float(token["logprob"]) for token in (choice.get("logprobs") or {}).get("content") or []]
    if len(logprobs) != len(token_ids):
        raise UsageError(
            f"expected a log-probability of each of {len(token_ids)} tokens, got {len(logprobs)}; take a server that "
            "gives them, such as vLLM"
        )
    if odd := [value for value in logprobs if not math.isfinite(value) or value > _ROUNDING]:
        raise UsageError(
            f"expected log-probabilities in nats, finite and at most 0, got {odd[0]}; see the server's log"
        )
    ended = choice["finish_reason"] == "stop"
    places = [place for place, token in enumerate(token_ids) if token in ends]
    if places != ([len(token_ids) - 1] if ended else []) or not 0 < len(token_ids) <= max_tokens:
        named = ", ".join(map(str, sorted(ends)))
        raise UsageError(
            f"expected a caption of at most {max_tokens} tokens with its end ({named}) as the last, or without one "
            f"where it is cut, got {token_ids[-20:]} ({choice['finish_reason']}); take a server that heeds "
            "stop_token_ids and max_tokens, such as vLLM"
        )
    return Written(token_ids, logprobs, ended)
