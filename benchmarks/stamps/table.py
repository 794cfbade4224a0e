"""The command line of what is measured on the stamps over seeds and kept as numbers in docs/."""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from capkit.utils.files import write_atomically

DOCS = Path(__file__).parents[2] / "docs"

Found = TypeVar("Found")


def write_table(
    name: str,
    about: str | None,
    one_seed: Callable[[Path, int, list[str]], Found],
    summarize: Callable[[Sequence[Found]], dict[str, Any]],
) -> None:
    """Runs each seed of the command line in `--runs` and writes the summary to docs/stamps_NAME.json.

    `one_seed` gets the folder of runs, the seed and the words of all runs. `about` is what `--help` says.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--runs", type=Path, default=Path(f"runs/stamps_{name}"))
    parser.add_argument("--out", type=Path, default=DOCS / f"stamps_{name}.json")
    parser.add_argument("overrides", nargs="*", help="settings of all runs, such as trainer=gpu")
    given = parser.parse_args()
    given.runs.mkdir(parents=True, exist_ok=True)
    found = summarize([one_seed(given.runs.resolve(), seed, given.overrides) for seed in given.seeds])
    write_atomically(given.out, json.dumps({"seeds": given.seeds, **found}, indent=1) + "\n")
    print(f"wrote {given.out}; now python -m benchmarks.preferences")
