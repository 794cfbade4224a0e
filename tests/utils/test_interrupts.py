"""Ctrl-C while modules are imported waits for their end; a second one, and one before, do not."""

import os
import signal

import pytest

from capkit import entry
from capkit.utils.interrupts import held_interrupts


@pytest.fixture(autouse=True)
def heeded():
    """Ctrl-C, which is ignored where tests run in the background."""
    given = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, given)


def press():
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("error", [None, ModuleNotFoundError])
def test_it_is_raised_at_the_end_whatever_became_of_the_import(error):
    done = []
    with pytest.raises(KeyboardInterrupt), held_interrupts():
        press()
        done.append("all")
        if error is not None:
            raise error
    assert done == ["all"]


def test_a_second_one_is_raised_at_once():
    done = []
    with pytest.raises(KeyboardInterrupt), held_interrupts():
        press()
        press()
        done.append("more")
    assert not done


def test_without_one_nothing_happens_and_another_handler_is_left_alone():
    with held_interrupts():
        pass
    signal.signal(signal.SIGINT, heard := lambda *_: None)
    with held_interrupts():
        press()
        assert signal.getsignal(signal.SIGINT) is heard
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_while_the_command_line_itself_is_imported_it_is_one_line(monkeypatch, capsys):
    def interrupted(name, *rest):
        if name == "capkit.cli":
            press()
        return given(name, *rest)

    given = __import__
    monkeypatch.setattr("builtins.__import__", interrupted)
    assert entry.main(["show"]) == 130
    assert capsys.readouterr().out == "stopped by Ctrl-C\n"
