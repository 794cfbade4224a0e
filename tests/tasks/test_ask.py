"""`capkit ask` as the command line runs it, against a server of this process."""

import numpy as np
import pytest
from PIL import Image

from capkit.cli import main
from capkit.testing.stand_in_server import Reply, StandInServer, chat_reply


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.chdir(tmp_path)
    with StandInServer() as found:
        yield found


def ask(server, *words):
    return main(["ask", "text_lm=server", f"text_lm.url={server.url}", "text_lm.model=tiny", *words])


def test_a_question_is_answered_with_its_tokens_and_seconds(server, capsys):
    server.plan = {"what is = this, then?": [Reply(chat_reply("It is\nthis.", tokens=(1200, 4)))]}
    assert ask(server, "prompt=what is = this, then?", "system=be short") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["It is", "this."]
    assert lines[2].startswith("-- tiny, 1,200 tokens in, 4 tokens out, ") and lines[2].endswith(" s")
    assert server.requests[0]["body"]["messages"][0] == {"role": "system", "content": "be short"}


def test_a_picture_goes_along(server, capsys):
    Image.fromarray(np.full((4, 6, 3), 7, np.uint8)).save("photo.png")
    assert ask(server, "prompt=hello", "image=photo.png") == 0
    parts = server.requests[0]["body"]["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["image_url", "text"]


@pytest.mark.parametrize(
    ("reply", "status", "told"),
    [
        (Reply("prompt too long", 400), 1, r"status 400: prompt too long"),
        (Reply(chat_reply("half a sen", "length")), 1, "truncated at max_tokens; it said 'half a sen'"),
        (Reply("no such model", 404), 2, "there is no such path or model; check url, model"),
        (Reply("<html>Sign in</html>"), 2, "web page"),
    ],
)
def test_what_is_wrong_is_told_in_one_message(server, capsys, reply, status, told):
    server.plan = {"hello": [reply]}
    assert ask(server, "prompt=hello") == status
    error = capsys.readouterr().err
    assert error.startswith("error: ") and told in error


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["prompt=hello"], "ask needs one model, got none"),
        (["prompt=hello", "text_lm=scene", "vision_chat=scene"], "ask needs one model, got text_lm and vision_chat"),
        (["text_lm=scene"], "prompt"),
        (["vision_chat=scene", "prompt=hello", "image=none.png"], "none.png"),
    ],
)
def test_what_cannot_be_asked_is_told_before(server, capsys, words, told):
    assert main(["ask", *words]) == 2
    assert told in capsys.readouterr().err
