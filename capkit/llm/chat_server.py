"""Client of servers with OpenAI's chat completions API: vLLM, SGLang, llama.cpp, Ollama, or hosted ones."""

import base64
import io
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import Any

import numpy as np
from PIL import Image

from capkit.errors import UsageError
from capkit.llm.base import Answer, Question
from capkit.utils.ranges import NonNegativeFloat, PositiveFloat, PositiveInt, WorkerCount, check_ranges
from capkit.utils.rng import stable_hash, uniform

_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_HOPELESS = {401: "the key was rejected", 403: "the key lacks permission", 404: "there is no such path or model"}
_MAX_WAIT_S = 60.0


class _Unanswered(Exception):
    """A request failed. `wait_s`: least delay before a retry; None: a retry will not help."""

    def __init__(self, reason: str, wait_s: float | None = None, unreachable: bool = False) -> None:
        super().__init__(reason)
        self.wait_s, self.unreachable = wait_s, unreachable


@check_ranges
class ChatServer:
    """A ChatModel at `url` (".../v1"; "/chat/completions" is added). Pictures are sent as PNG.

    Lost connections, timeouts and the statuses 408, 409, 425, 429 and 5xx are retried with exponential backoff, at most
    a minute. A question has no answer if all attempts fail, or if the reply is malformed or truncated at `max_tokens`.
    UsageError stops the run if no question of a batch reaches the server, or the key or the model is rejected.

    Args:
        url: Address of the server. Not part of the cache's fingerprint, since a server may move.
        model: Its name on the server.
        revision: Identifies the weights in the cache, if the model's name does not.
        api_key_variable: Environment variable with the key, which is sent to `url` only and stored nowhere.
        temperature: Of sampling; 0 is greedy.
        max_tokens: Longest answer.
        timeout_s: Longest silence of the server.
        num_attempts: Attempts per question.
        first_wait_s: Delay before the first retry, then doubled; a longer Retry-After is respected.
        num_connections: Concurrent requests.
    """

    def __init__(
        self,
        url: str,
        model: str,
        revision: str | None = None,
        api_key_variable: str | None = None,
        temperature: NonNegativeFloat = 0.0,
        max_tokens: PositiveInt = 512,
        timeout_s: PositiveFloat = 120.0,
        num_attempts: PositiveInt = 5,
        first_wait_s: NonNegativeFloat = 1.0,
        num_connections: WorkerCount = 8,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"url must be a server's address such as http://localhost:8000/v1; got {url!r}")
        if api_key_variable is not None and not os.environ.get(api_key_variable):
            raise UsageError(
                f"the environment variable {api_key_variable} must hold the server's key, but is not set; export it"
            )
        self._url, self._key_variable = url.rstrip("/") + "/chat/completions", api_key_variable
        self._model, self._revision = model, revision
        self._settings: dict[str, float | int] = {"temperature": temperature, "max_tokens": max_tokens}
        self._timeout_s, self._num_attempts, self._first_wait_s = timeout_s, num_attempts, first_wait_s
        self._num_connections = num_connections

    @property
    def draws(self) -> bool:
        return self._settings["temperature"] > 0

    def about(self) -> dict[str, Any]:
        return {"backend": "chat_server", "model": self._model, "revision": self._revision, **self._settings}

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        with ThreadPoolExecutor(self._num_connections) as pool:
            outcomes = list(pool.map(self._ask, questions))
        lost = [outcome for outcome in outcomes if isinstance(outcome, _Unanswered) and outcome.unreachable]
        if outcomes and len(lost) == len(outcomes):
            raise UsageError(
                f"no connection to {self._url} ({lost[0]}); start the server or correct url; answers so far are kept"
            )
        return [Answer(None, str(o)) if isinstance(o, _Unanswered) else Answer(o) for o in outcomes]

    def _ask(self, question: Question) -> str | _Unanswered:
        """The model's answer, or the reason why all attempts failed."""
        body = {"model": self._model, "messages": _messages(question), **self._settings}
        if self.draws:
            body["seed"] = question.sample
        data = json.dumps(body).encode()
        draw = np.array([stable_hash(data)])
        attempt = 0
        while True:
            try:
                return self._request(data)
            except _Unanswered as problem:
                attempt += 1
                if problem.wait_s is None or attempt == self._num_attempts:
                    return problem
                # Jitter between half and all of the delay, so that requests that failed together do not retry together.
                wait = self._first_wait_s * 2 ** (attempt - 1) * (1 + float(uniform(draw, attempt)[0])) / 2
                time.sleep(min(max(wait, problem.wait_s), _MAX_WAIT_S))

    def _request(self, data: bytes) -> str:
        request = urllib.request.Request(self._url, data, {"Content-Type": "application/json"})
        if self._key_variable is not None:  # unredirected: never send the key to another address
            request.add_unredirected_header("Authorization", f"Bearer {os.environ[self._key_variable]}")
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as reply:
                return _words(reply.read())
        except urllib.error.HTTPError as error:
            raise self._refused(error) from error
        except TimeoutError as error:
            raise _Unanswered(f"no answer within {self._timeout_s} s", 0.0) from error
        except (OSError, HTTPException) as error:  # URLError is an OSError
            reason = getattr(error, "reason", None) or error
            raise _Unanswered(f"connection lost: {reason}", 0.0, unreachable=True) from error

    def _refused(self, error: urllib.error.HTTPError) -> _Unanswered:
        said = " ".join(error.read(2000).decode(errors="replace").split())[:300]
        if self._key_variable is not None:
            said = said.replace(os.environ[self._key_variable], "(key)")
        if error.code in _HOPELESS:
            raise UsageError(
                f"{self._url} answers {error.code}: {_HOPELESS[error.code]}; check url, model and api_key_variable; "
                f"the server says: {said}"
            )
        wait = _seconds(error.headers.get("Retry-After")) if error.code in _RETRIED else None
        return _Unanswered(f"status {error.code}: {said}", wait)


def _messages(question: Question) -> list[dict[str, Any]]:
    system = [] if question.system is None else [{"role": "system", "content": question.system}]
    return [*system, {"role": "user", "content": _content(question)}]


def _content(question: Question) -> Any:
    if not question.pictures:
        return question.text
    parts: list[dict[str, Any]] = []
    for picture in question.pictures:
        file = io.BytesIO()
        Image.fromarray(picture.pixels).save(file, "PNG")
        url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
        parts.append({"type": "image_url", "image_url": {"url": url}})
    return [*parts, {"type": "text", "text": question.text}]


def _words(reply: bytes) -> str:
    try:
        choice = json.loads(reply)["choices"][0]
        text, reason = choice["message"]["content"], choice.get("finish_reason")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise _Unanswered(f"malformed reply: {reply[:200].decode(errors='replace')!r}") from error
    if reason == "length":
        raise _Unanswered("the answer was truncated at max_tokens")
    if not isinstance(text, str):
        raise _Unanswered(f"the reply holds no text ({reason or 'no reason given'})")
    return text


def _seconds(header: str | None) -> float:
    """Retry-After in seconds; 0 for a date, which is not parsed."""
    return float(header) if header is not None and header.strip().isdigit() else 0.0
