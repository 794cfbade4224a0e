"""How the time of training steps divides into phases, by marks on the device's own clock that are read later."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from capkit.utils.later import Later

PHASES = ("data", "rollout", "reward", "update")


@runtime_checkable
class Mark(Protocol):
    """A point in time. On a GPU it is there once the device has come to it."""

    def is_there(self) -> bool: ...

    def wait(self) -> None: ...

    def seconds_since(self, earlier: Any) -> float:
        """Since another mark of the same kind."""
        ...


class HostMark:
    """Now."""

    def __init__(self) -> None:
        self.at = time.perf_counter()

    def is_there(self) -> bool:
        return True

    def wait(self) -> None: ...

    def seconds_since(self, earlier: Any) -> float:
        return self.at - earlier.at


class DeviceMark:
    """When the GPU has done what it was given so far. The host does not wait for it."""

    def __init__(self) -> None:
        self.event = torch.cuda.Event(enable_timing=True)
        self.event.record()

    def is_there(self) -> bool:
        return self.event.query()

    def wait(self) -> None:
        self.event.synchronize()

    def seconds_since(self, earlier: Any) -> float:
        return earlier.event.elapsed_time(self.event) / 1000


@dataclass(frozen=True)
class StepTimes:
    """Seconds of one step by phase, and how many images and tokens it had."""

    seconds: dict[str, float]
    images: int
    tokens: float


@dataclass
class _Step:
    marks: list[tuple[str | None, Mark]]  # what each mark begins; None: nothing that is counted
    images: int
    tokens: Later | Tensor | float


class PhaseTimer:
    """Time belongs to the phase that was entered last; between steps, to what `end_step` was told."""

    def __init__(self, now: Callable[[], Mark]) -> None:
        self._now = now
        self._marks: list[tuple[str | None, Mark]] = []
        self._steps: deque[_Step] = deque()

    def enter(self, phase: str | None) -> None:
        """From here on time belongs to this phase; None: to none."""
        self._marks.append((phase, self._now()))

    def end_step(self, images: int, tokens: Tensor | float, then: str | None) -> None:
        """The step ends here, and the phase `then` begins."""
        late = Later(tokens) if isinstance(tokens, Tensor) else None
        mark = self._now()
        self._steps.append(_Step([*self._marks, (None, mark)], images, late or tokens))
        self._marks = [(then, mark)]

    def finished(self, wait: bool = False) -> list[StepTimes]:
        """Steps since the last call that the device has finished; with `wait`, all."""
        found = []
        while self._steps and (wait or self._steps[0].marks[-1][1].is_there()):
            step = self._steps.popleft()
            step.marks[-1][1].wait()
            seconds = dict.fromkeys(PHASES, 0.0)
            for (phase, begin), (_, end) in zip(step.marks, step.marks[1:], strict=False):
                if phase is not None:
                    seconds[phase] += end.seconds_since(begin)
            tokens = step.tokens.read() if isinstance(step.tokens, Later) else step.tokens
            found.append(StepTimes(seconds, step.images, float(tokens)))
        return found
