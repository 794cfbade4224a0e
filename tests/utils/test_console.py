import io
import os
import re
import shlex
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from rich.table import Table

from capkit.utils import console
from capkit.utils.console import close_phase, header, innermost, open_phase, phase, say
from capkit.utils.notebook import in_notebook


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in ("RANK", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)


def eventually(condition):
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_rows_of_a_header_are_aligned(capsys):
    header({"device": "CPU", "run folder": "runs/a"})
    assert capsys.readouterr().out == "device      CPU\nrun folder  runs/a\n"


@pytest.mark.parametrize(
    ("environment", "speaks"),
    [
        ({}, True),
        ({"RANK": "0"}, True),
        ({"RANK": "3"}, False),
        ({"SLURM_PROCID": "1"}, True),  # a batch script, or a step of one task
        ({"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}, False),
    ],
)
def test_of_several_ranks_the_first_speaks(environment, speaks, monkeypatch, capsys):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    say("a line")
    with phase("work"):
        assert (innermost() is not None) == speaks
    assert capsys.readouterr().out == ("a line\n" if speaks else "")


def test_in_a_log_file_a_phase_that_lasts_is_a_plain_line_and_another_when_it_ends(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr("sys.stderr", log)
    monkeypatch.setattr(console, "FIRST_LINE_S", 0.0)
    with phase("drawing", 30_000) as drawing:
        drawing.advance(12_000)
        assert eventually(log.getvalue)
    first, last = log.getvalue().splitlines()
    assert re.fullmatch(r"drawing: 12,000/30,000 images, 0:\d\d, 0:\d\d left", first)
    assert re.fullmatch(r"drawing: 12,000/30,000 images, 0:\d\d, 0:\d\d left, done", last)
    assert "\x1b" not in log.getvalue()


def test_in_a_log_file_a_phase_that_is_soon_over_says_nothing(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr("sys.stderr", log)
    with phase("drawing", 3), phase("one"):
        pass
    assert log.getvalue() == ""


def test_on_a_terminal_bars_are_drawn_and_taken_away_again(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with phase("training", 20, "steps", start=5) as training, phase("validating"):
        training.update(10, "loss 2.5")
        assert eventually(lambda: "10/20 steps" in screen.getvalue() and "loss 2.5" in screen.getvalue())
    assert "validating" in screen.getvalue()
    assert screen.getvalue().rindex("\x1b[?25h") > screen.getvalue().rindex("\x1b[?25l")  # the cursor is back
    assert innermost() is None


def test_in_a_notebook_bars_are_one_output_of_the_cell_of_which_a_line_stays(monkeypatch, capsys):
    drawn = []

    class Handle:
        def display(self, data, raw):
            drawn.append(("new", data))

        def update(self, data, raw):
            drawn.append(("again", data))

    kernel = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel="a kernel"))
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(DisplayHandle=Handle))
    monkeypatch.setattr(console, "FIRST_LINE_S", 0.1)
    monkeypatch.setattr(console, "CELL_S", 0.05)
    with phase("a <b>", 4, "steps") as outer:
        outer.update(1, "loss 2")
        with phase("reading"):
            assert eventually(lambda: drawn and "reading: " in drawn[-1][1]["text/plain"])
        open_phase("soon over")
    assert [how for how, _ in drawn] == ["new"] + ["again"] * (len(drawn) - 1)
    within, after = drawn[-2][1], drawn[-1][1]
    assert (
        "<progress max='1' value='0.2500'" in within["text/html"] and "<progress max='1' style" in within["text/html"]
    )
    assert (
        within["text/plain"].splitlines()[0].startswith("a <b>: 1/4 steps, 0:00, ")
        and "&lt;b&gt;" in within["text/html"]
    )
    assert "<progress" not in after["text/html"] and "soon over" not in after["text/plain"]
    first, second = after["text/plain"].splitlines()
    assert first.startswith("reading: ") and second.startswith("a <b>: 1/4 steps") and second.endswith("loss 2, done")
    assert capsys.readouterr() == ("", "")


def test_outside_of_a_notebook_ipython_is_a_terminal_or_a_log(monkeypatch):
    assert not in_notebook()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    assert not in_notebook()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=object))
    assert not in_notebook()


def test_an_error_within_phases_that_were_left_open_ends_them():
    outer = open_phase("training")
    open_phase("validating")
    close_phase(outer)
    close_phase(outer)
    assert innermost() is None


def test_a_forked_child_draws_nothing_and_prints_where_its_parent_did(monkeypatch):
    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with phase("training"):
        child = os.fork()
        if child == 0:
            os._exit(0 if innermost() is None and not console._display.is_live else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_time_left_follows_from_the_speed_since_the_start():
    training = console.Phase("training", 100, "steps", 30.0, start=40)
    assert training.left() == ""
    training.since -= 20.0
    training.update(60)
    assert training.left() == "0:40 left"


def test_quiet_says_nothing_and_shows_no_progress(capsys, monkeypatch):
    monkeypatch.setattr(console, "_loudness", "quiet")
    monkeypatch.setattr(console, "FIRST_LINE_S", 0.0)
    with phase("captioning", 3):
        say("a line")
        header({"device": "CPU"})
        time.sleep(0.6)
    assert capsys.readouterr() == ("", "")


def test_no_color_leaves_no_codes_in_a_log(monkeypatch, capsys):
    """rich keeps to https://no-color.org: nothing here colours by itself."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(console, "FIRST_LINE_S", 0.0)
    with phase("captioning", 3):
        say("a line")
        assert eventually(lambda: True)
        time.sleep(0.6)
    told = capsys.readouterr()
    assert "captioning" in told.err and "\x1b" not in told.out + told.err


def test_quiet_still_tells_what_was_asked_for_and_by_one_rank_alone(capsys, monkeypatch):
    monkeypatch.setattr(console, "_loudness", "quiet")
    console.tell_result("test/cider 1.5")
    monkeypatch.setenv("RANK", "1")
    console.tell_result("test/cider 1.5")
    assert capsys.readouterr().out == "test/cider 1.5\n"


@pytest.mark.parametrize("printed", ["say", "Screen().print"])
def test_a_reader_who_leaves_does_not_end_what_is_printed_to_him(printed):
    """`capkit ... | head -1`, or a `tee` that dies: training goes on, with status 0 and without a traceback."""
    code = (
        "import sys, time\nfrom capkit.utils.console import Screen, say\n"
        f"for _ in range(3):\n    {printed}('a b c d ' * 12_500)\n    time.sleep(.05)\nsys.stderr.write('done')"
    )
    command = f"{sys.executable} -c {shlex.quote(code)} | head -c 1; exit ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "a", "done")


def test_names_in_tables_are_printed_letter_by_letter(capsys):
    table = Table("picture", title="of [/photos]")
    table.add_row("[red]:dog:")
    console.Screen().print(table)
    printed = capsys.readouterr().out
    assert "of [/photos]" in printed and "[red]:dog:" in printed
