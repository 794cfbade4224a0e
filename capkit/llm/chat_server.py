"""Client of servers with OpenAI's chat completions API: vLLM, SGLang, llama.cpp, Ollama, hosted (docs/servers.md)."""

import base64
import io
import json
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Annotated, Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from capkit.errors import UsageError
from capkit.llm.base import Answer, Question
from capkit.llm.connection import Connection, Unanswered
from capkit.llm.cost import Price, guessed_tokens
from capkit.llm.pace import Pace
from capkit.utils.ranges import (
    Length,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    PositiveProbability,
    Range,
    Seed,
    check_ranges,
)
from capkit.utils.rng import stable_hash

_PATH = "/chat/completions"
_NUM_SEEDS = 2**31  # what every engine takes as a seed


@check_ranges
class ChatServer:
    """A ChatModel at `url` (".../v1"; "/chat/completions" is added). Pictures are sent as PNG.

    `open` puts a question in line; as many as `num_connections` are with the server at any time, over connections that
    are kept. Lost connections, timeouts and the statuses 408, 409, 425, 429 and 5xx are retried with exponential
    backoff, at most a minute; a Retry-After holds all connections. A question has no answer if all attempts fail, or if
    the reply is malformed or truncated at `max_tokens`. UsageError stops the run if the server cannot be reached, has
    only web pages, rejects the key or the model, sends elsewhere, or changes the name of its model.

    Args:
        url: Address of the server. Not part of what answers are kept by, since a server may move.
        model: Its name on the server.
        revision: Identifies the weights among kept answers, if the model's name does not.
        api_key_variable: Environment variable with the key, which is sent to `url` only and stored nowhere.
        temperature: Of sampling; 0 is greedy.
        top_p: Of sampling: the smallest set of tokens with this probability; None: the server's default.
        seed: Of sampling: each question and sample is sent a seed of its own that follows from it.
        repetition_penalty: Above 1: against repeated tokens; None: the server's default.
        top_logprobs: Ask for the log-probabilities of so many first tokens (`Answer.first_logprobs`); None: of none.
        structured: Send the JSON schema of the wanted reply, for the server to keep to.
        max_tokens: Longest answer.
        price: Money per million tokens of questions and of answers.
        timeout_s: Longest silence of the server.
        num_attempts: Attempts per question.
        first_wait_s: Delay before the first retry, then doubled; a longer Retry-After is respected.
        num_connections: Concurrent requests.
        requests_per_minute: Limit of this process's requests.
        tokens_per_minute: Limit of this process's tokens, of questions and answers together.
    """

    def __init__(
        self,
        url: str,
        model: str,
        revision: str | None = None,
        api_key_variable: str | None = None,
        temperature: NonNegativeFloat = 0.0,
        top_p: PositiveProbability | None = None,
        seed: Seed = 0,
        repetition_penalty: PositiveFloat | None = None,
        top_logprobs: Annotated[int, Range(1, 20)] | None = None,
        structured: bool = False,
        max_tokens: PositiveInt = 512,
        price: Annotated[Sequence[NonNegativeFloat], Length(2)] | None = None,
        timeout_s: PositiveFloat = 120.0,
        num_attempts: PositiveInt = 5,
        first_wait_s: NonNegativeFloat = 1.0,
        num_connections: Annotated[int, Range(1, 1024)] = 8,
        requests_per_minute: PositiveFloat | None = None,
        tokens_per_minute: PositiveFloat | None = None,
    ) -> None:
        self.draws, self.structured, self.max_tokens = temperature > 0, structured, max_tokens
        self.num_open = 2 * num_connections  # as many again wait here, so that no connection waits for its next one
        self.price = None if price is None else Price(*price)
        self._model, self._revision, self._seed = model, revision, seed
        self._settings: dict[str, float] = {"temperature": temperature, "max_tokens": max_tokens}
        if top_p is not None:
            self._settings["top_p"] = top_p
        self._repetition_penalty, self._top_logprobs = repetition_penalty, top_logprobs
        self._num_connections = num_connections
        self._pace = Pace(requests_per_minute, tokens_per_minute)
        self._connection = Connection(
            url, api_key_variable, timeout_s, num_attempts, first_wait_s, num_connections, self._pace
        )
        self._url = self._connection.url + _PATH
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Question, Future[Answer]]] = deque()
        self._num_threads = self._num_answers = 0
        self._served: str | None = None

    def about(self) -> dict[str, Any]:
        about = {"backend": "chat_server", "model": self._model, "revision": self._revision, **self._settings}
        if self.draws:
            about["seed"] = self._seed
        if self._repetition_penalty is not None:
            about["repetition_penalty"] = self._repetition_penalty
        if self._top_logprobs is not None:
            about["top_logprobs"] = self._top_logprobs
        if self.structured:
            about["structured"] = True
        return about

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        return [future.result() for future in [self.open(question) for question in questions]]

    def open(self, question: Question) -> Future[Answer]:
        """Put a question in line; its answer comes as soon as it is there.

        Raises UsageError for a second sample of a model that does not sample.
        """
        if question.sample and not self.draws:
            raise UsageError(
                "several answers to one question need a model that samples, got temperature=0; set temperature, such "
                "as 0.7"
            )
        future: Future[Answer] = Future()
        with self._lock:
            self._waiting.append((question, future))
            if self._num_threads < self._num_connections:
                self._num_threads += 1
                # A daemon: a run that is stopped does not wait for the server.
                threading.Thread(target=self._work, name="ask", daemon=True).start()
        return future

    def _work(self) -> None:
        """Ask one question after another until none waits."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._num_threads -= 1
                    return
                question, future = self._waiting.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(self._answer(question))
            except Exception as error:  # whatever it is, whoever waits for the answer is told
                future.set_exception(error)
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """What would have met the same error is not asked any more."""
        with self._lock:
            waiting, self._waiting = list(self._waiting), deque()
        for _, future in waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)

    def _answer(self, question: Question) -> Answer:
        """The model's answer, or the reason why all attempts failed."""
        body = self._body(question)
        data = json.dumps(body).encode()
        expected = guessed_tokens(question) + self.max_tokens
        replies_before = self._connection.num_replies

        def attempt() -> Answer:
            self._pace.enter(expected)
            return self._request(data, is_json="response_format" in body)

        try:
            answer = self._connection.insist(attempt, data)
        except Unanswered as problem:
            if problem.is_lost and self._connection.num_replies == replies_before:
                raise UsageError(
                    f"no connection to {self._url} ({problem}); start the server or correct url; answers so far are "
                    "kept"
                ) from problem
            if problem.is_page and not self._num_answers:
                raise UsageError(f"{self._url}: {problem}; correct url, such as http://localhost:8000/v1") from problem
            return Answer(None, str(problem))
        if answer.tokens_in is not None and answer.tokens_out is not None:
            self._pace.settle(expected, answer.tokens_in + answer.tokens_out)
        return answer

    def _body(self, question: Question) -> dict[str, Any]:
        messages: list[dict[str, Any]] = [{"role": "user", "content": _content(question)}]
        if question.system is not None:
            messages.insert(0, {"role": "system", "content": question.system})
        body: dict[str, Any] = {"model": self._model, "messages": messages, **self._settings}
        if self.draws:
            # Of the question as well: equal seeds would tie the answers to different questions together.
            body["seed"] = stable_hash(self._seed, question.sample, json.dumps(messages)) % _NUM_SEEDS
        if self._repetition_penalty is not None:
            body["repetition_penalty"] = self._repetition_penalty
            body["repeat_penalty"] = self._repetition_penalty  # its name in llama.cpp
        if self._top_logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": self._top_logprobs}
        if self.structured and question.schema is not None:
            schema = {"name": "reply", "strict": True, "schema": question.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    def _request(self, data: bytes, is_json: bool) -> Answer:
        answer, served = _read(self._connection.send(_PATH, data), is_json)
        with self._lock:
            before, self._served = self._served, served or self._served
            self._num_answers += 1
        if served and before and served != before:
            raise UsageError(
                f"{self._url} answered as {before!r} and now answers as {served!r}: answers of two models would be "
                "kept as those of one; give the exact name of one as model, or start the server with the first one; "
                "answers so far are kept"
            )
        return answer


def _content(question: Question) -> str | list[dict[str, Any]]:
    if not question.pictures:
        return question.text
    return [*(picture_part(picture.pixels) for picture in question.pictures), {"type": "text", "text": question.text}]


def picture_part(pixels: UInt8[np.ndarray, "H W 3"]) -> dict[str, Any]:
    """A picture as a part of a message's content, without loss."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return {
        "type": "image_url",
        "image_url": {"url": "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()},
    }


def _read(data: bytes, is_json: bool) -> tuple[Answer, str | None]:
    """The answer in a reply, and the name of the model that it was given by. `is_json`: the engine held it to JSON."""
    if data.lstrip()[:1] == b"<":
        raise Unanswered(f"the reply is a web page, not a chat completion: {_shown(data)}", is_page=True)
    try:
        reply = json.loads(data)
        choice = reply["choices"][0]
        text, reason = choice["message"]["content"], choice.get("finish_reason")
        usage, served = reply.get("usage") or {}, reply.get("model")
        tokens_in, tokens_out = (_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens"))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise Unanswered(f"malformed reply: {_shown(data)}") from error
    if reason == "length" and not (is_json and _has_ended(text)):
        failure: str | None = "the answer was truncated at max_tokens"
    else:
        failure = None if isinstance(text, str) else f"the reply holds no text ({reason or 'no reason given'})"
    if failure is not None:
        said = text if isinstance(text, str) else None
        return Answer(None, failure, said, tokens_in=tokens_in, tokens_out=tokens_out), served
    first = _first_logprobs(choice.get("logprobs"))
    return Answer(text, tokens_in=tokens_in, tokens_out=tokens_out, first_logprobs=first), served


def _has_ended(text: Any) -> bool:
    """Whether JSON is whole, so that only blanks could follow, which engines let a model write up to `max_tokens`.

    A number may go on: 1 of 12.
    """
    try:
        return isinstance(text, str) and text.rstrip()[-1:] in ('"', "}", "]") and json.loads(text) is not None
    except ValueError:
        return False


def _first_logprobs(given: Any) -> dict[str, float] | None:
    """Log-probabilities of the likeliest first tokens; None from a server that gives none."""
    try:
        rows = given["content"][0]["top_logprobs"]
        return {str(row["token"]): float(row["logprob"]) for row in rows}
    except (KeyError, IndexError, TypeError, ValueError):
        return None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _shown(data: bytes) -> str:
    return repr(data[:200].decode(errors="replace"))
