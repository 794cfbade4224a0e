"""A ChatServer against a server of this process that can be made to misbehave."""

import base64
import io
import json
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial

import numpy as np
import pytest
from PIL import Image

from capkit.errors import UsageError
from capkit.llm.base import ChatModel, ConcurrentModel, Picture, Question
from capkit.llm.chat_server import ChatServer
from capkit.llm.cost import guessed_tokens
from capkit.llm.pace import Pace
from capkit.testing.stand_in_server import Reply, StandInServer, chat_reply

KEY = "sk-secret-4711"
SCHEMA = {"type": "object", "properties": {"caption": {"type": "string"}}, "required": ["caption"]}


class Clock:
    """Time that passes only where somebody sleeps."""

    def __init__(self):
        self.now, self.slept = 0.0, []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.slept.append(seconds)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with StandInServer() as found:
        yield found


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr("capkit.llm.chat_server.Pace", partial(Pace, clock=found, sleep=found.sleep))
    return found


def client(server, **settings):
    return ChatServer(server.url, "tiny", **{"first_wait_s": 0.01, "timeout_s": 30.0, **settings})


def ask(model, *texts):
    return model.ask([Question(text) for text in texts])


def said(text, **usual):
    return Reply(chat_reply(text, **usual))


def test_it_is_a_chat_model_that_works_on_many_questions(server):
    assert isinstance(client(server), ChatModel) and isinstance(client(server), ConcurrentModel)


def test_answers_come_in_the_order_of_the_questions_with_their_tokens(server):
    server.plan = {"a": [Reply(chat_reply("A"), delay_s=0.2)]}
    answers = client(server).ask([Question("a", system="be short"), Question("b"), Question("c")])
    assert [answer.text for answer in answers] == ["A", "B", "C"]
    sent = {request["body"]["messages"][-1]["content"]: request for request in server.requests}
    assert sent["a"]["path"] == "/v1/chat/completions" and sent["a"]["key"] is None
    assert sent["a"]["body"].items() >= {"model": "tiny", "temperature": 0.0, "max_tokens": 512}.items()
    assert sent["a"]["body"]["messages"][0] == {"role": "system", "content": "be short"}
    assert len(sent["b"]["body"]["messages"]) == 1
    server.plan = {"x": [said("y", tokens=(11, 5))], "z": [said("y", tokens=None)]}
    counted, uncounted = ask(client(server), "x", "z")
    assert (counted.tokens_in, counted.tokens_out) == (11, 5)
    assert (uncounted.text, uncounted.tokens_in, uncounted.tokens_out) == ("y", None, None)


def test_a_late_answer_holds_no_other_back(server):
    """Every question but the first is answered while the first still waits: there is no barrier of a batch."""
    all_asked = threading.Event()
    asked = []

    def answer(prompt):
        asked.append(prompt)
        if len(asked) == 40:
            all_asked.set()
        if prompt == "q0":
            assert all_asked.wait(60)
        return prompt.upper()

    server.answer = answer
    model = client(server, num_connections=4)
    futures = [model.open(Question(f"q{i}")) for i in range(40)]
    assert [future.result(60).text for future in futures] == [f"Q{i}" for i in range(40)]


def test_pictures_arrive_in_order_with_every_pixel(server):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    question = Question("what is it", pictures=tuple(Picture(one) for one in pixels))
    assert client(server).ask([question])[0].text == "WHAT IS IT"
    parts = server.requests[0]["body"]["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["image_url", "image_url", "text"]
    for one, part in zip(pixels, parts[:2], strict=True):
        head, _, data = part["image_url"]["url"].partition(",")
        assert head == "data:image/png;base64"
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), one)


@pytest.mark.parametrize("code", [429, 500, 503])
def test_errors_that_pass_are_tried_again(server, code):
    server.plan = {"a": [Reply("sorry", code)] * 2}
    assert ask(client(server), "a")[0].text == "A" and len(server.requests) == 3


@pytest.mark.parametrize("ending", ["drop", "cut"])
def test_a_reply_that_ends_in_the_middle_is_asked_for_again(server, ending):
    server.plan = {"a": [Reply(chat_reply("WRONG"), ending=ending)]}
    assert ask(client(server), "a")[0].text == "A" and len(server.requests) == 2


def test_errors_that_stay_are_a_failure_of_that_question_alone(server):
    server.plan = {"a": [Reply("out of memory", 500)] * 9}
    bad, good = ask(client(server, num_attempts=3), "a", "b")
    assert bad.text is None and bad.failure == "status 500: out of memory"
    assert good.text == "B" and server.prompts().count("a") == 3


def test_a_question_that_the_server_will_never_take_is_asked_once(server):
    server.plan = {"a": [Reply("too long", 400)]}
    assert ask(client(server), "a")[0].failure == "status 400: too long" and len(server.requests) == 1


def test_waits_double_and_end_at_a_minute(server, clock):
    server.plan = {"a": [Reply("busy", 503)] * 9}
    ask(client(server, first_wait_s=4.0, num_attempts=8), "a")
    assert len(clock.slept) == 7
    for slept, whole in zip(clock.slept, [4, 8, 16, 32, 64, 128, 256], strict=True):
        assert min(whole / 2, 60) <= slept <= min(whole, 60)


def test_a_wait_that_the_server_names_holds_every_connection(server, clock):
    """The question that met it is given up at once; it is the next one, which nobody refused, that waits."""
    server.plan = {"a": [Reply("busy", 429, {"Retry-After": "30"})]}
    model = client(server, num_attempts=1)
    assert ask(model, "a")[0].failure == "status 429: busy" and clock.slept == []
    assert ask(model, "b")[0].text == "B" and clock.slept == [30.0]


def test_a_wait_may_be_a_date(server, clock):
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=50), usegmt=True)
    server.plan = {"a": [Reply("busy", 503, {"Retry-After": soon})], "b": [Reply("busy", 503, {"Retry-After": "soon"})]}
    model = client(server, num_attempts=1)
    ask(model, "a")
    ask(model, "x")
    assert 20 < sum(clock.slept) <= 50
    clock.slept.clear()
    clock.now = 1000.0
    ask(model, "b")
    ask(model, "y")
    assert clock.slept == []


def test_a_server_that_hangs_is_given_up(server):
    server.plan = {"a": [Reply("", ending="hang")] * 2}
    bad, good = ask(client(server, timeout_s=0.3, num_attempts=2, num_connections=2), "a", "b")
    assert bad.text is None and "no answer within 0.3 s" in bad.failure
    assert good.text == "B" and server.prompts().count("a") == 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("not json", "malformed"),
        ("{}", "malformed"),
        ('{"choices": []}', "malformed"),
        ('{"choices": [null]}', "malformed"),
        ('[{"choices": []}]', "malformed"),
        (chat_reply("half a sen", "length"), "max_tokens"),
        (chat_reply(None, "content_filter"), "content_filter"),
    ],
)
def test_a_reply_without_a_whole_answer_is_a_failure_with_its_reason(server, text, reason):
    server.plan = {"a": [Reply(text)]}
    (answer,) = ask(client(server), "a")
    assert answer.text is None and reason in answer.failure


def test_a_cut_off_answer_is_shown_and_counted(server):
    server.plan = {"a": [Reply(chat_reply("half a sen", "length", tokens=(4, 512)))]}
    (answer,) = ask(client(server), "a")
    assert (answer.said, answer.tokens_in, answer.tokens_out) == ("half a sen", 4, 512)


@pytest.mark.parametrize("text", ["<!DOCTYPE html><p>Sign in</p>", "  <html></html>"])
def test_a_web_page_from_the_start_is_the_wrong_address(server, text):
    server.plan = {"a": [Reply(text)]}
    with pytest.raises(UsageError, match=r"web page.*correct url.*/v1"):
        ask(client(server), "a")


def test_a_web_page_among_answers_is_a_failure_of_that_question(server):
    server.plan = {"b": [Reply("<html>bad gateway</html>")]}
    model = client(server)
    ask(model, "a")
    assert "web page" in ask(model, "b")[0].failure


def test_a_server_that_changes_its_model_stops_the_run(server):
    server.plan = {"b": [said("B", model="other")]}
    model = client(server)
    assert ask(model, "a")[0].text == "A"
    with pytest.raises(UsageError, match=r"answered as 'tiny' and now answers as 'other'.*exact name"):
        ask(model, "b")


def test_a_model_may_have_another_name_than_it_was_asked_by(server):
    server.plan = {"a": [said("A", model="tiny-2026-11-30")], "b": [said("B", model="tiny-2026-11-30")]}
    assert [answer.text for answer in ask(client(server), "a", "b")] == ["A", "B"]


def test_no_more_requests_run_at_a_time_than_were_allowed(server):
    server.delay_s = 0.05
    ask(client(server, num_connections=3), *(f"q{i}" for i in range(12)))
    assert server.most_running == 3


def test_connections_are_kept(server):
    model = client(server, num_connections=2)
    for _ in range(5):
        ask(model, "a", "b", "c")
    assert server.num_connections <= 2 and len(server.requests) == 15


def test_a_server_that_is_not_there_stops_the_run(server):
    gone = ChatServer("http://127.0.0.1:9/v1", "tiny", first_wait_s=0.01, num_attempts=2)
    with pytest.raises(UsageError, match=r"no connection to http://127\.0\.0\.1:9.*start the server"):
        ask(gone, "a", "b")


def test_what_waits_behind_an_error_of_all_is_not_asked(server):
    server.plan = {"a": [Reply("no such model", 404)]}
    model = client(server, num_connections=1)
    futures = [model.open(Question(text)) for text in ("a", "b", "c")]
    for future in futures[:1]:
        with pytest.raises(UsageError, match="404"):
            future.result(60)
    outcomes = [future.exception(60) for future in futures[1:]]
    assert all(isinstance(outcome, UsageError) for outcome in outcomes) and server.prompts() == ["a"]


def test_a_server_that_is_killed_and_comes_back_goes_on(server, monkeypatch):
    model = client(server, num_connections=2, num_attempts=60)
    assert ask(model, "a")[0].text == "A"
    server.plan = {"b": [Reply("", ending="hang")]}
    future = model.open(Question("b"))
    while "b" not in server.prompts():
        threading.Event().wait(0.01)
    server.stop()
    with StandInServer(port=server.port) as again:
        assert future.result(60).text == "B"
        assert again.prompts() == ["b"]


@pytest.mark.parametrize("code", [401, 403, 404])
def test_a_refused_key_or_model_stops_the_run(server, code):
    server.plan = {"a": [Reply("no such model", code)]}
    with pytest.raises(UsageError, match=f"{code}.*no such model"):
        ask(client(server), "a")
    assert len(server.requests) == 1


def test_the_key_comes_from_the_environment_and_goes_nowhere_else(server, monkeypatch):
    monkeypatch.setenv("SOME_KEY", KEY)
    server.plan = {
        "a": [Reply(f"bad request with key {KEY}", 400)],
        "b": [Reply(f"wrong key {KEY}", 401)],
    }
    model = client(server, api_key_variable="SOME_KEY")
    (answer,) = ask(model, "a")
    assert server.requests[0]["key"] == f"Bearer {KEY}"
    with pytest.raises(UsageError) as refused:
        ask(model, "b")
    for text in (answer.failure, str(refused.value), repr(vars(model)), json.dumps(model.about())):
        assert "(key)" in text or "key " not in text
        assert KEY not in text


def test_a_redirect_is_not_followed(server, monkeypatch):
    monkeypatch.setenv("SOME_KEY", KEY)
    with StandInServer() as other:
        server.plan = {"a": [Reply("", 302, {"Location": other.url})]}
        with pytest.raises(UsageError, match=f"answers 302: it is at {other.url}; give that"):
            ask(client(server, api_key_variable="SOME_KEY"), "a")
        assert other.requests == []


def test_a_proxy_of_the_environment_is_used(server, monkeypatch):
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("http_proxy", server.url.removesuffix("/v1"))
    assert ask(ChatServer("http://model.invalid/v1", "tiny"), "a")[0].text == "A"
    assert server.requests[0]["path"] == "http://model.invalid/v1/chat/completions"


def test_a_key_that_is_not_set_is_told_before_anything_runs(server, monkeypatch):
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(UsageError, match="SOME_KEY must hold"):
        client(server, api_key_variable="SOME_KEY")


@pytest.mark.parametrize(
    "settings",
    [
        {"max_tokens": 0},
        {"num_attempts": 0},
        {"timeout_s": 0.0},
        {"temperature": -1.0},
        {"top_p": 0.0},
        {"num_connections": 0},
        {"requests_per_minute": 0},
        {"price": [1.0]},
        {"price": [1.0, -1.0]},
    ],
)
def test_settings_that_cannot_work_are_refused(server, settings):
    with pytest.raises(UsageError, match="expected"):
        client(server, **settings)


def test_sampling_is_sent_with_a_seed_of_question_and_sample(server):
    model = client(server, temperature=0.7, top_p=0.9, repetition_penalty=1.1)
    questions = [Question(text, sample=sample) for text in ("hello", "there") for sample in range(3)]
    model.ask(questions)
    model.ask(questions[:1])
    bodies = [request["body"] for request in server.requests]
    assert all(body["top_p"] == 0.9 and body["repetition_penalty"] == body["repeat_penalty"] == 1.1 for body in bodies)
    seeds = {(body["messages"][0]["content"], body["seed"]) for body in bodies}
    assert len(seeds) == len({seed for _, seed in seeds}) == 6
    assert all(0 <= seed < 2**31 for _, seed in seeds)
    server.requests.clear()
    client(server, temperature=0.7, seed=1).ask(questions[:1])
    assert ("hello", server.requests[0]["body"]["seed"]) not in seeds


def test_a_greedy_model_is_sent_no_seed_and_has_one_answer_to_a_question(server):
    ask(client(server), "a")
    assert not server.requests[0]["body"].keys() & {"seed", "top_p", "repetition_penalty", "response_format"}
    with pytest.raises(UsageError, match="temperature=0; set temperature"):
        client(server).ask([Question("a", sample=1)])


def test_the_schema_of_the_reply_is_sent_where_it_is_wanted(server):
    question = Question("a", schema=SCHEMA)
    client(server).ask([question])
    client(server, structured=True).ask([question, Question("b")])
    loose, held, free = sorted(server.requests, key=lambda request: request["body"]["messages"][0]["content"])
    assert "response_format" not in loose["body"] and "response_format" not in free["body"]
    form = held["body"]["response_format"]
    assert form["type"] == "json_schema" and form["json_schema"]["schema"] == SCHEMA


@pytest.mark.parametrize(
    ("said", "is_whole"), [('"B"', True), ('{"a": 1}\n ', True), ('"B', False), ('{"a": 1', False), ("1", False)]
)
def test_json_that_has_ended_is_an_answer_where_only_blanks_were_cut(server, said, is_whole):
    """As llama.cpp cuts '"B"' and a line break at four tokens. A number may go on; without a schema all may."""
    for structured in (True, False):
        server.plan = {"a": [Reply(chat_reply(said, "length"))]}
        (answer,) = client(server, structured=structured).ask([Question("a", schema=SCHEMA)])
        assert answer.text == (said if structured and is_whole else None)


def test_an_address_that_is_none_is_refused():
    with pytest.raises(UsageError, match="url"):
        ChatServer("localhost:8000", "tiny")


def test_what_answers_are_kept_by_is_the_model_and_its_settings_and_not_the_address(server):
    here, moved = client(server), ChatServer("http://elsewhere/v1", "tiny", num_connections=1, price=[1, 2])
    assert here.about() == moved.about()
    others = [
        {"temperature": 1.0}, {"temperature": 1.0, "seed": 1}, {"revision": "2"}, {"top_p": 0.5}, {"max_tokens": 7},
        {"repetition_penalty": 1.2}, {"structured": True},
    ]  # fmt: skip
    abouts = [json.dumps(client(server, **settings).about()) for settings in [{}, *others]]
    assert len(set(abouts)) == len(abouts)


def test_requests_keep_their_distance(clock):
    pace = Pace(requests_per_minute=120, clock=clock, sleep=clock.sleep)
    for _ in range(4):
        pace.enter(1000)
    assert clock.slept == [0.5, 0.5, 0.5]
    clock.now += 10.0
    pace.enter(1000)
    assert clock.slept == [0.5, 0.5, 0.5]


def test_tokens_keep_their_distance_as_they_were_counted(clock):
    pace = Pace(tokens_per_minute=6000, clock=clock, sleep=clock.sleep)  # 100 a second
    pace.enter(300)
    pace.enter(300)
    assert clock.slept == [3.0]
    pace.settle(300, 100)
    pace.settle(300, 100)  # 4 s less than were expected, of 6
    pace.enter(300)
    assert clock.now == 3.0
    pace.enter(300)
    assert clock.now == 6.0


def test_limits_of_the_server_are_kept_to(server, clock):
    server.answer = lambda prompt: " ".join(["word"] * 30)
    model = client(server, tokens_per_minute=60, num_connections=1, max_tokens=30)
    ask(model, "a", "b")  # 31 tokens each, a second each
    assert clock.now == pytest.approx(31.0)
    server.answer = lambda prompt: said("word", tokens=None)  # without a count, what was expected stands
    model = client(server, tokens_per_minute=60, num_connections=1, max_tokens=30)
    start = clock.now
    ask(model, "a", "b")
    assert clock.now - start == pytest.approx(guessed_tokens(Question("a")) + 30)
    model = client(server, requests_per_minute=6, num_connections=1)
    start = clock.now
    ask(model, "a", "b", "c")
    assert clock.now - start == pytest.approx(20.0)
