"""The demo's page, and the one address to which a picture is sent.

A picture comes as the body of a request, never as a path or an address, and is decoded by `load_rgb`. Nothing is kept.
"""

import base64
import hashlib
import math
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from capkit.data.images import BadImage
from capkit.demo.access import Door
from capkit.demo.answers import LONGEST_TEXT, MOST_SAMPLES, Asked, Demo
from capkit.errors import UsageError
from capkit.reports.shell import page_html
from capkit.reports.word_attention import overlay, png_url

BODY = "application/octet-stream"  # browsers ask before another site's page may send this
T = TypeVar("T")
UPLOAD_S = 60.0  # longest time that a picture may take to come
_PAGES = Environment(
    loader=PackageLoader("capkit.demo"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


class Refused(Exception):
    """A request that is not answered: its status, and what to tell the visitor."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Waiting:
    """Requests are answered one at a time; so many may wait, and the next is refused. Who leaves gives the place up."""

    def __init__(self, most: int) -> None:
        self.most, self.number = most, 0
        self._turn = anyio.Lock()

    async def __aenter__(self) -> None:
        if self.number > self.most:
            raise Refused(503, f"{self.most} pictures wait already; try again in a moment")
        self.number += 1

    async def __aexit__(self, *_: object) -> None:
        self.number -= 1

    async def run(self, work: Callable[[], T], request: Request) -> T:
        """What `work` gives, in a thread of its own, at its turn. Raises ClientDisconnect if the visitor leaves."""
        has_turn = False
        async with anyio.create_task_group() as waiting:
            waiting.start_soon(_cancel_once_gone, request, waiting.cancel_scope)
            await self._turn.acquire()
            has_turn = True
            waiting.cancel_scope.cancel()  # nobody watches for the visitor any more
        try:
            if not has_turn or await request.is_disconnected():
                raise ClientDisconnect
            return await anyio.to_thread.run_sync(work)
        finally:
            if has_turn:
                self._turn.release()


async def _cancel_once_gone(request: Request, scope: anyio.CancelScope) -> None:
    """Cancel what waits in `scope` when the visitor has closed the page. The request's body was read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def demo_app(demo: Demo, door: Door, max_megabytes: float = 20.0, max_waiting: int = 8) -> Starlette:
    """The web application around `demo`: its page at /, and POST /caption with a picture as body.

    Args:
        door: who may ask.
        max_megabytes: size of a picture's file, in 10^6 bytes.
        max_waiting: requests that may wait for the one that is answered.
    """
    page = _page(demo, max_megabytes)
    policy = _policy(page)
    waiting = Waiting(max_waiting)

    async def show(request: Request) -> Response:
        response = HTMLResponse(page)
        door.remember(response)
        return response

    async def caption(request: Request) -> Response:
        if request.headers.get("content-type") != BODY:
            raise Refused(415, f"expected a picture as the body, with content-type: {BODY}")
        asked = _asked(request)
        template = _PAGES.get_template("answer.html")
        async with waiting:
            picture = await _body(request, int(max_megabytes * 1e6))

            def work() -> str:
                answers = demo.answer(picture, asked)
                return template.render(answers=answers, heat=_heat, nats=_nats, score=_score, share=math.exp)

            try:
                return HTMLResponse(await waiting.run(work, request))
            except BadImage as error:
                raise Refused(422, f"this is no picture that can be read: {error}") from error

    def guarded(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            response: Response
            try:
                if refusal := door.refusal(request):
                    raise Refused(*refusal)
                response = await handler(request)
            except Refused as error:
                response = PlainTextResponse(str(error), error.status)
            except UsageError as error:
                response = PlainTextResponse(str(error), 400)
            except ClientDisconnect:
                response = PlainTextResponse("", 499)  # nobody reads it
            for name, value in policy.items():
                response.headers[name] = value
            return response

        return answer

    async def failed(request: Request, error: Exception) -> Response:
        return PlainTextResponse("The demo could not do this; the terminal in which it runs says why.", 500)

    app = Starlette(
        exception_handlers={Exception: failed},
        routes=[
            Route("/", guarded(show), methods=["GET"]),
            Route("/caption", guarded(caption), methods=["POST"]),
        ],
    )
    app.router.redirect_slashes = False  # to an address that the request names
    return app


def _page(demo: Demo, max_megabytes: float) -> str:
    template = _PAGES.get_template("demo.html")
    names = [one.name for one in demo.shown]
    body = template.render(
        names=names,
        scorers=list(demo.scorers),
        most_samples=MOST_SAMPLES,
        longest_text=LONGEST_TEXT,
        max_bytes=int(max_megabytes * 1e6),
        max_megabytes=f"{max_megabytes:g}",
        usual=Asked(),
    )
    style = _PAGES.get_template("demo.css").render()
    return page_html(f"capkit demo: {' and '.join(names)}", Markup(body), style)


def _policy(page: str) -> dict[str, str]:
    """Headers that let the page run its own scripts, talk to this server, and nothing else."""
    scripts = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(part.split('</script>')[0].encode()).digest()).decode()}'"
        for part in page.split("<script>")[1:]
    )
    return {
        "Content-Security-Policy": (
            f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data: blob:; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
        ),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
    }


def _asked(request: Request) -> Asked:
    """The settings in the address. Raises UsageError for names that there are not, and values that are none."""
    kinds: dict[str, Callable[[str], Any]] = {
        "samples": int, "temperature": float, "seed": int, "attention": _flag, "text": str, "prompt": str,
    }  # fmt: skip
    found = {}
    for name, value in request.query_params.items():
        if name == "token":
            continue
        if name not in kinds:
            raise UsageError(f"{name}: expected one of {', '.join(kinds)}")
        try:
            found[name] = kinds[name](value)
        except ValueError as error:
            raise UsageError(f"{name}: expected a number, got {value[:40]!r}") from error
    return Asked(**found)


def _flag(text: str) -> bool:
    return bool(int(text))


async def _body(request: Request, most: int) -> bytes:
    """The picture's bytes. Raises Refused for more than `most`, without reading on, and for one that takes too long."""
    told = request.headers.get("content-length", "")
    too_large = Refused(413, f"expected a picture of at most {most / 1e6:g} MB")
    if told.isdigit() and int(told) > most:
        raise too_large
    parts, size = [], 0
    try:
        with anyio.fail_after(UPLOAD_S):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise too_large
                parts.append(part)
    except TimeoutError as error:
        raise Refused(408, f"expected the picture within {UPLOAD_S:g} seconds") from error
    if not size:
        raise Refused(422, "expected a picture, got nothing")
    return b"".join(parts)


def _heat(seen: np.ndarray, shares: np.ndarray) -> str:
    """Where a captioner looked, laid on the picture as it sees it."""
    return png_url(overlay(seen, shares))


def _nats(value: float) -> str:
    return f"{value:z.2f}"


def _score(value: float | None) -> str:
    return "no score" if value is None else f"{value:z.3f}"
