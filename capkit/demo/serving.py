"""Serves the demo until Ctrl-C."""

import errno
import socket
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from capkit.errors import UsageError

SHUTDOWN_S = 3  # for requests that are under way at Ctrl-C
HEADER_S = 10  # from a connection, or an answer on it, to the whole header of the next request


class Impatient(H11Protocol):
    """HTTP that closes a connection on which no request comes. Uvicorn has a limit behind an answer alone, and any byte
    ends that one.
    """

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_after(None)

    def on_response_complete(self) -> None:
        answered = self.cycle
        super().on_response_complete()
        self._expect_after(answered)

    def _expect_after(self, last: Any) -> None:
        """Close, in a while, if the last request is the same as now."""
        self.loop.call_later(HEADER_S, lambda: self.transport.close() if self.cycle is last else None)


def listening(host: str, port: int) -> socket.socket:
    """A socket on this address, nobody else's from now on; who connects before `serve` waits. Raises UsageError."""
    found = None
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # two may be bound, but one listens
        found.bind(address)
        found.listen()
    except OSError as error:
        if found is not None:
            found.close()
        is_taken = error.errno == errno.EADDRINUSE
        fix = "give another port=N, or port=0 for any free one" if is_taken else "give an address of this machine"
        raise UsageError(f"host={host} port={port}: expected a free address, got: {error}; {fix}") from error
    return found


def address_of(listens: socket.socket, host: str, token: str | None) -> str:
    """What to open in a browser."""
    shown = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listens.getsockname()[1]}/{f'?token={token}' if token else ''}"


def server_of(app: Any) -> uvicorn.Server:
    """What was asked is not written to a log: addresses hold the token and visitors' words."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        http=Impatient,
        lifespan="off",
        ws="none",
        limit_concurrency=100,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    return uvicorn.Server(config)


def serve(app: Any, listens: socket.socket) -> None:
    """Answer requests until SIGINT or SIGTERM; Ctrl-C ends in KeyboardInterrupt, as elsewhere."""
    server_of(app).run(sockets=[listens])
