"""task=wandb_sync: uploads a run folder's records as one wandb run, however many attempts the run took."""

import json
import os
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from capkit.errors import RunFailure, UsageError
from capkit.run.folder import RunFolder, read_object
from capkit.run.metric_names import SAMPLES
from capkit.run.predictions import captions_by_key, references_by_key
from capkit.run.wandb_logger import STATE, wandb_id
from capkit.utils.console import print_on
from capkit.utils.files import write_atomically

NO_NUMBERS = ("step", "attempt", "time")
NUM_TABLE_ROWS = 24


def run(cfg: DictConfig) -> dict[str, float]:
    """Send current rows of metrics.jsonl, config, final numbers and captions to wandb; returns the final numbers.

    Each run folder remembers the id of its wandb run, so that a second call adds only what is new. Offline, each call
    rewrites the whole run for `wandb sync` to upload.
    """
    folder = RunFolder(cfg.run_dir or "")
    if not cfg.run_dir or not folder.metrics_log.exists():
        raise UsageError(f"wandb_sync: expected run_dir=RUN, a folder with a metrics.jsonl; got {cfg.run_dir}")
    if cfg.mode not in ("auto", "online", "offline"):
        raise UsageError(f"expected mode to be auto, online or offline; got {cfg.mode!r}")
    samples = _samples(folder)  # a damaged file is told before anything is sent
    import wandb

    mode = cfg.mode
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or ("online" if wandb.api.api_key else "offline")
    state = _state(folder)
    if mode == "offline":
        _remove_earlier(folder, state)
    try:
        this = wandb.init(
            id=state["id"],
            resume="allow" if mode == "online" else None,
            project=cfg.project,
            entity=cfg.entity,
            name=folder.path.name,
            mode=mode,  # type: ignore[arg-type]
            dir=str(folder.path),
            config=folder.config(),
            settings=wandb.Settings(finish_timeout=600, finish_timeout_raises=True),
        )
        sent = _replay(this, folder, samples)
        this.finish()
    except (wandb.Error, TimeoutError) as error:
        raise RunFailure(f"wandb failed ({error}); metrics.jsonl is intact: try again, or use mode=offline") from error
    if mode == "offline":
        state["folder"] = str(Path(this.dir).parent.relative_to(folder.path.absolute()))
    write_atomically(folder.path / STATE, json.dumps(state) + "\n")
    print_on(f"{sent} steps sent to the wandb run {state['id']}")
    if mode == "offline":
        print_on(f"upload it: wandb sync {folder.path / state['folder']}")
    return folder.metrics()


def _state(folder: RunFolder) -> dict[str, Any]:
    """State with the id of the folder's wandb run, written before anything is sent, so that a failed call keeps it."""
    found = wandb_id(folder)
    return read_object(folder.path / STATE, "delete it to send the run as a new one") | {"id": found}


def _remove_earlier(folder: RunFolder, state: dict[str, Any]) -> None:
    """Remove the folder of an earlier offline call: only one named by wandb, within the run folder's wandb/."""
    name = Path(str(state.get("folder"))).name
    earlier = folder.path / "wandb" / name
    if name.startswith("offline-run-") and name.endswith(state["id"]) and not earlier.is_symlink():
        shutil.rmtree(earlier, ignore_errors=True)


def steps_of(folder: RunFolder) -> Iterator[tuple[int, dict[str, float]]]:
    """The numbers of each step, in order; final numbers are added to the last step."""
    steps: dict[int, dict[str, float]] = {}
    for row in folder.current_rows():
        numbers = {name: value for name, value in row.items() if name not in NO_NUMBERS}
        steps.setdefault(row["step"], {}).update(numbers)
    if final := folder.metrics():
        steps.setdefault(max(steps, default=0), {}).update(final)
    yield from sorted(steps.items())


def _replay(this: Any, folder: RunFolder, samples: list[dict[str, str]]) -> int:
    """Log the steps beyond those that the wandb run has; returns how many there were."""
    import wandb

    sent = 0
    for step, numbers in steps_of(folder):
        if step >= this.step:
            this.log(numbers, step=step)
            sent += 1
    this.summary.update(folder.metrics())
    if samples:
        table = wandb.Table(columns=["key", "caption", "references"], data=[list(row.values()) for row in samples])
        this.log({SAMPLES: table})
    return sent


def _samples(folder: RunFolder) -> list[dict[str, str]]:
    """The first captions of the test split, if they were written, and their references, if these were.

    Images are only in the report.
    """
    references = references_by_key(folder, "test")
    captions = islice(captions_by_key(folder, "test").items(), NUM_TABLE_ROWS)
    return [
        {"key": key, "caption": caption, "references": "\n".join(references.get(key, []))} for key, caption in captions
    ]
