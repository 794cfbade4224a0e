"""What is done to a run, from outside: to its processes, its checkpoints, or the disk they are on."""

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults.ranks import Ranks
from benchmarks.faults.runs import STEPS
from capkit.checkpoint.files import check_integrity
from capkit.checkpoint.run_checkpoints import checkpoints_in, find_newest, step_of
from capkit.errors import MEMORY_STATUS, STOPPED_STATUS

END_S = 60.0  # in which a run that lost a rank, or was asked to stop, ends by itself
DISK_S = 2.0  # for which a disk stays full
DISK_MB = 16


@dataclass
class Target:
    """A run that is going on: its processes, its folder, and what draws all that is random about a fault."""

    ranks: Ranks
    folder: Path
    rng: random.Random

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def all_watched(self) -> bool:
        """Whether all watchdogs run. Before that, whoever started the ranks looks after them."""
        beats = [path for path in self.folder.glob("watch/attempt-*/rank-*.json") if self._is_new(path)]
        return len(beats) == self.ranks.number

    def _is_new(self, path: Path) -> bool:
        with suppress(OSError):  # it may leave at any moment
            return path.stat().st_mtime > self.ranks.started_at
        return False

    def ranks_in(self, section: str) -> list[int]:
        """Ranks whose last sign of life came from this section."""
        found = []
        for path in self.folder.glob("watch/attempt-*/rank-*.json"):
            with suppress(OSError, ValueError):  # it may leave, or be written, at any moment
                beat = json.loads(path.read_bytes())
                if beat["section"] == section and self._is_new(path):
                    found.append(int(beat["rank"]))
        return found

    def wait_until_due(self, after_s: float) -> None:
        """For so many seconds, or until this start saved the last step: it may be faster than the timed run was."""
        end, done = time.monotonic() + after_s, self._has_saved_all()
        while self.ranks.running() and time.monotonic() < end and self._has_saved_all() == done:
            time.sleep(0.01)

    def _has_saved_all(self) -> bool:
        return self.has_saved(STEPS)

    def has_saved(self, step: int) -> bool:
        return any(step_of(path) >= step for path in checkpoints_in(self.checkpoints))

    def wait_until_saved(self, step: int) -> None:
        """A checkpoint of this step or a later one; or until a rank ended."""
        while not self.has_saved(step) and len(self.ranks.running()) == self.ranks.number:
            time.sleep(0.01)

    def wait_until_watched(self) -> None:
        end = time.monotonic() + END_S
        while not self.all_watched() and len(self.ranks.running()) == self.ranks.number and time.monotonic() < end:
            time.sleep(0.01)


@dataclass
class Outcome:
    """What a fault did. `wrong`: why a run did not bear it as it should; nothing where it did.

    `committed`: the step of the newest checkpoint that is whole, where the fault itself took it.
    """

    ended_s: float = 0.0  # from the fault to the end of the last process that was not killed
    hung: bool = False
    wrong: str | None = None
    committed: int | None = None


def kill_all(target: Target) -> Outcome:
    target.ranks.send(signal.SIGKILL)
    target.ranks.wait(END_S)
    return Outcome()


def kill_in_save(target: Target) -> Outcome | None:
    """The moment a checkpoint's temporary name appears, or a little later; None where no more was saved."""
    end = time.monotonic() + END_S
    while not any(target.checkpoints.glob(".*.tmp")) and target.ranks.running() and time.monotonic() < end:
        time.sleep(0.0005)
    time.sleep(target.rng.choice((0.0, 0.001, 0.003, 0.01)))
    if not target.ranks.running():
        return None
    return kill_all(target)


def kill_one(target: Target) -> Outcome:
    victim = target.rng.choice(target.ranks.running())
    target.ranks.send(signal.SIGKILL, [victim])
    return others_end(target, [victim])


def kill_one_in_save(target: Target) -> Outcome | None:
    """Rank 0, which saves, at the moment a checkpoint's temporary name appears; None where no more was saved."""
    end = time.monotonic() + END_S
    while not any(target.checkpoints.glob(".*.tmp")) and target.ranks.running() and time.monotonic() < end:
        time.sleep(0.0005)
    if len(target.ranks.running()) < target.ranks.number:
        return None
    target.ranks.send(signal.SIGKILL, [0])
    return others_end(target, [0])


def kill_one_in_rollout(target: Target) -> Outcome | None:
    """A rank whose last sign of life came from a rollout; None where there was none any more."""
    end = time.monotonic() + END_S
    while not (sampling := target.ranks_in("rollout")) and target.ranks.running() and time.monotonic() < end:
        time.sleep(0.001)
    if not sampling or len(target.ranks.running()) < target.ranks.number:
        return None
    target.ranks.send(signal.SIGKILL, sampling[:1])
    return others_end(target, sampling[:1])


def memory_ends(target: Target) -> Outcome | None:
    """One rank's next update does not fit; all ranks are to end with 82. None where no more came."""
    victim = target.rng.randrange(target.ranks.number)
    sign = target.folder / f"memory-ends-{victim}"
    sign.touch()
    started = time.monotonic()
    ended = target.ranks.wait(END_S)
    came = not sign.exists()
    sign.unlink(missing_ok=True)
    if not came:
        return None
    codes = set(target.ranks.exit_codes)
    wrong = None if codes == {MEMORY_STATUS} or not ended else f"exit codes {codes}"
    return Outcome(time.monotonic() - started, not ended, wrong)


def stop_one(target: Target) -> Outcome:
    """SIGSTOP: the process is there, and silent. It is killed once the others have ended."""
    victim = target.rng.choice(target.ranks.running())
    target.ranks.send(signal.SIGSTOP, [victim])
    outcome = others_end(target, [victim])
    target.ranks.send(signal.SIGKILL, [victim])
    return outcome


def others_end(target: Target, victims: list[int]) -> Outcome:
    """The other ranks end by themselves, in time."""
    started = time.monotonic()
    others = [rank for rank in range(target.ranks.number) if rank not in victims]
    ended = target.ranks.wait(END_S, others)
    return Outcome(time.monotonic() - started, hung=not ended)


def asked(number: signal.Signals, everyone: bool) -> Callable[[Target], Outcome]:
    """A signal that asks a run to stop, to all ranks or to one."""

    def ask(target: Target) -> Outcome:
        watched = target.all_watched()
        ranks = target.ranks.running() if everyone else [target.rng.choice(target.ranks.running())]
        started = time.monotonic()
        target.ranks.send(number, ranks)
        ended = target.ranks.wait(END_S)
        codes = set(target.ranks.exit_codes)
        # Before a run listens, and once all is done, a signal does what it does to any program.
        fine = not watched or codes == {STOPPED_STATUS} or codes <= {0, -number}
        return Outcome(time.monotonic() - started, not ended, None if fine or not ended else f"exit codes {codes}")

    return ask


def cut_newest(target: Target) -> Outcome:
    """All ranks are killed, and a file of the newest checkpoint loses its end."""
    return damaged(target, lambda file: os.truncate(file, int(file.stat().st_size * target.rng.random())))


def flip_newest(target: Target) -> Outcome:
    """All ranks are killed, and a bit of the newest checkpoint is another one."""

    def flip(file: Path) -> None:
        content = bytearray(file.read_bytes())
        content[target.rng.randrange(len(content))] ^= 1 << target.rng.randrange(8)
        file.write_bytes(content)

    return damaged(target, flip)


def damaged(target: Target, damage: Callable[[Path], None]) -> Outcome:
    """Where there are two whole checkpoints or more: with broken ones alone, a run refuses to start."""
    kill_all(target)
    whole = [path for path in checkpoints_in(target.checkpoints) if check_integrity(path) is None]
    if len(whole) < 2:
        return Outcome()
    damage(target.rng.choice([path for path in sorted(whole[0].rglob("*")) if path.is_file()]))
    return Outcome(committed=step_of(whole[1]))


def full_disk(target: Target) -> Outcome:
    """Not a byte is left where checkpoints are saved, for a while; then all ranks are killed."""
    target.checkpoints.mkdir(parents=True, exist_ok=True)
    filler = target.checkpoints / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"\0" * 4096)
    outcome = goes_on(target)
    filler.unlink()
    return outcome


def read_only(target: Target) -> Outcome:
    """Nothing can be written where checkpoints are saved, for a while; then all ranks are killed."""
    mount = ["mount", "-o", "remount,ro", str(target.checkpoints)]
    busy = [subprocess.run(mount, capture_output=True).returncode]
    while busy[-1] and len(busy) < 200:  # a file is open for writing
        time.sleep(0.01)
        busy.append(subprocess.run(mount, capture_output=True).returncode)
    outcome = goes_on(target)
    subprocess.run(["mount", "-o", "remount,rw", str(target.checkpoints)], check=True)
    return outcome


def goes_on(target: Target) -> Outcome:
    """Whether the run lives on while nothing can be saved. One that reached its end says that it did not save."""
    target.ranks.wait(DISK_S)
    codes = [code for code in target.ranks.exit_codes if code is not None]
    kill_all(target)
    bad = [code for code in codes if code not in (0, 2)]
    return Outcome(wrong=f"ended with {codes}" if bad else None)


@dataclass(frozen=True)
class Kind:
    """`many`: it takes more than one rank. `disk`: the checkpoints are on a file system of their own, by root.

    `rounds`: the run goes on in smaller parts, and so with other rounding.
    """

    what: str
    strike: Callable[[Target], Outcome | None]
    many: bool = False
    disk: bool = False
    rounds: bool = False


KINDS = {
    "kill_all": Kind("kill -9 of all ranks", kill_all),
    "kill_in_save": Kind("kill -9 of all ranks in a save", kill_in_save),
    "kill_one": Kind("kill -9 of one rank", kill_one, many=True),
    "kill_one_in_save": Kind("kill -9 of rank 0 in a save", kill_one_in_save, many=True),
    "kill_one_in_rollout": Kind("kill -9 of one rank in a rollout", kill_one_in_rollout, many=True),
    "memory_ends": Kind("out of memory on one rank", memory_ends, many=True, rounds=True),
    "stop_one": Kind("SIGSTOP to one rank", stop_one, many=True),
    "term_one": Kind("SIGTERM to one rank", asked(signal.SIGTERM, everyone=False), many=True),
    "term_all": Kind("SIGTERM to all ranks", asked(signal.SIGTERM, everyone=True)),
    "usr1_one": Kind("SIGUSR1 to one rank", asked(signal.SIGUSR1, everyone=False), many=True),
    "usr1_all": Kind("SIGUSR1 to all ranks", asked(signal.SIGUSR1, everyone=True)),
    "cut_newest": Kind("newest checkpoint cut off", cut_newest),
    "flip_newest": Kind("newest checkpoint, one bit", flip_newest),
    "full_disk": Kind("disk full while saving", full_disk, disk=True),
    "read_only": Kind("checkpoint folder read-only", read_only, disk=True),
}


@contextmanager
def own_disk(folder: Path) -> Iterator[None]:
    """A small file system at `folder`, while it lasts. Its content is lost afterwards. Wants root."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "faults", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def newest_step(folder: Path) -> int:
    """The step of the newest whole checkpoint; 0 where there is none."""
    newest, _ = find_newest(folder)
    return 0 if newest is None else step_of(newest)
