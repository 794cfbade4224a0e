"""`capkit demo` as a process: it tells where it is, answers, and ends by Ctrl-C."""

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("starlette")

from benchmarks.starts import folder_of
from capkit.cli import main
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.render import render
from capkit.sceneworld.world.scene import make_scene

ROOT = Path(__file__).parents[2]


def picture():
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(render(make_scene(WorldOptions(), 0, "test", 3), 64)).save(buffer, format="PNG")
    return buffer.getvalue()


def iter_until(lines, start):
    for line in lines:
        yield line
        if line.startswith(start):
            return


@pytest.mark.integration
def test_it_answers_by_its_token_and_ends_by_ctrl_c(tmp_path):
    words = ["demo", f"ckpt={folder_of('generic', 0)}", "port=0", "reward=[length]", "torch_threads=1"]
    known = {**os.environ, "CAPKIT_DEMO_TOKEN": "a-token-for-this-test", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *words], cwd=tmp_path, env=known, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        told = list(iter_until(process.stdout, "open http"))
        address = told[-1].split()[1]
        assert address.endswith("/?token=a-token-for-this-test"), told
        kind = {"content-type": "application/octet-stream"}
        asked = address.replace("/?", "/caption?") + "&samples=1"
        with urllib.request.urlopen(urllib.request.Request(asked, picture(), kind), timeout=60) as answer:
            page = answer.read().decode()
        assert page.count('class="written"') == 3 and "length <b>" in page
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(address.replace("a-token", "b-token"), timeout=60)
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(30) == 130 and rest == "stopped by Ctrl-C\n"  # no request was written to the log
    finally:
        process.kill()
        process.wait()
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_shown_is_told(capsys):
    captioner, encoder = folder_of("generic", 0), folder_of("judge", 0)

    def told(*words):
        assert main(["demo", *words]) == 2
        return capsys.readouterr().err

    assert "two different ones" in told(f"ckpt=[{captioner},{captioner}]")
    assert "expected a captioner, got a dual encoder" in told(f"ckpt={encoder}", "port=0")
    assert "reward.cider" in told(f"ckpt={captioner}", "port=0", "reward=[cider]")
    assert "conditions" in told(f"ckpt={captioner}", "port=0", "conditions.length=4")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "give another port=N" in told(f"ckpt={captioner}", f"port={taken.getsockname()[1]}")
    assert "expected a free address" in told(f"ckpt={captioner}", "host=203.0.113.7")


def test_a_decoding_that_is_given_is_that_of_each_captioner(monkeypatch):
    shown = []
    monkeypatch.setattr("capkit.tasks.demo.serve", lambda app, listens: None)
    monkeypatch.setattr("capkit.tasks.demo.Shown", lambda name, captioner, requested: shown.append(captioner.decoding))
    monkeypatch.setattr("capkit.tasks.demo.Demo", lambda shown, terms: SimpleNamespace(rehearse=lambda: None))
    monkeypatch.setattr("capkit.tasks.demo.demo_app", lambda *_: None)
    captioner = folder_of("generic", 0)
    assert main(["demo", f"ckpt={captioner}", "port=0"]) == 0
    assert main(["demo", f"ckpt={captioner}", "port=0", "decoding=guided", "decoding.guide.scale=3"]) == 0
    assert [one.guide and one.guide.scale for one in shown] == [None, 3.0]


def test_a_missing_extra_is_told_before_anything_is_loaded(monkeypatch, capsys):
    monkeypatch.setattr("capkit.config.extras.Need.missing", lambda need: list(need.modules))
    assert main(["demo", f"ckpt={folder_of('generic', 0)}"]) == 2
    assert (
        "task=demo needs starlette and uvicorn, which is not installed; pip install 'capkit[demo]'"
        in capsys.readouterr().err
    )
