"""A process that is killed in the middle of its work, for tests of what goes on behind a kill."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def run_and_kill(script: str, folder: Path, is_far_enough: Callable[[], bool]) -> None:
    """Run a Python script that may import modules of `folder`, and send SIGKILL once it is far enough.

    It must not end before; after two minutes it is killed wherever it is.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    process = subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not is_far_enough() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
