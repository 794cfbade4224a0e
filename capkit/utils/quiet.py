"""Suppresses messages of libraries that users cannot act on."""

import logging
import re
import sys
import warnings
from typing import TextIO

from capkit.utils.console import loudness, speaks

_shown: set[str] = set()


def show_once(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show a warning as one line, once per text, and without the place in the source (often a library's).

    Python itself forgets what it has shown whenever a library changes the filters.
    """
    text = f"{'warning' if issubclass(category, UserWarning) else category.__name__}: {message}\n"
    if text not in _shown:
        _shown.add(text)
        (file or sys.stderr).write(text)


# Ignored warnings: about how capkit uses Lightning and torch, and about a GPU that does not exist.
WARNINGS = (
    r".*isinstance\(treespec, LeafSpec\).*",
    r".*does not have many workers.*",
    r".*You're resuming from a checkpoint that ended before the epoch ended.*",
    r".*smaller than the logging interval.*",  # of Lightning's own logging: capkit's is the recorder's
    r".*You defined a `validation_step` but have no.*",
    r".*It is recommended to use `self.log.*sync_dist=True.*",
    r".*module\(s\) in eval mode at the start of training.*",
    r".*Checkpoint directory .* exists.*",
    r".*callbacks used to create the checkpoint need to be provided.*",
    r".*GPU available but not used.*",
    r".*Can't initialize NVML.*",
    r".*The pynvml package is deprecated.*",
    r".*The `srun` command is available on your system but is not used.*",  # on any machine that has SLURM
    r".*`torch.jit.load` is deprecated.*",  # OpenAI's files of CLIP are TorchScript
)
# Ignored log messages: advice about calls that capkit makes on purpose.
LOGGED = re.compile(
    r"attention mask|pad_token_id|generation flags are not valid|loss_type=None|unauthenticated requests"
    r"|tied weights|fast processor|use_fast",
    re.IGNORECASE,
)
LIBRARIES = ("transformers", "huggingface_hub")


class _Advice(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno > logging.WARNING or not LOGGED.search(record.getMessage())


_ADVICE = _Advice()


def quiet_libraries() -> None:
    """Called by each task in every process before it builds anything.

    Warnings that users can act on go through `show_once`. Downloads keep their progress bar on rank 0. With `--verbose`
    everything is shown as it is.
    """
    if loudness() == "verbose":
        return
    warnings.showwarning = show_once
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message)
    if "transformers" in sys.modules:
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()  # for loading weights from disk, which the console's phase shows
    if "huggingface_hub" in sys.modules and not speaks():
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()
    for library in LIBRARIES:
        for handler in logging.getLogger(library).handlers:
            if _ADVICE not in handler.filters:
                handler.addFilter(_ADVICE)
