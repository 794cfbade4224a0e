"""A ChatServer against a small server of this process that can be made to misbehave."""

import base64
import io
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from capkit.errors import UsageError
from capkit.llm.base import ChatModel, Picture, Question
from capkit.llm.chat_server import ChatServer

KEY = "sk-secret-4711"


def reply(text, reason="stop"):
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": reason}]})


class Handler(BaseHTTPRequestHandler):
    """Answers with the prompt in capitals, unless `server.plan` has something else for that prompt's next request."""

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        content = body["messages"][0]["content"]
        prompt = content if isinstance(content, str) else content[-1]["text"]
        with server.lock:
            server.requests.append({"path": self.path, "key": self.headers.get("Authorization"), "body": body})
            server.running += 1
            server.most_running = max(server.most_running, server.running)
            planned = server.plan.get(prompt, [])
            status, headers, text, delay = planned.pop(0) if planned else (200, {}, reply(prompt.upper()), server.delay)
        time.sleep(delay)
        with server.lock:
            server.running -= 1
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    found = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.lock, found.requests, found.plan = threading.Lock(), [], {}
    found.running = found.most_running = 0
    found.delay = 0.0
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield found
    found.shutdown()
    thread.join()
    found.server_close()


def client(server, **settings):
    settings = {"first_wait_s": 0.01, "timeout_s": 5.0, **settings}
    return ChatServer(f"http://127.0.0.1:{server.server_address[1]}/v1", "tiny", **settings)


def status(code, headers=None, text="sorry"):
    return (code, headers or {}, text, 0.0)


def asked(model, *prompts, **more):
    return model.ask([Question(prompt, **more) for prompt in prompts])


def test_it_is_a_model_like_any_other(server):
    assert isinstance(client(server), ChatModel)


def test_answers_come_in_the_order_of_the_prompts(server):
    server.plan = {"a": [(200, {}, reply("slow"), 0.2)]}
    answers = asked(client(server), "a", "b", "c")
    assert [answer.text for answer in answers] == ["slow", "B", "C"]
    sent = server.requests[0]
    assert sent["path"] == "/v1/chat/completions"
    assert sent["body"].items() >= {"model": "tiny", "temperature": 0.0, "max_tokens": 512}.items()
    assert sent["key"] is None


def test_pictures_arrive_with_every_pixel(server):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    (answer,) = asked(client(server), "what is it", pictures=(Picture(pixels),))
    assert answer.text == "WHAT IS IT"
    url = server.requests[0]["body"]["messages"][0]["content"][0]["image_url"]["url"]
    head, _, data = url.partition(",")
    assert head == "data:image/png;base64"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), pixels)


@pytest.mark.parametrize("code", [429, 500, 503])
def test_errors_that_pass_are_tried_again(server, code):
    server.plan = {"a": [status(code), status(code)]}
    (answer,) = asked(client(server), "a")
    assert answer.text == "A" and len(server.requests) == 3


def test_errors_that_stay_are_a_failure_of_that_question_alone(server):
    server.plan = {"a": [status(500, text="out of memory")] * 9}
    answers = asked(client(server, num_attempts=3), "a", "b")
    assert answers[0].text is None and answers[0].failure == "status 500: out of memory"
    assert answers[1].text == "B"
    assert sum(r["body"]["messages"][0]["content"] == "a" for r in server.requests) == 3


def test_a_question_that_the_server_will_never_take_is_asked_once(server):
    server.plan = {"a": [status(400, text="too long")]}
    (answer,) = asked(client(server), "a")
    assert answer.failure == "status 400: too long" and len(server.requests) == 1


def test_the_wait_that_a_rate_limit_names_is_kept(server):
    server.plan = {"a": [status(429, {"Retry-After": "1"})]}
    start = time.monotonic()
    (answer,) = asked(client(server), "a")
    assert answer.text == "A" and time.monotonic() - start >= 1.0


def test_waits_double(server):
    server.plan = {"a": [status(503)] * 3}
    start = time.monotonic()
    asked(client(server, first_wait_s=0.1), "a")
    assert 0.35 <= time.monotonic() - start < 1.5  # half to all of 0.1 + 0.2 + 0.4


def test_a_slow_answer_is_asked_again_and_then_given_up(server):
    server.plan = {"a": [(200, {}, reply("late"), 0.6)], "b": [(200, {}, reply("late"), 0.6)] * 2}
    answers = asked(client(server, timeout_s=0.3, num_attempts=2), "a", "b")
    assert answers[0].text == "A"
    assert answers[1].text is None and "0.3 s" in answers[1].failure


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("not json", "malformed"),
        ("{}", "malformed"),
        ('{"choices": []}', "malformed"),
        ('{"choices": [null]}', "malformed"),
        (reply("half a sen", "length"), "max_tokens"),
        (reply(None, "content_filter"), "content_filter"),
    ],
)
def test_a_reply_without_a_whole_answer_is_a_failure_with_its_reason(server, text, reason):
    server.plan = {"a": [(200, {}, text, 0.0)]}
    (answer,) = asked(client(server), "a")
    assert answer.text is None and reason in answer.failure


def test_no_more_requests_run_at_a_time_than_were_allowed(server):
    server.delay = 0.05
    asked(client(server, num_connections=3), *(f"q{i}" for i in range(12)))
    assert server.most_running == 3


def test_a_server_that_is_not_there_stops_the_run(server):
    gone = ChatServer("http://127.0.0.1:9/v1", "tiny", first_wait_s=0.01, num_attempts=2)
    with pytest.raises(UsageError, match=r"no connection to http://127\.0\.0\.1:9.*start the server"):
        asked(gone, "a", "b")


@pytest.mark.parametrize("code", [401, 403, 404])
def test_a_refused_key_or_model_stops_the_run(server, code):
    server.plan = {"a": [status(code, text="no such model")]}
    with pytest.raises(UsageError, match=f"{code}.*no such model"):
        asked(client(server), "a")
    assert len(server.requests) == 1


def test_the_key_comes_from_the_environment_and_goes_nowhere_else(server, monkeypatch):
    monkeypatch.setenv("SOME_KEY", KEY)
    server.plan = {
        "a": [status(400, text=f"bad request with key {KEY}")],
        "b": [status(401, text=f"wrong key {KEY}")],
    }
    model = client(server, api_key_variable="SOME_KEY")
    (answer,) = asked(model, "a")
    assert server.requests[0]["key"] == f"Bearer {KEY}"
    with pytest.raises(UsageError) as refused:
        asked(model, "b")
    for text in (answer.failure, str(refused.value), repr(vars(model)), json.dumps(model.about())):
        assert "(key)" in text or "key " not in text
        assert KEY not in text


def test_the_key_does_not_follow_a_redirect(server, monkeypatch):
    monkeypatch.setenv("SOME_KEY", KEY)
    caught = []

    class Other(BaseHTTPRequestHandler):
        def do_GET(self):
            caught.append(self.headers.get("Authorization"))
            self.send_response(500)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    other = ThreadingHTTPServer(("127.0.0.1", 0), Other)
    thread = threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    server.plan = {"a": [status(302, {"Location": f"http://127.0.0.1:{other.server_address[1]}/"})] * 2}
    asked(client(server, api_key_variable="SOME_KEY", num_attempts=1), "a")
    other.shutdown()
    thread.join()
    other.server_close()
    assert caught == [None]


def test_a_key_that_is_not_set_is_told_before_anything_runs(server, monkeypatch):
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(UsageError, match="SOME_KEY must hold"):
        client(server, api_key_variable="SOME_KEY")


@pytest.mark.parametrize(
    "settings", [{"max_tokens": 0}, {"num_attempts": 0}, {"timeout_s": 0.0}, {"temperature": -1.0}]
)
def test_settings_that_cannot_work_are_refused(server, settings):
    with pytest.raises(UsageError, match="expected"):
        client(server, **settings)


def test_samples_are_asked_with_seeds_of_their_own(server):
    model = client(server, temperature=0.7)
    for number in (0, 3):
        assert asked(model, "hello", sample=number)[0].text == "HELLO"
    assert [request["body"]["seed"] for request in server.requests] == [0, 3]
    assert model.draws and not client(server).draws
    asked(client(server), "hello")
    assert "seed" not in server.requests[-1]["body"]


def test_a_system_message_comes_first(server):
    asked(client(server), "hello", system="Be brief.")
    assert server.requests[0]["body"]["messages"] == [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"},
    ]  # fmt: skip


def test_an_address_that_is_none_is_refused():
    with pytest.raises(UsageError, match="url"):
        ChatServer("localhost:8000", "tiny")


def test_the_cache_knows_the_model_and_the_settings_and_not_the_address(server):
    here, moved = client(server), ChatServer("http://elsewhere/v1", "tiny")
    assert here.about() == moved.about()
    assert client(server, temperature=1.0).about() != here.about() != client(server, revision="2").about()
