"""Numbered pieces of work on the workers of a Ray cluster. Ray is the extra `scale`."""

import importlib.util
import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any

from capkit.errors import BudgetSpent, NoAnswers, OutOfMemory, RunFailure, UsageError, exit_status, known_error
from capkit.utils.ranges import NonNegativeFloat, PositiveFloat, PositiveInt, check_ranges

Piece = Callable[[int], dict[str, Any]]
NUM_RETRIES = 3
_FAILURES = (RunFailure, OutOfMemory, BudgetSpent, NoAnswers)


@check_ranges
class RayWorkers:
    """Worker processes, each of which takes one piece of work after another.

    Args:
        address: Of a running cluster ("auto": the one that RAY_ADDRESS or this machine knows); None: Ray is started on
            this machine alone, and ended by `close`.
        num_workers: None: as many as the cluster's CPUs and GPUs hold.
        num_cpus, num_gpus: What one worker takes of them; a fraction of a GPU shares it.
        retries: Whether the work of a lost worker is done again, at most NUM_RETRIES times.

    Raises UsageError without Ray, without the cluster, and if it holds no worker.
    """

    def __init__(
        self,
        address: str | None = None,
        num_workers: PositiveInt | None = None,
        num_cpus: PositiveFloat = 1.0,
        num_gpus: NonNegativeFloat = 0.0,
        retries: bool = True,
    ) -> None:
        if importlib.util.find_spec("ray") is None:
            raise UsageError("engine=ray needs Ray, got none; pip install 'capkit[scale]'")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it reports to its makers otherwise
        import ray

        self._is_ours = not ray.is_initialized()
        if self._is_ours:
            try:
                ray.init(address, include_dashboard=False if address is None else None, logging_level=logging.WARNING)
            except ConnectionError as error:
                raise UsageError(
                    f"ray_address={address}: no cluster answers there; start one (ray start --head), or give "
                    "ray_address=null for this machine alone"
                ) from error
        self._num_cpus, self._num_gpus, self._retries = num_cpus, num_gpus, retries
        resources = ray.cluster_resources()
        held = self._num_held(resources)
        if (num_workers or 1) > held:
            self.close()
            raise UsageError(
                f"expected a cluster with room for {num_workers or 1} workers of {num_cpus:g} CPUs and {num_gpus:g} "
                f"GPUs, got {resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs; change num_workers, "
                "worker_cpus or worker_gpus"
            )
        self.num_workers = num_workers or held

    def _num_held(self, resources: dict[str, float]) -> int:
        by_cpu = int(resources.get("CPU", 0) / self._num_cpus)
        return by_cpu if not self._num_gpus else min(by_cpu, int(resources.get("GPU", 0) / self._num_gpus))

    def map(self, make: Callable[[], Piece], count: int) -> Iterator[dict[str, Any]]:
        """What pieces 0 to `count` - 1 give, in the order in which they are done; a worker that is free takes the next.

        Each worker calls `make`, which must be found by import, once. A piece of a worker that is lost is done again by
        a new one, and must come to the same.

        Raises, in this process, the UsageError or RunFailure of a piece or of `make`, which ends the others; and
        RunFailure if a piece loses its workers.
        """
        import ray

        def start() -> Any:
            kind = ray.remote(num_cpus=self._num_cpus, num_gpus=self._num_gpus, max_restarts=0)(_Worker)
            return kind.remote(make)

        waiting, lost = deque(range(count)), Counter[int]()
        idle = [start() for _ in range(min(self.num_workers, count))]
        busy: dict[Any, tuple[Any, int]] = {}
        try:
            while waiting or busy:
                while waiting and idle:
                    worker, number = idle.pop(), waiting.popleft()
                    busy[worker.told.remote(number)] = worker, number
                (done,), _ = ray.wait(list(busy))
                worker, number = busy.pop(done)
                try:
                    told = ray.get(done)
                except ray.exceptions.RayActorError as error:
                    lost[number] += 1
                    if lost[number] > (NUM_RETRIES if self._retries else 0):
                        why = (
                            ""
                            if self._retries
                            else " (with a budget it is not tried again: what it spent is not known)"
                        )
                        raise RunFailure(
                            f"shard {number} lost its worker {lost[number]} times{why}: {str(error).splitlines()[0]}; "
                            "look into its memory and the cluster's logs (ray status, ray memory), then start the same "
                            "command again: it goes on with the answers that were kept"
                        ) from error
                    waiting.appendleft(number)
                    idle.append(start())
                    continue
                idle.append(worker)
                if "error" in told:
                    raise _raised(told)
                yield told["found"]
        finally:
            for worker in [*idle, *(worker for worker, _ in busy.values())]:
                ray.kill(worker)

    def close(self) -> None:
        """End the Ray that was started here; a cluster stays."""
        import ray

        if self._is_ours:
            ray.shutdown()


class _Worker:
    """What runs in a worker process. Errors that a user can mend come back as what they say: Ray would wrap them."""

    def __init__(self, make: Callable[[], Piece]) -> None:
        self._make = make
        self._piece: Piece | None = None

    def told(self, number: int) -> dict[str, Any]:
        """What a piece of work gives, as "found"; or "error" and "status"."""
        try:
            self._piece = self._piece or self._make()
            return {"found": self._piece(number)}
        except Exception as error:
            known = known_error(error)
            if known is None:
                raise
            return {"error": str(known), "status": exit_status(known)}


def _raised(told: dict[str, Any]) -> UsageError | RunFailure:
    """An error of a worker, with its message and exit status."""
    kind = next((kind for kind in _FAILURES if kind.status == told["status"]), None)
    return UsageError(told["error"]) if kind is None else kind(told["error"])
