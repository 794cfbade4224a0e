"""SIGTERM, SIGUSR1, SIGUSR2 and Ctrl-C ask a run to stop. One rank hears the signal; all know within a second.

A rank that waits in a collective runs no Python code, hence no Python signal handler. A thread listens instead, and
passes the signal on through the process group's store. What happens next depends on what would be lost:

- during training, ranks must agree on the step at which to save: they check `requested` there
  (capkit/train/callbacks/preemption.py);
- before and after it, only work is lost that the same command repeats: the main thread exits wherever it is.

SIGUSR2 is sent by submitit. Ctrl-C (SIGINT) also saves, but exits with its own status, 130, since nothing should
restart the run. A second Ctrl-C ends the run at once: the process, or, where it is another program's (a notebook's
kernel), the run alone, as soon as its main thread runs Python code.
"""

import itertools
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from capkit.errors import INTERRUPTED_STATUS, STOPPED_STATUS
from capkit.fault_tolerance.slurm_requeue import requeue_job
from capkit.utils.console import restore_terminal
from capkit.utils.own_process import may_end_process

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)
NOTHING_BEGUN = "stopped by Ctrl-C before the run had begun; nothing was lost"
POLL_S = 0.5
LEAVE_S = 10.0  # time for the main thread to exit on its own
_NUMBERS = itertools.count()  # of listeners in this process, for unique keys: a process group may outlive a run


class Stopped(SystemExit):
    """The run stopped as asked; the exit status depends on the signal."""

    def __init__(self, status: int = STOPPED_STATUS) -> None:
        super().__init__(status)


def status_after(name: str) -> int:
    """Exit status of a run that was stopped by the signal of this name."""
    return INTERRUPTED_STATUS if name == signal.SIGINT.name else STOPPED_STATUS


def heard_signals() -> list[signal.Signals]:
    """SIGNALS without those that this process was started to ignore, such as Ctrl-C in a shell's background job."""
    return [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


class StopSignal:
    """Listens for stop signals of this rank. `store`: key-value store shared by all ranks; None in a single process."""

    def __init__(self, rank: int, store: Any = None) -> None:
        self.rank, self.store = rank, store
        self.requested = False
        self.name = ""  # of the first signal, received here or by another rank
        self._key = f"capkit/stop/{next(_NUMBERS)}"
        self._may_leave = True
        self._all_know = self._told = False
        self._interrupts = 0  # Ctrl-C that the main thread has handled
        self._ends_process = may_end_process() or store is not None  # ranks end together
        self._handlers: dict[int, Any] = {}
        self._old_wakeup = -1
        self._main = threading.main_thread().ident or 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="stop-signal", daemon=True)
        self._wakeup, self._written = socket.socketpair()
        self._wakeup.settimeout(POLL_S)
        self._written.setblocking(False)

    def start(self) -> None:
        self._handlers = {number: signal.signal(number, self._handle) for number in heard_signals()}
        self._old_wakeup = signal.set_wakeup_fd(self._written.fileno(), warn_on_full_buffer=False)
        self._thread.start()

    def close(self) -> None:
        """Stop listening and restore the previous signal handlers."""
        self._closing.set()
        if self in _ACTIVE:
            _ACTIVE.remove(self)
        self._written.send(b"\0")
        self._thread.join(4 * POLL_S)  # first: it may signal this process, which needs the handlers below
        signal.set_wakeup_fd(self._old_wakeup)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._wakeup.close()
        self._written.close()

    @property
    def status(self) -> int:
        """The exit status of a run that was asked to stop, the same on all ranks."""
        return status_after(self.name)

    @property
    def may_leave(self) -> bool:
        """Whether the main thread may exit anywhere, without the other ranks."""
        return self._may_leave

    @may_leave.setter
    def may_leave(self, value: bool) -> None:
        self._may_leave = value
        if value and self._all_know:
            self._leave()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """Signal handler, in the main thread. In a process of its own, the listening thread handles a second Ctrl-C."""
        if self._closing.is_set():
            return  # the run has ended; what it changed is being given back
        self._interrupts += number == signal.SIGINT
        if self.requested and self._interrupts > 1 and not self._ends_process:
            self._may_leave = False
            self._print_ended_at_once()
            self._told = True
            raise Stopped(INTERRUPTED_STATUS)
        self.name = self.name or signal.Signals(number).name
        self.requested = True
        if self._may_leave and self._all_know:
            self._leave()

    def _leave(self) -> None:
        self._may_leave = False
        self.tell("the same command does again what was not finished")
        if self.rank != 0:
            time.sleep(4 * POLL_S)  # launchers kill all ranks once one exits, and rank 0 has yet to print
        raise Stopped(self.status)

    def tell(self, outcome: str) -> None:
        """Report the outcome once, on rank 0: print it, and requeue the job under SLURM unless it was Ctrl-C."""
        if self.rank == 0 and not self._told:
            by = "Ctrl-C" if self.name == signal.SIGINT.name else self.name
            print(f"stopped by {by}; {outcome}", flush=True)
            if self.status != INTERRUPTED_STATUS:
                requeue_job()
        self._told = True

    # -- the thread

    def _listen(self) -> None:
        while not self._closing.is_set():
            heard = next(iter(self._own_signals()), None) or self._signal_of_others()
            if heard is None:
                continue
            self.name = self.name or heard
            self.requested = True
            if self.name == signal.SIGINT.name and self.rank == 0 and not self._may_leave:
                print("Ctrl-C: saving, then the run ends; once more ends it at once", flush=True)
            self._tell()
            self._all_know = True
            if not self._closing.is_set():
                signal.pthread_kill(self._main, signal.SIGUSR1)  # interrupts a blocking call of the main thread
            self._follow()
            return

    def _follow(self) -> None:
        """Until the run ends, handle a second Ctrl-C, and end the process if the main thread cannot.

        The main thread gets no signal while it waits in native code for a rank that has left. Ending it loses nothing.
        """
        may_leave_since = time.monotonic()
        while self._ends_process and not self._closing.is_set():
            if signal.SIGINT.name in self._own_signals():
                self._print_ended_at_once()
                self._exit(INTERRUPTED_STATUS)
            if not self._may_leave:
                may_leave_since = time.monotonic()
            elif time.monotonic() - may_leave_since > LEAVE_S:
                self.tell("the same command does again what was not finished")
                self._exit(self.status)

    def _print_ended_at_once(self) -> None:
        if self.rank == 0:
            print("ended at once by a second Ctrl-C; checkpoints saved before are whole", flush=True)

    def _exit(self, status: int) -> None:
        restore_terminal()
        os._exit(status)

    def _own_signals(self) -> list[str]:
        """Names of signals received; empty after POLL_S without one."""
        try:
            numbers = self._wakeup.recv(64)
        except OSError:
            return []
        return [signal.Signals(number).name for number in numbers if number in SIGNALS]

    def _signal_of_others(self) -> str | None:
        with suppress(Exception):  # the store is gone once its process, rank 0, is
            if self.store is not None and self.store.check([self._key]):
                return self.store.get(self._key).decode()
        return None

    def _tell(self) -> None:
        """Publish the signal before this rank exits; otherwise the others would report it as lost."""
        if self.store is not None:
            with suppress(Exception):
                self.store.set(self._key, self.name)
            self._closing.wait(2 * POLL_S)


_ACTIVE: list[StopSignal] = []


def listen(rank: int, store: Any = None) -> StopSignal | None:
    """Listen until the task ends. None outside the main thread, where Python allows no signal handlers."""
    if threading.current_thread() is not threading.main_thread():
        return None
    listener = StopSignal(rank, store)
    listener.start()
    _ACTIVE.append(listener)
    return listener


def is_stopping() -> bool:
    """Whether this process knows that its run was asked to stop."""
    return any(listener.requested for listener in _ACTIVE)


@contextmanager
def stoppable() -> Iterator[None]:
    """Context around a task that may `listen`. Once asked to stop, it exits with status 75 or 130, whatever fails.

    The signal may have hit other processes too: a scorer's subprocess dies, or ranks lose their connection.
    """
    try:
        yield
    except Exception as error:
        asked = [listener for listener in _ACTIVE if listener.requested]
        if not asked:
            raise
        if asked[0].status != INTERRUPTED_STATUS:
            traceback.print_exception(error)
        asked[0].tell(f"{error!r} followed; the same command resumes from the last checkpoint")
        raise Stopped(asked[0].status) from None
    finally:
        while _ACTIVE:
            _ACTIVE[-1].close()


def _forget() -> None:
    """Reset a forked child, which is not a rank: default signal handlers, and no wakeup of its parent's thread."""
    if _ACTIVE:
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        _ACTIVE.clear()


os.register_at_fork(after_in_child=_forget)


def outlive_signals_to_all() -> None:
    """Make a helper process ignore stop signals: SLURM sends them to all processes, and ranks need helpers to save.

    SIGTERM from its own parent still ends it.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    threading.Thread(target=_wait_for_parent, name="stop-signal", daemon=True).start()


def _wait_for_parent() -> None:
    while True:
        info = signal.sigwaitinfo(SIGNALS)
        if info.si_signo == signal.SIGTERM and info.si_pid == os.getppid():
            os._exit(0)
