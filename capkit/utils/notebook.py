"""Progress of a run under a notebook's cell: a bar for each open phase, replaced in place. Does not import IPython."""

import html
import sys
from collections.abc import Sequence
from typing import Any


def in_notebook() -> bool:
    """Whether this process is a kernel of Jupyter's, whose cells show HTML."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


class CellBars:
    """One output of a cell, drawn anew by each call of `draw`."""

    def __init__(self) -> None:
        self._handle: Any = None

    def draw(self, done: Sequence[str], opened: Sequence[tuple[str, float | None]]) -> None:
        """`done`: lines of phases that have ended; `opened`: the line of each open one, and the share that is done."""
        from IPython.display import DisplayHandle

        lines = [*done, *(line for line, _ in opened)]
        if not lines and self._handle is None:
            return
        rows = [_row(line, "") for line in done] + [_row(line, _bar(share)) for line, share in opened]
        data = {"text/html": "".join(rows), "text/plain": "\n".join(lines)}
        if self._handle is None:
            self._handle = DisplayHandle()
            self._handle.display(data, raw=True)
        else:
            self._handle.update(data, raw=True)


def _row(line: str, bar: str) -> str:
    return f"<div style='font-family: monospace; white-space: pre-wrap'>{bar}{html.escape(line)}</div>"


def _bar(share: float | None) -> str:
    value = "" if share is None else f" value='{share:.4f}'"
    return f"<progress max='1'{value} style='width: 12em; vertical-align: middle; margin-right: 1em'></progress>"
