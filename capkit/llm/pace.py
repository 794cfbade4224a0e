"""When requests to one server may start: limits a minute, and waits that the server asks for, for all connections."""

import threading
import time
from collections.abc import Callable

from capkit.utils.ranges import PositiveFloat


class Pace:
    """Shared by the threads that ask one server; each calls `enter` before a request.

    Requests start at least a minute / `requests_per_minute` apart, and as much later as their tokens take at
    `tokens_per_minute`. There are no bursts, so that a server that counts by the second is kept to as well. `hold`
    stops all requests that have not started. The clock (in seconds) can be replaced.
    """

    def __init__(
        self,
        requests_per_minute: PositiveFloat | None = None,
        tokens_per_minute: PositiveFloat | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._request_s = 60 / requests_per_minute if requests_per_minute else 0.0
        self._token_s = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._clock, self.sleep = clock, sleep
        self._lock = threading.Lock()
        self._next_request = self._next_tokens = self._held_until = clock()

    def enter(self, tokens: int) -> None:
        """Wait until a request of about so many tokens may start."""
        with self._lock:
            start = max(self._clock(), self._next_request, self._next_tokens)
            self._next_request = start + self._request_s
            self._next_tokens = start + tokens * self._token_s
        while (wait := max(start, self._held_until) - self._clock()) > 0:  # a hold may come while it waits
            self.sleep(wait)

    def settle(self, expected: int, used: int) -> None:
        """Correct `enter`'s number of tokens by the one that the server counted."""
        with self._lock:
            self._next_tokens += (used - expected) * self._token_s

    def hold(self, seconds: float) -> None:
        """Start no request for so long."""
        with self._lock:
            self._held_until = max(self._held_until, self._clock() + seconds)
