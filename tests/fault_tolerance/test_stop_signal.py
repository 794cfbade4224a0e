"""Who hears a signal, who does not, and how those leave who have nothing to save."""

import multiprocessing
import os
import signal
import subprocess
import time

import pytest
import torch.distributed as dist
from torch.utils.data import DataLoader

from capkit.data.loader import _start_worker
from capkit.errors import INTERRUPTED_STATUS, STOPPED_STATUS
from capkit.fault_tolerance import stop_signal
from capkit.fault_tolerance.stop_signal import Stopped, listen, outlive_signals_to_all, stoppable
from capkit.utils.own_process import lent_process


@pytest.fixture(autouse=True)
def ctrl_c_is_heard():
    """A shell's background job, which the tests may be, ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def left_with(function):
    """The exit status with which a function is left."""
    try:
        with stoppable():
            function()
    except SystemExit as ended:
        return ended.code
    return None


def evaluate_on_rank_0(rank, file):
    """Rank 0 works on its own; rank 1, which waits for it, is signalled."""
    dist.init_process_group("gloo", store=dist.FileStore(file, 2), rank=rank, world_size=2)
    with stoppable():
        listen(rank, dist.distributed_c10d._get_default_store())
        if rank == 0:
            for _ in range(1000):
                time.sleep(0.1)
        else:
            subprocess.Popen(["bash", "-c", f"sleep 0.3; kill -USR1 {os.getpid()}"])
        dist.barrier()


@pytest.mark.integration
def test_outside_of_training_all_ranks_leave_also_one_that_waits_for_another(tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["capkit.testing.distributed"])
    ranks = [context.Process(target=evaluate_on_rank_0, args=(rank, str(tmp_path / "store"))) for rank in (0, 1)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(90)  # of the 100 s that rank 0 would have worked
    assert [process.exitcode for process in ranks] == [STOPPED_STATUS] * 2


def wait_for_ever():
    """Outside Python, for a key that nobody sets, as for a rank that has left."""
    stop_signal.LEAVE_S = 1.0
    store = dist.TCPStore("127.0.0.1", 0, 1, is_master=True)
    with stoppable():
        listen(0, store.clone())
        subprocess.Popen(["bash", "-c", f"sleep 0.3; kill -TERM {os.getpid()}"])
        store.get("never")


@pytest.mark.integration
def test_a_rank_that_waits_outside_of_python_leaves_too():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["capkit.testing.distributed"])
    process = context.Process(target=wait_for_ever)
    process.start()
    process.join(60)  # of the 300 s that the store would have waited
    hung = process.is_alive()
    process.kill()
    assert not hung and process.exitcode == STOPPED_STATUS


def test_a_single_process_leaves_at_once():
    def work():
        listen(0)
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(100):
            time.sleep(0.1)

    start = time.monotonic()
    assert left_with(work) == STOPPED_STATUS
    assert time.monotonic() - start < 5


def interrupted(presses):
    """Training that goes on, and the terminal that sends SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with stoppable():
        listener = listen(0)
        listener.may_leave = False
        for _ in range(presses):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)
        listener.may_leave = True
        time.sleep(60)


@pytest.mark.integration
@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_is_followed_when_the_ranks_have_agreed_and_a_second_one_at_once(presses, tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["capkit.testing.distributed"])
    process = context.Process(target=told_to, args=(tmp_path / "told", presses))
    process.start()
    process.join(50)
    hung = process.is_alive()
    process.kill()
    assert not hung and process.exitcode == INTERRUPTED_STATUS == 130
    first, last = (tmp_path / "told").read_text().splitlines()
    assert first == "Ctrl-C: saving, then the run ends; once more ends it at once"
    assert last.startswith("stopped by Ctrl-C;" if presses == 1 else "ended at once by a second Ctrl-C;")


def told_to(file, presses):
    with open(file, "w") as told:
        os.dup2(told.fileno(), 1)
    interrupted(presses)


def test_a_second_ctrl_c_ends_the_run_but_not_the_process_of_another_program(capsys):
    def work():
        listener = listen(0)
        listener.may_leave = False
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)
        raise AssertionError("the run went on")

    with lent_process():
        assert left_with(work) == INTERRUPTED_STATUS
    told = capsys.readouterr().out.splitlines()
    assert told[1:] == ["ended at once by a second Ctrl-C; checkpoints saved before are whole"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_one_ctrl_c_in_the_process_of_another_program_waits_for_the_saving(capsys):
    def work():
        listener = listen(0)
        listener.may_leave = False
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.7)  # the listening thread heard it too
        assert listener.requested
        print("saved")
        listener.may_leave = True

    with lent_process():
        assert left_with(work) == INTERRUPTED_STATUS
    assert capsys.readouterr().out.splitlines()[1] == "saved"


def test_ctrl_c_while_a_run_that_has_ended_is_cleared_away_cuts_nothing_short():
    def work():
        listener = listen(0)
        listener.may_leave = False
        join = listener._thread.join

        def pressed(seconds):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
            join(seconds)

        listener._thread.join = pressed
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.7)
        raise Stopped(INTERRUPTED_STATUS)

    with lent_process():
        assert left_with(work) == INTERRUPTED_STATUS
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.set_wakeup_fd(-1) == -1


def test_a_process_of_another_program_is_not_ended_by_a_main_thread_that_takes_long(monkeypatch):
    monkeypatch.setattr(stop_signal, "LEAVE_S", 0.1)
    monkeypatch.setattr(os, "_exit", lambda status: pytest.fail("it was ended"))

    def work():
        listener = listen(0)
        os.kill(os.getpid(), signal.SIGTERM)
        listener._thread.join(2)  # nothing is left to do for it

    with lent_process():
        assert left_with(work) == STOPPED_STATUS


def test_the_other_ranks_hear_which_signal_it_was(tmp_path):
    store = dist.FileStore(str(tmp_path / "store"), 2)
    first, second = (stop_signal.StopSignal(rank, store) for rank in (0, 1))
    first._key = second._key = "the run's"
    first.name = "SIGINT"
    first._tell()
    assert second._signal_of_others() == "SIGINT"
    second.name = "SIGINT"
    assert (first.status, second.status) == (130, 130)


def test_a_process_that_was_started_to_ignore_ctrl_c_goes_on_ignoring_it():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stoppable():
        listener = listen(0)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        assert not listener.requested and signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_what_breaks_after_ctrl_c_is_one_line(capsys):
    def work():
        listener = listen(0)
        listener.may_leave = False
        os.kill(os.getpid(), signal.SIGINT)
        raise RuntimeError("the scorer's Java is gone")

    assert left_with(work) == INTERRUPTED_STATUS
    output = capsys.readouterr()
    assert "the scorer's Java is gone" in output.out and output.err == ""


def test_what_breaks_after_the_signal_is_told_and_does_not_change_the_status(capsys):
    def work():
        listener = listen(0)
        listener.may_leave = False
        os.kill(os.getpid(), signal.SIGTERM)
        raise RuntimeError("the scorer's Java is gone")

    assert left_with(work) == STOPPED_STATUS
    assert "the scorer's Java is gone" in capsys.readouterr().err


def test_an_error_without_a_signal_stays_that_error():
    with pytest.raises(RuntimeError, match="a defect"), stoppable():
        listen(0)
        raise RuntimeError("a defect")


def test_a_signal_that_came_while_ranks_agreed_is_followed_when_that_is_over():
    listener = listen(0)
    try:
        listener.may_leave = False
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)  # training goes on
        with pytest.raises(Stopped):
            listener.may_leave = True
    finally:
        listener.close()


def wait(connection, outlives):
    if outlives:
        outlive_signals_to_all()
    connection.send("ready")
    time.sleep(60)


def forked(outlives):
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=wait, args=(theirs, outlives), daemon=True)
    process.start()
    ours.recv()
    return process


@pytest.mark.integration
def test_a_worker_outlives_signals_to_the_whole_job_and_ends_with_its_parent():
    process = forked(outlives=True)
    for name in ("TERM", "USR1", "USR2", "INT"):
        subprocess.run(["bash", "-c", f"kill -{name} {process.pid}"], check=True)  # another sender than its parent
    process.join(0.5)
    assert process.is_alive()
    process.terminate()
    process.join(5)
    assert process.exitcode == 0


def test_a_loader_whose_workers_are_signalled_goes_on():
    loader = DataLoader(range(8), num_workers=1, worker_init_fn=_start_worker)
    batches = iter(loader)
    next(batches)
    (worker,) = batches._workers
    for name in ("TERM", "USR1", "INT"):
        subprocess.run(["bash", "-c", f"kill -{name} {worker.pid}"], check=True)
    assert len(list(batches)) == 7
    assert not worker.is_alive()


def test_a_forked_child_hears_for_itself_alone():
    listener = listen(0)
    try:
        process = forked(outlives=False)
        subprocess.run(["bash", "-c", f"kill -TERM {process.pid}"], check=True)
        process.join(5)
        assert process.exitcode == -signal.SIGTERM
        assert not listener.requested
    finally:
        listener.close()


@pytest.mark.parametrize(("status", "told"), [(0, "SLURM job 77: requeued"), (1, "was not requeued: no permission")])
def test_where_slurm_runs_the_job_rank_0_has_it_requeued_unless_by_ctrl_c(tmp_path, monkeypatch, capsys, status, told):
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\necho no permission >&2\nexit {status}\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    for number in (0, 1):
        for name in ("SIGTERM", "SIGINT"):
            listener = listen(number)
            listener.name = name
            for _ in range(2):
                listener.tell("saved")
            listener.close()
    assert (tmp_path / "calls").read_text() == "show job --oneliner 77\nrequeue 77\n"
    assert told in capsys.readouterr().err
