"""What is given back to the program around capkit, and that the check of it, which test_api.py uses, sees changes."""

import gc
import os
import subprocess
import sys
import threading

import pytest
import torch
from hydra import initialize_config_dir
from process_state import LEAKS, differing, state

from capkit.utils.guest import as_guest
from capkit.utils.own_process import may_end_process

pytestmark = pytest.mark.unchecked  # beartype draws from `random` what it checks


@pytest.mark.parametrize("part", LEAKS)
def test_what_changes_within_is_seen_and_given_back(part):
    before = state()
    with as_guest():
        LEAKS[part]()
        within = differing(before, state())
    hooks = ["hooks"] * (part == "process group")  # sys.excepthook, which torch sets with it
    assert within == [part, *hooks] and differing(before, state()) == []


def test_it_is_given_back_after_an_error_too():
    before = state()
    with pytest.raises(RuntimeError, match="of the run"), as_guest():
        for leak in LEAKS.values():
            leak()
        raise RuntimeError("of the run")
    assert differing(before, state()) == []


def test_a_process_group_of_the_program_around_stays():
    LEAKS["process group"]()
    try:
        with as_guest():
            pass
        assert torch.distributed.is_initialized()
    finally:
        torch.distributed.destroy_process_group()


def test_after_an_error_of_one_of_several_ranks_the_group_is_left_to_the_program(monkeypatch):
    try:
        with pytest.raises(RuntimeError), as_guest():
            LEAKS["process group"]()
            monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
            raise RuntimeError("the other ranks may be gone, and to close it would wait for them")
        assert torch.distributed.is_initialized()
    finally:
        torch.distributed.destroy_process_group()


def test_precision_that_a_program_set_by_the_newer_names_stays():
    code = (
        "import torch\nfrom capkit.utils.guest import as_guest\n"
        "torch.backends.cuda.matmul.fp32_precision = 'tf32'\nwith as_guest():\n    pass\n"
        "print(torch.backends.cuda.matmul.fp32_precision)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "tf32\n", done.stderr


def test_what_is_not_given_back_is_seen_all_the_same(tmp_path, monkeypatch):
    before, found = state(), []
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        found += differing(before, state())
    with monkeypatch.context() as change:
        change.chdir(tmp_path)
        change.setattr(sys, "excepthook", print)
        found += differing(before, state())
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait, name="planted")
    thread.start()
    found += differing(before, state())
    ended.set()
    thread.join()
    gc.disable()
    found += differing(before, state())
    gc.enable()
    assert found == ["hydra", "folder", "hooks", "threads", "hooks"]
    assert differing(before, state()) == []


def test_within_it_nothing_may_end_the_process():
    assert may_end_process()
    with as_guest():
        with as_guest():
            assert not may_end_process()
        assert not may_end_process()
    assert may_end_process() and os.getpid()
