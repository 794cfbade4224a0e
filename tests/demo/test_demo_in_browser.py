"""The demo in headless Chromium: a picture is dropped, captions are read; skipped where there is no browser."""

import pytest

pytest.importorskip("starlette")

from demo_server import driver, png, served
from page_browser import browser, visit

from capkit.demo.access import Door
from capkit.demo.answers import Demo, Shown
from capkit.demo.app import demo_app
from capkit.scorers.reward import RewardTerm
from capkit.scorers.text_rules import Length

EVIL = "<script>window.pwned = parent.pwned = 1</script> a red"


def look(demo, tmp_path, width=1280, dark=False, token=None, text=""):
    """What a visitor sees who drops a picture, asks again without samples, and drops what is none."""
    query = f"?token={token}" if token else ""
    with served(
        lambda port: demo_app(demo, Door("127.0.0.1", port, token)), driver(width, png(), text, query)
    ) as address:
        return visit(f"{address}driver", tmp_path / "browser", dark, budget_ms=20000)


def of_two(captioner):
    two = [
        Shown("runs/first", captioner()),
        Shown("runs/a-run-whose-name-has-no-place-to-break", captioner(attends=False)),
    ]
    return Demo(two, {"length": RewardTerm(Length(8, 14, 6))})


@pytest.mark.integration
def test_a_dropped_picture_gets_captions_of_both_captioners_by_a_token_and_nothing_is_run(captioner, tmp_path):
    browser()
    found = look(of_two(captioner), tmp_path, token="a-long-secret-token", text=EVIL.replace("</", "<\\/"))
    assert found["names"] == ["runs/first", "runs/a-run-whose-name-has-no-place-to-break"]
    assert len(found["texts"]) == 2 * 6 and found["fewer"] == 2 * 3  # greedy, beam, three samples, the visitor's
    assert any("window.pwned" in text for text in found["texts"]) and not found["scripted"]
    assert found["heats"] and all("log-probability -" in text and "length" in text for text in found["numbers"])
    assert found["asking"] == "Writing captions ..." and found["named"] == "dropped.png"
    assert "no picture that can be read" in found["refused"] and found["left"] == 0
    assert found["search"] == "" and "token" not in found["cookie"]  # the script cannot read it
    assert found["opened"] and found["closed"]  # the dialog
    assert [line for line in found["console"] if "422" not in line] == []


@pytest.mark.nightly
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_demo_fits_and_is_readable(width, dark, captioner, tmp_path):
    browser()
    found = look(of_two(captioner), tmp_path, width, dark, text="a red star")
    for state in (found["before"], found):
        assert state["width"] == width and state["scroll"] <= width, state["wide"]
        assert state["wide"] == [] and state["pale"] == []
