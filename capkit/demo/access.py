"""Who may ask the demo: this machine alone, or whoever has the token."""

import ipaddress
import os
import re
import secrets

from starlette.requests import Request
from starlette.responses import Response

from capkit.errors import UsageError

TOKEN_VARIABLE = "CAPKIT_DEMO_TOKEN"
SHORTEST = 16  # characters of a token that is given
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:[0-9]+)?")  # of a request: a name or an address, and a port


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address. A name other than localhost may lead anywhere."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def token_for(host: str) -> str | None:
    """What a visitor must know: None on loopback, else $CAPKIT_DEMO_TOKEN, or a new one for each start.

    A token that is given is asked for on loopback too: other people may be on this machine. Raises UsageError for one
    that can be guessed.
    """
    given = os.environ.get(TOKEN_VARIABLE)
    if given is None:
        return None if is_loopback(host) else secrets.token_urlsafe(24)
    if len(given) < SHORTEST or not given.isascii() or not given.replace("-", "").replace("_", "").isalnum():
        raise UsageError(
            f"{TOKEN_VARIABLE}: expected {SHORTEST} letters and digits or more, got {len(given)} characters; "
            "unset it and each start makes one"
        )
    return given


class Door:
    """Lets requests in: by the token, in the address, a cookie or a header; and by loopback's own names.

    A page elsewhere whose name was made to lead to this machine (DNS rebinding) comes with another host name, and is
    refused. Another site's page cannot send pictures either: that takes a content type which browsers ask for first.
    """

    def __init__(self, host: str, port: int, token: str | None) -> None:
        self.token = token
        self.cookie = f"capkit_demo_{port}"
        self._hosts = {host.lower(), "localhost", "127.0.0.1", "::1"} if is_loopback(host) else None

    def refusal(self, request: Request) -> tuple[int, str] | None:
        """Status and reason for a request that may not pass."""
        if self._hosts is not None and _host_of(request) not in self._hosts:
            return 421, "expected the address that `capkit demo` printed, got another host name"
        if self.token is None or any(
            secrets.compare_digest(one.encode(), self.token.encode()) for one in _said(request, self.cookie)
        ):
            return None
        return 401, "expected the token of this demo; open the whole address that `capkit demo` printed"

    def remember(self, response: Response) -> None:
        """Keep the token in the visitor's browser, for this address alone."""
        if self.token is not None:
            response.set_cookie(self.cookie, self.token, httponly=True, samesite="strict")


def _host_of(request: Request) -> str | None:
    """The host that a request names; None where it names none. Starlette takes the server's own for a broken one."""
    found = _HOST.fullmatch(request.headers.get("host", "").lower())
    return found[1].strip("[]") if found else None


def _said(request: Request, cookie: str) -> list[str]:
    bearer = request.headers.get("authorization", "")
    return [request.query_params.get("token", ""), request.cookies.get(cookie, ""), bearer.removeprefix("Bearer ")]
