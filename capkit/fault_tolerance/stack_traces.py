"""Stacks of this process's threads: all of them to a file, or the main thread's in one line."""

import faulthandler
import sys
import threading
import traceback
from pathlib import Path
from types import FrameType

# A rank waits for others if one of its innermost calls is a collective, or a backward pass in which DDP reduces.
WAITING = ("/torch/distributed/", "/deepspeed/comm/", "/torch/autograd/graph.py")
INNERMOST = 4
TAIL_LINES = 12
END_OF_MAIN = "all threads, the innermost call first:\n"


def _main_frame() -> FrameType | None:
    return sys._current_frames().get(threading.main_thread().ident or 0)


def main_thread() -> tuple[str, bool]:
    """(innermost place in capkit's code, or else of all code; whether the main thread waits for other ranks)."""
    frames = traceback.extract_stack(_main_frame())[::-1]
    waits = any(part in frame.filename.replace("\\", "/") for frame in frames[:INNERMOST] for part in WAITING)
    own = [
        frame for frame in frames if "/capkit/" in frame.filename and "/capkit/fault_tolerance/" not in frame.filename
    ]
    place = (own or frames)[0]
    return f"{Path(place.filename).name}:{place.lineno} in {place.name}", waits


def write(path: Path, title: str, error: BaseException | None = None) -> None:
    """Append the stacks of all threads, the main thread's first, formatted as by Python.

    `error`: the exception that ends the main thread; its traceback replaces the main thread's current stack.
    """
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{title}\nmain thread, the innermost call last:\n")
        file.writelines(traceback.format_stack(_main_frame()) if error is None else traceback.format_exception(error))
        file.write(END_OF_MAIN)
        file.flush()
        faulthandler.dump_traceback(file, all_threads=True)


def is_written(path: Path) -> bool:
    return path.exists() and END_OF_MAIN in path.read_text(encoding="utf-8")


def tail(path: Path) -> str:
    """The end of the main thread's stack in a file written by `write`."""
    lines = path.read_text(encoding="utf-8").partition(END_OF_MAIN)[0].splitlines()
    return "\n".join(lines[-TAIL_LINES:])
