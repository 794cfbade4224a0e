"""Where the threads of this process are: to a file in full, and in one line."""

import faulthandler
import sys
import threading
import traceback
from pathlib import Path
from types import FrameType

# Innermost calls in which a rank waits for the others: collectives, and a backward pass in which DDP exchanges.
WAITING = ("/torch/distributed/", "/deepspeed/comm/", "/torch/autograd/graph.py")
INNERMOST = 4
TAIL_LINES = 12
END_OF_MAIN = "all threads, the innermost call first:\n"


def _main_frame() -> FrameType | None:
    return sys._current_frames().get(threading.main_thread().ident or 0)


def main_thread() -> tuple[str, bool]:
    """(the innermost place in capkit's code, or else the innermost at all; whether it waits for other ranks)."""
    frames = traceback.extract_stack(_main_frame())[::-1]
    waits = any(part in frame.filename.replace("\\", "/") for frame in frames[:INNERMOST] for part in WAITING)
    own = [
        frame for frame in frames if "/capkit/" in frame.filename and "/capkit/fault_tolerance/" not in frame.filename
    ]
    place = (own or frames)[0]
    return f"{Path(place.filename).name}:{place.lineno} in {place.name}", waits


def write(path: Path, title: str, error: BaseException | None = None) -> None:
    """The stacks of all threads; the main thread's comes first, as Python tells it.

    `error`: what the main thread raised and is about to end for; then it was where this came from.
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
    """The end of the main thread's stack, as `write` wrote it."""
    lines = path.read_text(encoding="utf-8").partition(END_OF_MAIN)[0].splitlines()
    return "\n".join(lines[-TAIL_LINES:])
