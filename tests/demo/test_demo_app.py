import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest

pytest.importorskip("starlette")

from demo_server import png, served
from starlette.testclient import TestClient

from capkit.demo.access import TOKEN_VARIABLE, Door, is_loopback, token_for
from capkit.demo.answers import Answer, Demo, Shown, Word, Written
from capkit.demo.app import BODY, demo_app
from capkit.demo.serving import address_of, listening
from capkit.errors import UsageError

HEADERS = {"content-type": BODY}


class Answering(Demo):
    """One caption, and what it was asked."""

    def __init__(self, text="a dog", wait=None):
        self.shown, self.scorers = [], {}
        self.text, self.wait, self.asked = text, wait, []
        self.at_once = self.most_at_once = 0

    def answer(self, picture, asked):
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        if self.wait:
            self.wait.wait(10)
        self.asked.append((picture, asked))
        self.at_once -= 1
        word = Word(self.text, -0.5, np.full((2, 2), 0.25))
        written = Written("greedy", self.text, [word], -1.0, None, 2, {"length": None, "clip_score": 0.25})
        return [Answer("a", np.zeros((8, 8, 3), np.uint8), [written], self.text)]


def client(demo=None, token=None, host="127.0.0.1", address="http://127.0.0.1:7860", **limits):
    return TestClient(demo_app(demo or Answering(), Door(host, 7860, token), **limits), base_url=address)


def ask(of, picture=b"x", **settings):
    return of.post("/caption", content=picture, params=settings, headers=HEADERS)


def test_a_picture_is_answered_with_captions_and_numbers(captioner):
    of = client(Demo([Shown("my run", captioner())]))
    page = of.get("/").text
    assert "<title>capkit demo: my run</title>" in page and 'value="3"' in page
    answer = ask(of, png(), samples=1, text="a red star")
    assert answer.status_code == 200 and answer.text.count('class="written"') == 4
    assert "where it looked at: star" in answer.text and "log-probability <b>-" in answer.text


def test_texts_of_captions_names_and_scorers_are_escaped():
    evil = "<img src=x onerror=alert(1)>"
    answer = ask(client(Answering(evil))).text
    assert "<img src=x" not in answer and answer.count("&lt;img src=x onerror=alert(1)&gt;") == 4
    assert "no score" in answer and "0.250" in answer and "words that it does not know: <b>2</b>" in answer
    demo = Answering()
    demo.shown = [type("One", (), {"name": evil})]
    page = client(demo).get("/").text
    assert evil not in page and "&lt;img" in page


def test_settings_reach_the_demo():
    demo = Answering()
    assert ask(client(demo), b"abc", samples=2, temperature=0.5, seed=7, attention=0, text="ä & b").status_code == 200
    ((picture, asked),) = demo.asked
    assert picture == b"abc"
    assert (asked.samples, asked.temperature, asked.seed, asked.attention, asked.text) == (2, 0.5, 7, False, "ä & b")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"samples": 9}, "from 0 to 8"),
        ({"samples": "many"}, "expected a number, got 'many'"),
        ({"temperature": "nan"}, "from 0.01 to 10"),
        ({"path": "/etc/passwd"}, "expected one of samples, temperature, seed, attention, text"),
    ],
)
def test_settings_that_are_none_are_refused(settings, told):
    demo = Answering()
    answer = ask(client(demo), **settings)
    assert answer.status_code == 400 and told in answer.text and not demo.asked


def test_a_path_is_no_picture_and_is_not_opened(captioner, tmp_path):
    file = tmp_path / "picture.png"
    file.write_bytes(png())
    of = client(Demo([Shown("a", captioner())]))
    for body in (str(file).encode(), f"file://{file}".encode(), b"http://127.0.0.1/x.png"):
        answer = ask(of, body)
        assert answer.status_code == 422 and "no picture that can be read" in answer.text
    assert ask(of, b"").status_code == 422


def test_a_body_of_another_type_which_other_sites_could_send_is_refused():
    demo = Answering()
    for kind in ("text/plain", "multipart/form-data", "application/x-www-form-urlencoded", None):
        headers = {} if kind is None else {"content-type": kind}
        assert client(demo).post("/caption", content=b"x", headers=headers).status_code == 415
    assert not demo.asked


def test_a_picture_beyond_the_limit_is_refused_with_and_without_a_length():
    demo = Answering()
    of = client(demo, max_megabytes=0.001)
    assert ask(of, b"x" * 1000).status_code == 200
    answer = ask(of, b"x" * 1001)
    assert answer.status_code == 413 and "at most 0.001 MB" in answer.text
    assert ask(of, iter([b"x" * 600, b"x" * 600])).status_code == 413  # chunks, whose length nobody said
    assert len(demo.asked) == 1


def test_one_at_a_time_is_answered_some_wait_and_the_rest_is_told_to_come_back():
    demo = Answering(wait=threading.Event())
    with client(demo, max_waiting=2) as of, ThreadPoolExecutor(5) as threads:
        asked = [threads.submit(ask, of) for _ in range(5)]
        while sum(one.done() for one in asked) < 2:
            pass
        demo.wait.set()
        statuses = sorted(one.result().status_code for one in asked)
        assert statuses == [200, 200, 200, 503, 503] and demo.most_at_once == 1
        assert ask(of).status_code == 200  # there is room again


def test_who_has_gone_is_not_captioned(monkeypatch):
    async def gone(request):
        return True

    monkeypatch.setattr("starlette.requests.Request.is_disconnected", gone)
    demo = Answering()
    assert ask(client(demo)).status_code == 499 and not demo.asked


def connected(address, path="/", method="GET", size=None):
    """A connection on which a request was begun."""
    host, port = address.removeprefix("http://").rstrip("/").split(":")
    line = socket.create_connection((host, int(port)), timeout=10)
    length = f"content-type: {BODY}\r\ncontent-length: {size}\r\n" if size is not None else ""
    line.sendall(f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{length}\r\n".encode())
    return line


def status(line):
    return int(line.recv(1 << 16).split()[1])


def until(done, seconds=10):
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_who_leaves_while_waiting_gives_the_place_up():
    demo = Answering(wait=threading.Event())
    waiting = []
    with (
        served(lambda port: demo_app(demo, Door("127.0.0.1", port, None), max_waiting=1)) as address,
        ExitStack() as lines,
    ):

        def ask_by_line():
            line = lines.enter_context(connected(address, "/caption", "POST", 1))
            line.sendall(b"x")
            return line

        first = ask_by_line()
        until(lambda: demo.at_once)
        for _ in range(3):  # each waits, and leaves before its turn
            line = ask_by_line()
            time.sleep(0.2)
            assert status(ask_by_line()) == 503
            line.close()
            time.sleep(0.2)
        waiting.append(ask_by_line())
        time.sleep(0.2)
        demo.wait.set()
        assert [status(line) for line in (first, *waiting)] == [200, 200] and len(demo.asked) == 2


def test_connections_without_a_request_are_closed_and_those_with_one_are_not(monkeypatch):
    monkeypatch.setattr("capkit.demo.serving.HEADER_S", 0.5)
    demo = Answering(wait=threading.Event())
    with (
        served(lambda port: demo_app(demo, Door("127.0.0.1", port, None))) as address,
        ExitStack() as lines,
    ):
        host, port = address.removeprefix("http://").rstrip("/").split(":")
        silent = lines.enter_context(socket.create_connection((host, int(port)), timeout=10))
        slow = lines.enter_context(socket.create_connection((host, int(port)), timeout=10))
        again = lines.enter_context(connected(address))
        asking = lines.enter_context(connected(address, "/caption", "POST", 1))
        asking.sendall(b"x")
        assert status(again) == 200
        begun = time.monotonic()
        closed = False
        while not closed and time.monotonic() < begun + 5:  # a byte now and then is no request, first or second
            try:
                slow.sendall(b"G")
                again.sendall(b"G")
                slow.settimeout(0.1)
                closed = slow.recv(100) == b""
            except TimeoutError:
                pass
            except OSError:
                closed = True
        assert closed and silent.recv(100) == b""
        again.settimeout(5)
        while again.recv(1 << 16):  # the rest of the page, then the end
            pass
        time.sleep(0.3)
        demo.wait.set()
        assert status(asking) == 200, "longer than the limit, but a request"


def test_a_failure_is_told_without_its_reason_which_the_terminal_shows():
    class Fails(Answering):
        def answer(self, picture, asked):
            raise RuntimeError("/home/somebody/secret")

    of = TestClient(
        demo_app(Fails(), Door("127.0.0.1", 7860, None)), "http://127.0.0.1:7860", raise_server_exceptions=False
    )
    answer = ask(of)
    assert answer.status_code == 500 and "terminal" in answer.text and "secret" not in answer.text


def test_another_host_name_is_refused_on_loopback():
    for address in ("http://127.0.0.1:7860", "http://localhost:7860", "http://[::1]:7860"):
        assert client(address=address).get("/").status_code == 200
    answer = client(address="http://rebound.example").get("/")
    assert answer.status_code == 421 and "capkit demo" not in answer.text.replace("`capkit demo` printed", "")
    assert ask(client(address="http://127.0.0.1.example")).status_code == 421
    of = client()
    for name in ("localhost@rebound.example", "[rebound", "localhost:rebound.example", "re bound", ""):
        assert of.get("/", headers={"host": name}).status_code == 421  # starlette takes its own address for these


def test_elsewhere_nothing_is_answered_without_the_token():
    demo, token = Answering(), "a-long-secret-token"
    of = client(demo, token, "0.0.0.0", "http://machine.example:7860")
    for refused in (
        of.get("/"),
        of.get("/?token=wrong"),
        of.get("/?token="),
        ask(of),
        ask(of, token="wrong-secret-token"),
    ):
        assert refused.status_code == 401 and token not in refused.text
    assert of.get("/", headers={"authorization": "Bearer other"}).status_code == 401
    assert not demo.asked
    assert of.post("/caption", content=b"x", headers={**HEADERS, "authorization": f"Bearer {token}"}).status_code == 200
    page = of.get(f"/?token={token}")
    cookie = page.headers["set-cookie"].lower()
    assert page.status_code == 200 and "httponly" in cookie and "samesite=strict" in cookie
    assert token not in page.text
    assert ask(of).status_code == 200  # the browser keeps the cookie


def test_loopback_needs_no_token_unless_one_is_given(monkeypatch):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert all(map(is_loopback, ("127.0.0.1", "127.3.2.1", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.2", "machine", "localhost.example")))
    assert token_for("127.0.0.1") is None
    first, second = token_for("0.0.0.0"), token_for("0.0.0.0")
    assert len(first) >= 32 and first != second
    monkeypatch.setenv(TOKEN_VARIABLE, "a-long-secret-token")
    assert token_for("127.0.0.1") == token_for("::") == "a-long-secret-token"
    for weak in ("", "short", "a long secret with spaces"):
        monkeypatch.setenv(TOKEN_VARIABLE, weak)
        with pytest.raises(UsageError, match="16 letters and digits or more"):
            token_for("127.0.0.1")


def test_an_address_is_taken_from_the_start_on_and_one_of_all_is_told_by_the_machines_name():
    with listening("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(UsageError, match="give another port=N"):
            listening("127.0.0.1", port)
        assert address_of(first, "127.0.0.1", None) == f"http://127.0.0.1:{port}/"
        assert address_of(first, "::1", None) == f"http://[::1]:{port}/"
        for every in ("0.0.0.0", "::"):
            assert address_of(first, every, "abc") == f"http://{socket.gethostname()}:{port}/?token=abc"


def test_pages_run_their_own_scripts_alone_and_are_kept_nowhere():
    for answer in (client().get("/"), ask(client()), client(address="http://other.example").get("/")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "connect-src 'self'" in policy
        assert "unsafe-inline" not in policy.split("style-src")[0] and "http" not in policy
        assert answer.headers["cache-control"] == "no-store" and answer.headers["referrer-policy"] == "no-referrer"
    page = client().get("/").text
    assert "src=" not in page.replace("shown.src", "").replace("large.src", "") and "http:" not in page
    assert client().get("/../../etc/passwd").status_code == 404
    assert client(address="http://other.example").get("/caption/", follow_redirects=False).status_code == 404
