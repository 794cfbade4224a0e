"""Console output of a run: a header, named phases with a bar or spinner, and lines in between. Does not import torch.

On a terminal, phases are live lines on standard error that disappear when they end. In a notebook they are bars under
the cell, of which a line stays. Elsewhere (a log file, SLURM), a phase that takes a while prints a plain line, repeats
it after some seconds, and prints one more at its end. Only rank 0 prints.
"""

import os
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.text import Text

from capkit.utils.notebook import CellBars, in_notebook

FIRST_LINE_S = 2.0  # longest time without a line
LINES_S = 30.0
CELL_S = 0.5  # between two drawings of a notebook's bars
# `text_lm.api_key=...`, `--token=...`
_SECRET = re.compile(r"\b((?:\w*_)?(?:key|token|password|secret)=)\S+", re.IGNORECASE)
_noted = ""
_LOUDNESS = "CAPKIT_OUTPUT"  # quiet or verbose, as ranks get it from their parent
_loudness = os.environ.get(_LOUDNESS, "")
SHOW_CURSOR = b"\x1b[?25h\n"


def speaks() -> bool:
    """Whether this process may print: rank 0, by the variables of torchrun, srun or capkit, or the only process."""
    is_srun_step = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1
    return os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0") if is_srun_step else "0") == "0"


def set_loudness(loudness: str) -> None:
    """How much is told. "quiet": results and warnings; "verbose": also what libraries say; else: messages."""
    global _loudness
    _loudness = loudness


def loudness() -> str:
    """See `set_loudness`."""
    return _loudness


def say(text: str) -> None:
    """Print a line on standard output, immediately and above any bar; nothing where it was asked to be quiet."""
    if _loudness != "quiet":
        tell_result(text)


def tell_result(text: str) -> None:
    """Print a line of what was asked for, also where it was asked to be quiet."""
    if speaks():
        print_on(text)


def print_on(text: str) -> None:
    """Print on standard output. Where its reader has left (`| head`, a `tee` that died), print nothing from here on.

    What is trained is in the run folder: nothing ends because nobody reads its screen.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _print_to_nowhere()


class Screen(Console):
    """Standard output for tables and bars: their strings as they are, and for a reader who may leave, as `print_on`."""

    def __init__(self) -> None:
        super().__init__(markup=False, emoji=False)

    def on_broken_pipe(self) -> None:
        """Rich would end the process."""
        _print_to_nowhere()


def _print_to_nowhere() -> None:
    """What was printed last waits in Python's buffer, to be written again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def header(rows: Mapping[str, str]) -> None:
    """Print names and descriptions, one per line, aligned."""
    width = max(map(len, rows), default=0)
    for name, text in rows.items():
        say(f"{name:<{width}}  {text}")


def command_name() -> str:
    """How the user calls this program: `capkit`, or `python train.py` in a checkout. Ranks get it from their parent."""
    own = "python train.py" if Path(sys.argv[0]).name == "train.py" else "capkit"
    return os.environ.get("CAPKIT_COMMAND", own)


def note_command(text: str) -> None:
    """Remember what was typed, for the records of runs that it starts."""
    global _noted
    _noted = _SECRET.sub(r"\1...", text)


def command_line() -> str:
    """What was typed, with the values of keys and passwords left out. Ranks get it from their parent."""
    return _noted or os.environ.get("CAPKIT_WORDS", "")


def clock(seconds: float) -> str:
    """h:mm:ss, or m:ss below an hour."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Phase:
    """Work in progress: how much is done, and a `note`.

    Without a `total` it is a spinner. `unit` names what is counted; counting begins at `start`.
    """

    def __init__(self, name: str, total: int | None, unit: str, lines_s: float, start: int) -> None:
        self.name, self.total, self.unit, self.lines_s = name, total, unit, lines_s
        self.start = self.done = start
        self.note = ""
        self.since = time.monotonic()
        self._moved_at = self.since
        self.told_at: float | None = None

    def advance(self, count: int = 1) -> None:
        self.update(self.done + count)

    def update(self, done: int, note: str | None = None) -> None:
        self.done = done
        self.note = self.note if note is None else note
        self._moved_at = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.since

    def count(self) -> str:
        if self.total is None:
            return f"{self.done:,} {self.unit}" if self.done else ""
        return f"{self.done:,}/{self.total:,} {self.unit}"

    def left(self) -> str:
        """Time left, from the average speed so far; empty if unknown."""
        if self.total is None or self.done <= self.start or self.done >= self.total:
            return ""
        speed = (self._moved_at - self.since) / (self.done - self.start)
        return f"{clock(max(0.0, speed * (self.total - self.done)))} left"

    @property
    def share(self) -> float | None:
        """How much of the total is done, 0 to 1; None if there is no total."""
        return min(1.0, self.done / self.total) if self.total else None

    def line(self) -> str:
        told = (self.count(), clock(self.seconds), self.left(), self.note)
        return f"{self.name}: {', '.join(part for part in told if part)}"


@contextmanager
def phase(
    name: str, total: int | None = None, unit: str = "images", lines_s: float = LINES_S, start: int = 0
) -> Iterator[Phase]:
    """Context that shows a phase until it ends. Phases nest; a log file shows the innermost."""
    opened = open_phase(name, total, unit, lines_s, start)
    try:
        yield opened
    finally:
        close_phase(opened)


def open_phase(
    name: str, total: int | None = None, unit: str = "images", lines_s: float = LINES_S, start: int = 0
) -> Phase:
    """Open a phase that ends elsewhere, by `close_phase`."""
    opened = Phase(name, total, unit, lines_s, start)
    if speaks() and _loudness != "quiet":
        _display.add(opened)
    return opened


def close_phase(opened: Phase) -> None:
    """Close a phase, and any within it that an error left open. Closing it again has no effect."""
    _display.remove(opened)


def innermost() -> Phase | None:
    """The innermost open phase, for code that knows the progress but not the phase."""
    phases = _display.phases
    return phases[-1] if phases else None


def restore_terminal() -> None:
    """Show the cursor again, before a process ends without unwinding."""
    if _display.is_live:
        os.write(2, SHOW_CURSOR)


class _Display:
    """Open phases, outermost first, and the thread that shows them."""

    def __init__(self) -> None:
        self.phases: list[Phase] = []
        self._progress: Progress | None = None
        self._tasks: dict[Phase, TaskID] = {}
        self._cell: CellBars | None = None
        self._ended: list[str] = []  # lines of the phases that stay in the cell
        self._lock = threading.Lock()  # of the cell: it is drawn by the thread, and once more when phases end
        self._done = threading.Event()

    @property
    def is_live(self) -> bool:
        return self._progress is not None

    def add(self, opened: Phase) -> None:
        self.phases.append(opened)
        if len(self.phases) == 1:
            self._start()
        if self._progress is not None:
            self._tasks[opened] = self._progress.add_task(opened.name, total=opened.total, phase=opened)

    def remove(self, closed: Phase) -> None:
        while closed in self.phases:
            last = self.phases.pop()
            if self._progress is not None:
                self._progress.remove_task(self._tasks.pop(last))
            elif last.told_at is not None and self._cell is not None:
                self._ended.append(f"{last.line()}, done")
            elif last.told_at is not None:
                _write(f"{last.line()}, done")
        if not self.phases:
            self._stop()

    def _start(self) -> None:
        if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            self._progress = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                _Bar(bar_width=24),
                _Text(),
                console=Console(stderr=True),
                transient=True,
                redirect_stdout=sys.stdout.isatty(),
            )
            self._streams = sys.stdout, sys.stderr
            self._progress.start()
        else:
            self._done = threading.Event()
            self._cell, self._ended = (CellBars() if in_notebook() else None), []
            tell = self._tell if self._cell is None else self._draw_often
            threading.Thread(target=tell, args=(self._done,), name="console", daemon=True).start()

    def _stop(self) -> None:
        self._done.set()
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        if self._cell is not None:
            self._draw()
            with self._lock:
                self._cell = None

    def _draw_often(self, done: threading.Event) -> None:
        while not done.wait(CELL_S):
            self._draw()

    def _draw(self) -> None:
        with self._lock:
            now, opened = time.monotonic(), list(self.phases)
            shown = [one for one in opened if now - one.since >= FIRST_LINE_S]
            for one in shown:
                one.told_at = now
            if self._cell is not None:
                self._cell.draw(list(self._ended), [(one.line(), one.share) for one in shown])

    def _tell(self, done: threading.Event) -> None:
        while not done.wait(0.25):
            now, opened = time.monotonic(), innermost()
            if opened is None:
                continue
            due = opened.since + FIRST_LINE_S if opened.told_at is None else opened.told_at + opened.lines_s
            if now >= due:
                opened.told_at = now
                _write(opened.line())

    def forget(self) -> None:
        """Reset in a forked child, which has no drawing thread, and may have inherited a lock that was held."""
        if self._progress is not None:
            sys.stdout, sys.stderr = self._streams
        self.__init__()  # type: ignore[misc]


def _write(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class _Bar(BarColumn):
    def render(self, task: Task) -> RenderableType:  # type: ignore[override]
        opened: Phase = task.fields["phase"]
        task.completed = opened.done
        return Text() if opened.total is None else super().render(task)


class _Text(ProgressColumn):
    def render(self, task: Task) -> Text:
        opened: Phase = task.fields["phase"]
        told = (opened.count(), clock(opened.seconds), opened.left(), opened.note)
        return Text("  ".join(part for part in told if part))


_display = _Display()
os.register_at_fork(after_in_child=_display.forget)
