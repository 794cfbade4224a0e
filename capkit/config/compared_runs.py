"""What `capkit compare` needs of its runs, told before torch is imported."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from capkit.config.run_config import CONFIG


def run_folder_of(path: Path) -> Path | None:
    """The folder of the run that a path names, which may be a checkpoint in it; None if there is none."""
    inside = path.parents[1:2] if path.parent.name == "checkpoints" else []
    return next((own for own in (path, *inside) if (own / CONFIG).is_file()), None)


def problem_with_runs(config: Mapping[str, Any]) -> str | None:
    """Why the runs of a compare task's config cannot be compared, as far as their folders tell."""
    runs = config.get("runs")
    paths: Sequence[Any] = runs if isinstance(runs, list) else []
    for path in map(str, paths):
        if not Path(path).exists():
            return f"runs: expected run folders, got {path}: no such folder from {Path.cwd()}; give the run's folder"
        if run_folder_of(Path(path)) is None:
            return f"runs: expected run folders, got {path}, which has no {CONFIG}; give the run's folder"
    if len({run_folder_of(Path(path).resolve()) for path in map(str, paths)}) < max(2, len(paths)):
        given = ", ".join(map(str, paths)) or "none"
        return f"runs: expected two different runs or more, got {given}; give runs=[A,B]"
    return None
