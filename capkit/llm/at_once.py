"""Work on many items at once, in threads that a run which stops does not wait for."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Rest = TypeVar("Rest")

_POLL_S = 0.5


def at_once(
    work: Callable[[Item], Rest], items: Sequence[Item], num_threads: int, is_stopping: Callable[[], bool]
) -> list[Rest] | None:
    """`work(item)` of each item, in their order; None once `is_stopping()`.

    The first error is raised. After it, or once it stops, no further item is begun.
    """
    waiting, changed = deque(enumerate(items)), threading.Condition()
    found: dict[int, Rest] = {}
    errors: list[Exception] = []

    def serve() -> None:
        while True:
            with changed:
                if not waiting:
                    return
                place, item = waiting.popleft()
            try:
                result = work(item)
            except Exception as error:  # whatever it is, the caller is told
                with changed:
                    errors.append(error)
                    waiting.clear()
                    changed.notify_all()
                return
            with changed:
                found[place] = result
                changed.notify_all()

    for _ in range(min(num_threads, len(items))):
        threading.Thread(target=serve, name="ask", daemon=True).start()
    with changed:
        while len(found) < len(items) and not errors:
            if is_stopping():
                waiting.clear()
                return None
            changed.wait(_POLL_S)
    if errors:
        raise errors[0]
    return [found[place] for place in range(len(items))]
