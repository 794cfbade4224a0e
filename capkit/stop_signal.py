"""SIGTERM, SIGUSR1 and SIGUSR2 ask a run to stop: heard by one rank, known to all within a second.

A rank that waits for others does not run Python, and so no Python signal handler: a thread listens instead, and passes
the word on through the store of the process group. What follows depends on what would be lost:

- while optimizer steps are made, ranks must agree where to save: `requested` is looked at there
  (capkit/callbacks/preemption.py);
- before and after, nothing would be lost that is not done again: the main thread leaves where it is.

SIGUSR2 is what submitit sends. Ctrl-C is no request to save: it ends a run as it ends any program.
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

from capkit.slurm import requeue_job

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
STOPPED_STATUS = 75  # EX_TEMPFAIL: try again later
POLL_S = 0.5
LEAVE_S = 10.0  # for the main thread to leave by itself
_NUMBERS = itertools.count()  # of listeners in this process: a process group may outlive a run


class Stopped(SystemExit):
    """The run was asked to stop, and did."""

    def __init__(self) -> None:
        super().__init__(STOPPED_STATUS)


class StopSignal:
    """Listens for this rank. `store`: where ranks hear from each other; None for a single process."""

    def __init__(self, rank: int, store: Any = None) -> None:
        self.rank, self.store = rank, store
        self.requested = False
        self.name = "a signal to another rank"
        self._key = f"capkit/stop/{next(_NUMBERS)}"
        self._may_leave = True
        self._all_know = self._told = False
        self._handlers: dict[int, Any] = {}
        self._old_wakeup = -1
        self._main = threading.main_thread().ident or 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="stop-signal", daemon=True)
        self._wakeup, self._written = socket.socketpair()
        self._wakeup.settimeout(POLL_S)
        self._written.setblocking(False)

    def start(self) -> None:
        self._handlers = {number: signal.signal(number, self._handle) for number in SIGNALS}
        self._old_wakeup = signal.set_wakeup_fd(self._written.fileno(), warn_on_full_buffer=False)
        self._thread.start()

    def close(self) -> None:
        """Signals do again what they did before."""
        self._closing.set()
        self._written.send(b"\0")
        self._thread.join(4 * POLL_S)  # it may signal this process, for which the handlers have to be there
        signal.set_wakeup_fd(self._old_wakeup)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._wakeup.close()
        self._written.close()

    @property
    def may_leave(self) -> bool:
        """Whether the main thread may leave anywhere, without the other ranks."""
        return self._may_leave

    @may_leave.setter
    def may_leave(self, value: bool) -> None:
        self._may_leave = value
        if value and self._all_know:
            self._leave()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """In the main thread, between two instructions; a second signal changes nothing."""
        self.requested = True
        if self._may_leave and self._all_know:
            self._leave()

    def _leave(self) -> None:
        self._may_leave = False
        self.tell("the same command does again what was not finished")
        if self.rank != 0:
            time.sleep(4 * POLL_S)  # launchers end all ranks as soon as one has left, and rank 0 has to tell
        raise Stopped

    def tell(self, outcome: str) -> None:
        """Once, on rank 0: what came of it, to the screen; and to SLURM, where it runs the job."""
        if self.rank == 0 and not self._told:
            print(f"stopped by {self.name}; {outcome}", flush=True)
            requeue_job()
        self._told = True

    # -- the thread

    def _listen(self) -> None:
        while not self._closing.is_set():
            heard = self._own_signal()
            if heard is None and not self._others_heard():
                continue
            self.name = heard or self.name
            self.requested = True
            self._tell()
            self._all_know = True
            if not self._closing.is_set():
                signal.pthread_kill(self._main, signal.SIGUSR1)  # wakes the main thread up
            self._leave_without_main_thread()
            return

    def _leave_without_main_thread(self) -> None:
        """A main thread that waits for a rank that has left, outside Python, hears nothing. Nothing is lost by it."""
        if self._may_leave and not self._closing.wait(LEAVE_S) and self._may_leave:
            self.tell("the same command does again what was not finished")
            os._exit(STOPPED_STATUS)

    def _own_signal(self) -> str | None:
        """The name of a signal that came; None after a while without one."""
        try:
            numbers = self._wakeup.recv(64)
        except OSError:
            return None
        return next((signal.Signals(n).name for n in numbers if n in SIGNALS), None)

    def _others_heard(self) -> bool:
        with suppress(Exception):  # the store is gone where rank 0 is
            return self.store is not None and bool(self.store.check([self._key]))
        return False

    def _tell(self) -> None:
        """Before a rank leaves, the others have to know why: else they would see a rank that was lost."""
        if self.store is not None:
            with suppress(Exception):
                self.store.set(self._key, self.name)
            self._closing.wait(2 * POLL_S)


_ACTIVE: list[StopSignal] = []


def listen(rank: int, store: Any = None) -> StopSignal | None:
    """Until the task ends. None outside a process's main thread, where Python lets nobody handle signals."""
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
    """Around a task that may `listen`. Once asked to stop, it ends with status 75, whatever breaks on the way.

    The signal may have hit other processes too: a scorer's subprocess dies, ranks lose their connection.
    """
    try:
        yield
    except Exception as error:
        asked = [listener for listener in _ACTIVE if listener.requested]
        if not asked:
            raise
        traceback.print_exception(error)
        asked[0].tell("what is told above came after it; the same command goes on from the last checkpoint")
        raise Stopped from None
    finally:
        while _ACTIVE:
            _ACTIVE.pop().close()


def _forget() -> None:
    """A forked child is no rank: its signals do what they do by default, and do not wake its parent's thread."""
    if _ACTIVE:
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        _ACTIVE.clear()


os.register_at_fork(after_in_child=_forget)


def outlive_signals_to_all() -> None:
    """For a helper process: SLURM signals all processes of a job, and a rank without its helpers could not save.

    SIGTERM of its own parent ends it, as ever.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    threading.Thread(target=_wait_for_parent, name="stop-signal", daemon=True).start()


def _wait_for_parent() -> None:
    while True:
        info = signal.sigwaitinfo(SIGNALS)
        if info.si_signo == signal.SIGTERM and info.si_pid == os.getppid():
            os._exit(0)
