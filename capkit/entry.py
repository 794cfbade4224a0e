"""The command `capkit`, and what is said where capkit was installed to score texts alone."""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

# Of the extra `train`, what the command line and the API import in any case.
NEEDED = (
    "torch", "torchvision", "lightning", "transformers", "huggingface_hub", "peft", "hydra", "torchmetrics", "xxhash",
    "simplejpeg", "urllib3", "jinja2", "packaging",
)  # fmt: skip


def what_is_missing() -> str | None:
    """What to install, where capkit was installed to score texts alone; else None. Imports nothing."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if not missing:
        return None
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    return (
        f"expected what training needs, got no {', '.join(missing[:3])}{more}: this installation scores texts, by "
        "`python -m capkit.metrics PREDICTIONS REFERENCES` and the functions of capkit.metrics; for everything else "
        "pip install 'capkit[train]'"
    )


def imported(module: str) -> ModuleType:
    """A module that needs the extra `train`. Raises ImportError with what to install where it is not there."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if told := what_is_missing():
            raise ImportError(f"{module}: {told}") from error
        raise


def main(argv: Sequence[str] | None = None) -> int:
    """`capkit.cli.main`, or one message where what it needs is not installed."""
    if told := what_is_missing():
        print(f"error: capkit: {told}", file=sys.stderr)
        return 2
    try:
        from capkit.cli import main as command_line
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", flush=True)
        return 130  # as capkit/errors.py says; imports nothing
    return command_line(None if argv is None else list(argv))
