"""Requests to one server over HTTP: kept connections, a key that goes nowhere else, errors that say what helps."""

import os
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from itertools import count
from typing import TypeVar
from urllib.request import getproxies, proxy_bypass

import numpy as np
import urllib3

from capkit.errors import UsageError
from capkit.llm.pace import Pace
from capkit.utils.rng import stable_hash, uniform

Rest = TypeVar("Rest")

_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_HOPELESS = {401: "the key was rejected", 403: "the key lacks permission", 404: "there is no such path or model"}
_MAX_WAIT_S = 60.0


class Unanswered(Exception):
    """A request failed.

    `may_pass`: whether a retry may help, which the server wants `retry_after_s` later; `is_lost`: no reply came;
    `is_page`: the reply was a web page.
    """

    def __init__(
        self,
        reason: str,
        may_pass: bool = False,
        retry_after_s: float = 0.0,
        is_lost: bool = False,
        is_page: bool = False,
    ) -> None:
        super().__init__(reason)
        self.may_pass, self.retry_after_s, self.is_lost, self.is_page = may_pass, retry_after_s, is_lost, is_page


class Connection:
    """Connections to the server at `url`, shared by threads; see `ChatServer` for what the settings are.

    Raises UsageError for a url that is none, and where the variable with the key is not set.
    """

    def __init__(
        self,
        url: str,
        api_key_variable: str | None,
        timeout_s: float | int,
        num_attempts: int,
        first_wait_s: float | int,
        num_connections: int,
        pace: Pace,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"url must be a server's address such as http://localhost:8000/v1; got {url!r}")
        if api_key_variable is not None and not os.environ.get(api_key_variable):
            raise UsageError(
                f"the environment variable {api_key_variable} must hold the server's key, but is not set; export it"
            )
        self.url, self.pace, self.num_replies = url.rstrip("/"), pace, 0
        self._key_variable, self._timeout_s = api_key_variable, timeout_s
        self._num_attempts, self._first_wait_s = num_attempts, first_wait_s
        self._pool = _connections(self.url, num_connections, float(timeout_s))

    def send(self, path: str, data: bytes | None) -> bytes:
        """POST `data` as JSON to the path behind `url`; None: GET it. The reply of status 200.

        Raises Unanswered, or UsageError where no retry and no other question would help.
        """
        url, headers = self.url + path, {"Content-Type": "application/json"}
        if self._key_variable is not None:
            headers["Authorization"] = f"Bearer {os.environ[self._key_variable]}"
        method = "GET" if data is None else "POST"
        try:
            # Redirects are not followed: they would take the key along.
            reply = self._pool.request(method, url, body=data, headers=headers, redirect=False, retries=False)
        except urllib3.exceptions.ReadTimeoutError as error:
            raise Unanswered(f"no answer within {self._timeout_s} s", may_pass=True) from error
        except urllib3.exceptions.HTTPError as error:
            raise Unanswered(f"connection lost: {error}", may_pass=True, is_lost=True) from error
        self.num_replies += 1
        if reply.status != 200:
            raise self._refused(url, reply.status, reply.data, reply.headers)
        return reply.data

    def insist(self, attempt: Callable[[], Rest], data: bytes) -> Rest:
        """`attempt()`, again while what it meets may pass, with waits that grow; raises the last Unanswered.

        `data`: the request, from which jitter is drawn.
        """
        draw = np.array([stable_hash(data)])
        for number in count(1):
            try:
                return attempt()
            except Unanswered as problem:
                if problem.retry_after_s:
                    self.pace.hold(min(problem.retry_after_s, _MAX_WAIT_S))
                if not problem.may_pass or number >= self._num_attempts:
                    raise
                # Jitter between half and all of the delay: requests that failed together do not retry together.
                wait = self._first_wait_s * 2 ** (number - 1) * (1 + float(uniform(draw, number)[0])) / 2
                self.pace.sleep(min(wait, _MAX_WAIT_S))
        raise AssertionError("the last attempt returns or raises")

    def _refused(self, url: str, status: int, data: bytes, headers: Mapping[str, str]) -> Exception:
        said = " ".join(data[:2000].decode(errors="replace").split())[:300]
        if self._key_variable is not None:
            said = said.replace(os.environ[self._key_variable], "(key)")
        if status in _HOPELESS:
            return UsageError(
                f"{url} answers {status}: {_HOPELESS[status]}; check url, model and api_key_variable; "
                f"the server says: {said}"
            )
        if 300 <= status < 400:
            return UsageError(
                f"{url} answers {status}: it is at {headers.get('Location', 'another address')}; give that "
                "server's address as url"
            )
        return Unanswered(f"status {status}: {said}", status in _RETRIED, _seconds(headers.get("Retry-After")))


def _connections(url: str, num_connections: int, timeout_s: float) -> urllib3.PoolManager:
    """Kept connections, through the proxy that the environment names, if any."""
    parts = urllib3.util.parse_url(url)
    timeout = urllib3.Timeout(timeout_s)
    proxy = getproxies().get(str(parts.scheme))
    if proxy is None or proxy_bypass(str(parts.host)):
        return urllib3.PoolManager(num_pools=1, maxsize=num_connections, timeout=timeout)
    login = urllib3.util.parse_url(proxy).auth
    headers = urllib3.util.make_headers(proxy_basic_auth=login) if login else None
    return urllib3.ProxyManager(proxy, proxy_headers=headers, num_pools=1, maxsize=num_connections, timeout=timeout)


def _seconds(header: str | None) -> float:
    """Retry-After, seconds or a date, in seconds; 0 where it is neither."""
    if header is None:
        return 0.0
    if header.strip().isdecimal():
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return 0.0
