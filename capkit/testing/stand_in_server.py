"""A stand-in for a server of chat completions, on loopback, which can be slow, busy and broken in every way."""

import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import numpy as np

from capkit.utils.rng import stable_hash, uniform


@dataclass(frozen=True)
class Reply:
    """What one request gets. `ending`: "drop" closes the connection in place of a reply, "cut" in the middle of it,
    "hang" keeps it open without a word."""

    text: str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    ending: str | None = None
    delay_s: float = 0.0


def chat_reply(
    text: str | None, finish_reason: str = "stop", model: str = "tiny", tokens: tuple[int, int] | None = (7, 3)
) -> str:
    """The body of a chat completion; `tokens` are its usage: of the question, of the answer."""
    reply: dict[str, Any] = {
        "model": model,
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}],
    }
    if tokens is not None:
        reply["usage"] = dict(zip(("prompt_tokens", "completion_tokens"), tokens, strict=True))
    return json.dumps(reply)


def prompt_of(body: dict[str, Any]) -> str:
    """The text of the user's message."""
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


def passing_faults(text: str) -> tuple[Reply, ...]:
    """What a busy server does now and then; each passes when it is asked again, but the last, which is a bad answer."""
    return (
        Reply("too many requests", 429),
        Reply("out of memory", 500),
        Reply(chat_reply(text), ending="cut"),
        Reply(chat_reply(text)[:-20]),
    )


class StandInServer:
    """Answers each prompt by `answer(prompt)`, after `delay_s`, at most `num_slots` at a time; others wait.

    `plan` holds, by prompt, the replies to its next requests. A share `bad` of requests, drawn by (prompt, attempt),
    gets one of `passing_faults`. `requests` lists path, key and body of each request; `most_running` is the largest
    number of requests that were answered at one time, `num_connections` the number of connections that were opened.

    with StandInServer() as server:
        ChatServer(server.url, "tiny").ask([Question("hello")])  # "HELLO"
    """

    def __init__(
        self,
        answer: Callable[[str], str | Reply] = str.upper,
        delay_s: float = 0.0,
        num_slots: int = 1024,
        bad: float = 0.0,
        port: int = 0,
    ) -> None:
        self.answer, self.delay_s, self.bad = answer, delay_s, bad
        self.plan: dict[str, list[Reply]] = {}
        self.requests: list[dict[str, Any]] = []
        self.running = self.most_running = self.num_connections = 0
        self._attempts: dict[str, int] = {}
        self._lock = threading.Lock()
        self._slots = threading.Semaphore(num_slots)
        self._stopping = threading.Event()
        self._server = _Server(("127.0.0.1", port), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> "StandInServer":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """As a server that is killed: connections are closed in the middle. A second call does nothing."""
        self._stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server.close_connections()

    def prompts(self) -> list[str]:
        """The prompts of all requests, in the order in which they came."""
        return [prompt_of(request["body"]) for request in self.requests]

    def reply_to(self, path: str, key: str | None, body: dict[str, Any]) -> Reply:
        """The reply to one request, after its delay."""
        prompt = prompt_of(body)
        with self._lock:
            self.requests.append({"path": path, "key": key, "body": body})
            attempt = self._attempts[prompt] = self._attempts.get(prompt, -1) + 1
            planned = self.plan.get(prompt)
            reply = planned.pop(0) if planned else None
        with self._slots:
            with self._lock:
                self.running += 1
                self.most_running = max(self.most_running, self.running)
            self._stopping.wait(self.delay_s if reply is None else reply.delay_s)
            reply = reply or self._usual(prompt, attempt)
            if reply.ending == "hang":
                self._stopping.wait()
            with self._lock:
                self.running -= 1
        return reply

    def reply_to_get(self, path: str, key: str | None) -> Reply:
        """The reply to a request without a body: there is nothing to get here."""
        return Reply("not found", 404)

    def _usual(self, prompt: str, attempt: int) -> Reply:
        text = self.answer(prompt)
        if isinstance(text, Reply):
            return text
        draw = uniform(np.array([stable_hash(prompt)]), attempt)[0]
        if draw < self.bad:
            faults = passing_faults(text)
            return faults[int(draw / self.bad * len(faults))]
        return Reply(chat_reply(text, tokens=(len(prompt.split()), len(text.split()))))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are no error of the server's."""

    def close_connections(self) -> None:
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def _handler(stand_in: StandInServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def setup(self) -> None:
            stand_in.num_connections += 1
            super().setup()

        protocol_version = "HTTP/1.1"  # which keeps connections
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._send(stand_in.reply_to(self.path, self.headers.get("Authorization"), body))

        def do_GET(self) -> None:
            self._send(stand_in.reply_to_get(self.path, self.headers.get("Authorization")))

        def _send(self, reply: Reply) -> None:
            data = reply.text.encode()
            if reply.ending in ("drop", "hang"):
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if reply.ending == "cut" else data)
            self.close_connection = self.close_connection or reply.ending == "cut"

        def log_message(self, *arguments: Any) -> None:
            pass

    return Handler
