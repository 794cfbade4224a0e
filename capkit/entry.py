"""The installed command `capkit`: the command line, where what it needs is installed."""

import importlib.util
import sys

NEEDED = ("torch", "lightning", "hydra")


def main() -> int:
    """`capkit.cli.main`, or one message where capkit was installed to score texts alone."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"error: capkit: expected {', '.join(NEEDED)}, got no {', '.join(missing)}: this installation scores "
            "texts, by `python -m capkit.metrics PREDICTIONS REFERENCES`; to train, pip install 'capkit[train]'",
            file=sys.stderr,
        )
        return 2
    from capkit.cli import main as command_line

    return command_line()
