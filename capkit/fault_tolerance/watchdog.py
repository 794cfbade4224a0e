"""A thread in every rank that ends all ranks, and says why, when one of them is lost, stuck or failed."""

import contextlib
import faulthandler
import functools
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import ParamSpec, TextIO, TypeVar

from capkit.errors import LOST_STATUS, exit_status, known_error
from capkit.fault_tolerance import processes
from capkit.fault_tolerance import stack_traces as stacks
from capkit.fault_tolerance.heartbeats import Heartbeat, HeartbeatFiles, Verdict, identity
from capkit.fault_tolerance.liveness import NOW
from capkit.utils.console import restore_terminal
from capkit.utils.own_process import may_end_process

P = ParamSpec("P")
T = TypeVar("T")

TICK_S = 1.0
FAREWELL_S = 15.0  # for the rank whose error was printed to close files and loggers
OTHERS_S = 5.0  # for ranks to write their stacks, and for the reporting rank to print
LOST_CONNECTION = ("connection closed by peer", "connection reset", "broken pipe", "timed out", "timeout", "socket")


class Watchdog:
    """Ends all ranks when one of them cannot continue. Rank r watches rank r + 1, in a ring, so that of any set of lost
    ranks at least one is watched by a live rank.

    - lost: its process is gone, or gave no sign of life for `timeout_s` (stopped, machine gone). On the same machine, a
      process that is gone is noticed within seconds.
    - stuck: its main thread made no progress for longer than `allowed_s` of its section. Each rank detects this for
      itself; the place in the code tells a rank that hangs from ranks that wait for it.
    - error: it raised. Only this rank prints its error; the others exit without printing.

    A single rank in another program's process (a notebook's kernel) is not ended: that it is stuck is told once.
    """

    def __init__(
        self,
        channel: HeartbeatFiles,
        timeout_s: float,
        allowed_s: Mapping[str, float],
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self.is_stopping = is_stopping
        self.channel, self.timeout_s, self.allowed_s = channel, timeout_s, dict(allowed_s)
        self.rank, self.world_size = channel.rank, channel.world_size
        self._ends_process = self.world_size > 1 or may_end_process()
        self._warned_of = -1  # the progress at which this process was told to be stuck
        self._tick = min(TICK_S, timeout_s / 8)
        self._identity = identity()
        self._number = 0
        self._raised: BaseException | None = None
        self._beat_at = self._looked_at = -1e9
        self._neighbour: Heartbeat | None = None
        self._heard_at = 0.0
        self._faults: TextIO | None = None
        self._stop = threading.Event()
        self._error_told = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    # -- called by the main thread

    def start(self) -> None:
        self.channel.open(self._beat())
        if self.world_size > 1:
            self._faults = self.channel.stacks(self.rank).open("w")
            faulthandler.enable(self._faults)  # on SIGABRT from its watcher, a hanging rank writes its stacks
        self._thread.start()

    def stop(self) -> None:
        """Stop watching: this rank ended well, or all ranks agreed to end."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._thread.join(OTHERS_S)
        if self._faults is not None:
            faulthandler.disable()
            self._faults.close()
        self.channel.leave()

    def failed(self, error: BaseException) -> None:
        """Report `error` to all ranks and print it; if another rank reported first, exit without printing.

        A broken connection is usually the consequence of another rank's failure, so this first waits for that rank's
        verdict. Errors in a run that was asked to stop are not failures.
        """
        if self._error_told.is_set() or self._stop.is_set():
            return
        self._raised = error
        if follows_from_another(error):
            self._wait_for_verdict(OTHERS_S if self.is_stopping() else self.timeout_s + OTHERS_S)
        if self.is_stopping() and self.channel.verdict() is None:
            return
        status = status_of(error)
        stands = self.channel.report(Verdict("error", self.rank, [self.rank], status, one_line(error)))
        if stands.by == self.rank and stands.kind == "error":
            self._error_told.set()
            tell(error, self.rank, self.world_size)
        else:
            self._wait_for_verdict(FAREWELL_S + OTHERS_S, until_end=True)

    @property
    def has_told(self) -> bool:
        """Whether this rank's error is the one that was printed."""
        return self._error_told.is_set()

    def _wait_for_verdict(self, seconds: float, until_end: bool = False) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and (until_end or self.channel.verdict() is None):
            time.sleep(self._tick / 2)

    # -- the thread

    def _run(self) -> None:
        while not self._stop.wait(self._tick):
            verdict = self.channel.verdict() or self._judge()
            if verdict is not None:
                self._end(verdict)

    def _judge(self) -> Verdict | None:
        now = time.monotonic()
        if now - self._looked_at > self._tick + self.timeout_s / 4:
            self._heard_at = now  # this process was itself suspended: a heartbeat missed meanwhile proves nothing
        self._looked_at = now
        if now - self._beat_at >= self.timeout_s / 8:
            self._beat_at = now
            self._send()
        verdict = self._judge_neighbour(now) or self._judge_itself(now)
        return None if verdict is None else self.channel.report(verdict)

    def _beat(self) -> Heartbeat:
        self._number += 1
        place, waits = stacks.main_thread()
        seconds = round(time.monotonic() - NOW.since, 1)
        return Heartbeat(
            self.rank, self._number, NOW.section, NOW.count, NOW.step, seconds, place, waits, **self._identity
        )

    def _send(self) -> None:
        # A short write failure of the run folder is harmless. After `timeout_s`, this rank's watcher reports it lost.
        with contextlib.suppress(OSError):
            self.channel.beat(self._beat())

    def _judge_neighbour(self, now: float) -> Verdict | None:
        other = (self.rank + 1) % self.world_size
        if other == self.rank:
            return None
        beat = self.channel.read(other)
        if beat is not None and (self._neighbour is None or beat.number != self._neighbour.number):
            self._neighbour, self._heard_at = beat, now
        if self._neighbour is None or self.channel.has_left(other):
            return None
        known = self._neighbour
        state = processes.state(known.pid, known.started) if known.is_here else "unknown"
        silent = now - self._heard_at
        if state != "gone" and silent < self.timeout_s:
            return None
        how = {
            "gone": "its process is gone: killed, perhaps because host memory ran out",
            "stopped": f"its process was stopped, and is silent for {silent:.0f} s",
        }.get(state, f"no sign of life for {silent:.0f} s")
        return Verdict("lost", self.rank, [other], LOST_STATUS, f"{known}: {how}")

    def _judge_itself(self, now: float) -> Verdict | None:
        allowed = self.allowed_s[NOW.section]
        if now - NOW.since < allowed:
            return None
        if not self._ends_process:
            self._warn(now - NOW.since, allowed)
            return None
        self._send()
        self._stop.wait(2 * self._tick)  # others notice at about the same time, and refresh their heartbeats too
        beats = [beat for beat in map(self.channel.read, range(self.world_size)) if beat is not None]
        guilty = stalled_ranks(beats)
        found = "; ".join(map(str, guilty))
        seconds = max((beat.seconds for beat in guilty), default=allowed)
        message = f"{found}: no progress for {seconds:.0f} s; its section allows {allowed:.0f} s"
        return Verdict("stuck", self.rank, [beat.rank for beat in guilty], LOST_STATUS, message)

    def _warn(self, seconds: float, allowed: float) -> None:
        if self._warned_of == NOW.count:
            return
        self._warned_of = NOW.count
        print(
            f"warning: no progress for {seconds:.0f} s in {stacks.main_thread()[0]}; section {NOW.section} allows "
            f"{allowed:.0f} s; Ctrl-C ends the run",
            file=sys.stderr,
            flush=True,
        )

    # -- the end

    def _end(self, verdict: Verdict) -> None:
        if verdict.kind == "error":
            own = verdict.by == self.rank
            self._stop.wait(FAREWELL_S if own else 2 * self._tick)
            if self._stop.is_set():
                return
            _exit(verdict.status)
        title = f"rank {self.rank} of {self.world_size}, section {NOW.section}, step {NOW.step}"
        with contextlib.suppress(OSError):
            stacks.write(self.channel.stacks(self.rank), title, self._raised)
        told = self.channel.folder / "told"
        if verdict.by == self.rank:
            self._tell(verdict)
            with contextlib.suppress(OSError):
                told.touch()
        deadline = time.monotonic() + 2 * OTHERS_S
        while not told.exists() and time.monotonic() < deadline:
            time.sleep(self._tick / 4)
        _exit(verdict.status)

    def _tell(self, verdict: Verdict) -> None:
        """Print the reason, kill a lost process of this machine, then print the stacks of the remaining ranks."""
        print(f"error: {verdict.kind} rank, all ranks end: {verdict.message}", file=sys.stderr, flush=True)
        if verdict.kind == "lost" and self._neighbour is not None and self._neighbour.is_here:
            processes.end(self._neighbour.pid, self._neighbour.started)
        running = [rank for rank in range(self.world_size) if verdict.kind == "stuck" or rank not in verdict.ranks]
        missing = {rank for rank in running if not self.channel.has_left(rank)}
        deadline = time.monotonic() + OTHERS_S
        while missing and time.monotonic() < deadline:
            time.sleep(self._tick / 4)
            missing -= {rank for rank in missing if stacks.is_written(self.channel.stacks(rank))}
        for rank in running:
            if rank not in missing:
                print(f"rank {rank}:\n{stacks.tail(self.channel.stacks(rank))}", file=sys.stderr)
        print(f"stacks of all threads: {self.channel.folder}/stacks-rank-*.txt", file=sys.stderr, flush=True)


def _exit(status: int) -> None:
    """Exit this process immediately, without cleanup."""
    restore_terminal()
    os._exit(status)


def stalled_ranks(beats: list[Heartbeat]) -> list[Heartbeat]:
    """The ranks that hold up the others: of those not waiting for another rank, the ones with the least progress.

    If all wait, those with the least progress: ranks disagree about the next collective, or the network is broken.
    """
    candidates = [beat for beat in beats if not beat.waits] or beats
    behind = min((beat.count for beat in candidates), default=0)
    return [beat for beat in candidates if beat.count == behind]


def follows_from_another(error: BaseException) -> bool:
    """Whether an error is likely the consequence of another rank's end: a broken connection, or a timeout."""
    if any(kind.__name__ == "DistError" for kind in type(error).__mro__):  # by name: does not import torch
        return True
    return isinstance(error, RuntimeError | OSError) and any(part in str(error).lower() for part in LOST_CONNECTION)


def status_of(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return 130
    known = known_error(error)
    return 1 if known is None else exit_status(known)


def one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def tell(error: BaseException, rank: int, world_size: int) -> None:
    """Print an error: known errors by their message, others with their traceback."""
    known = known_error(error)
    who = f"rank {rank} of {world_size} failed, all ranks end"
    if known is not None:
        print(f"error: {known}", file=sys.stderr, flush=True)
    elif not isinstance(error, KeyboardInterrupt):
        traceback.print_exception(error)
        print(f"error: {who}: {one_line(error)}", file=sys.stderr, flush=True)


# The watchdog of this process, until the task ends.
_RUNNING: list[Watchdog] = []


def start_watchdog(watchdog: Watchdog) -> None:
    watchdog.start()
    _RUNNING.append(watchdog)


def tell_failure(error: BaseException) -> None:
    """Report an error to all ranks before this one goes down. An exit that all ranks agreed on is not an error."""
    for watchdog in _RUNNING:
        if watchdog.world_size > 1 and isinstance(error, Exception | KeyboardInterrupt):
            watchdog.failed(error)


def ends_all_ranks(task: Callable[P, T]) -> Callable[P, T]:
    """Decorate a task that trains on several ranks: when one rank raises, all end, and only its error is printed.

    Errors from before the process group exists are left to the caller.
    """

    @functools.wraps(task)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return task(*args, **kwargs)
        except (Exception, KeyboardInterrupt) as error:
            tell_failure(error)
            if any(watchdog.has_told for watchdog in _RUNNING):
                raise SystemExit(status_of(error)) from None
            raise
        finally:
            while _RUNNING:
                _RUNNING.pop().stop()

    return run
