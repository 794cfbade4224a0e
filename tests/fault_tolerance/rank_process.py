"""One rank for tests: a watchdog beside a main thread that does what its command says. No torch: it starts at once."""

import sys
import time
from pathlib import Path

from capkit.fault_tolerance.heartbeats import HeartbeatFiles
from capkit.fault_tolerance.liveness import NOW, mark_progress
from capkit.fault_tolerance.watchdog import Watchdog, ends_all_ranks, start_watchdog


def wait_in(folder: str) -> None:
    """Sleeps in a file of torch/distributed, as far as a stack tells."""
    path = Path(folder, "torch", "distributed", "fake.py")
    exec(compile("import time\ndef all_reduce():\n    time.sleep(60)\nall_reduce()", str(path), "exec"), {})


@ends_all_ranks
def run(arguments: list[str]) -> None:
    folder, rank, world_size, what = Path(arguments[0]), int(arguments[1]), int(arguments[2]), arguments[3]
    allowed = dict.fromkeys(("setup", "step"), 2.0 if what.startswith("stuck") else 60.0)
    start_watchdog(Watchdog(HeartbeatFiles(folder, rank, world_size), 3.0, allowed))
    mark_progress("step", step=7)
    (folder / f"ready-{rank}").touch()
    while len(list(folder.glob("ready-*"))) < world_size:
        time.sleep(0.02)
    if what == "leave":
        time.sleep(0.5)
    elif what == "raise":
        raise KeyError("no such reward")
    elif what == "lose_connection":
        time.sleep(0.3)
        raise RuntimeError("[pair.cc:553] Connection closed by peer [127.0.0.1]:1234")
    elif what == "stuck_waiting":
        wait_in(str(folder))
    else:
        assert what in ("live", "stuck"), what
        while True:
            time.sleep(0.05)
            NOW.since = time.monotonic() if what == "live" else NOW.since


if __name__ == "__main__":
    run(sys.argv[1:])
