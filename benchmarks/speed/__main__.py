"""How long the parts of training take beside what a user would take instead, on the same machine in one run.

    python -m benchmarks.speed [SECTION ...] [--rows PATTERN] [--rounds 10] [--out FILE] [--plot FILE] [--tiny]
    python -m benchmarks.speed --devices 2 [--rows PATTERN] [--rounds 10] [--out FILE] [--tiny]

Sides run in turn. Prints a table; `--out` keeps all numbers as JSON. `--tiny` is small enough for a CPU, to try the
program. transformers' static cache compiles, half a minute a row: `--no-static` leaves it out.
`--devices` runs whole steps on one GPU and on several instead of the sections: benchmarks/speed/spread.py.
"""

import argparse
import datetime
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.speed import data, growth, growth_plot, guided, rollout, spread, startup, step, training
from benchmarks.speed.measure import Side

SECTIONS: dict[str, Any] = {
    "rollout": rollout, "guided": guided, "mle": training.MLE, "update": training.UPDATE, "step": step, "data": data,
    "growth": growth, "startup": startup,
}  # fmt: skip
COLUMNS = (
    "work",
    "side",
    "ms (median, range)",
    "over capkit",
    "GPU busy ms",
    "kernels",
    "host waits",
    "GiB",
    "captions/s",
    "share of matmul",
    "first s",
    "CPU s",
)


def line(work: str, side: Side) -> str:
    if side.out_of_memory:
        return f"| {work} | {side.name} | out of memory |" + " |" * (len(COLUMNS) - 3)
    cells = [
        work, side.name, f"{side.ms:.1f} [{side.fastest:.1f} .. {side.slowest:.1f}]", f"{side.ratio:.2f}",
        "" if side.busy_ms is None else f"{side.busy_ms:.1f}", "" if side.kernels is None else str(side.kernels),
        "" if side.host_waits is None else str(side.host_waits), f"{side.gib:.1f}",
        "" if side.per_second is None else f"{side.per_second:,.0f}",
        "" if side.share is None else f"{side.share:.1%}", f"{side.first_s:.1f}",
        "" if side.cpu_s is None else f"{side.cpu_s:.2f}",
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def main(words: Sequence[str] | None = None) -> None:
    """The command line; `words` in place of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; none: all")
    parser.add_argument("--rows", default="", help="only rows in whose name this regular expression is found")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path, help="keep all numbers in this JSON file")
    parser.add_argument("--plot", type=Path, help="draw the curves of section growth into this SVG")
    parser.add_argument("--tiny", action="store_true", help="a few layers and images")
    parser.add_argument("--devices", type=int, default=1, help="GPUs; where there are fewer, processes on the CPU")
    parser.add_argument("--no-static", action="store_true", help="leave out sides of transformers that compile")
    args = parser.parse_args(words)
    if unknown := set(args.sections) - set(SECTIONS):
        parser.error(f"expected sections of {', '.join(SECTIONS)}; got {', '.join(sorted(unknown))}")
    if args.devices > 1 and args.sections:
        parser.error(f"expected no section with --devices {args.devices}; got {', '.join(args.sections)}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    about = {
        "device": name, "date": str(datetime.date.today()), "torch": torch.__version__,
        "transformers": transformers.__version__, "rounds": args.rounds,
    }  # fmt: skip
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    columns = COLUMNS if args.devices == 1 else spread.COLUMNS
    print("| " + " | ".join(columns) + " |\n" + "|" + " --- |" * len(columns), flush=True)
    rows: list[dict[str, Any]] = []
    if args.devices > 1:
        for found, numbers in spread.run(args.devices, args.rows, args.rounds, args.tiny):
            print(*found, sep="\n", flush=True)
            rows += numbers
            if args.out:
                args.out.write_text(json.dumps({**about, "rows": rows}, indent=1))
        return
    for section in args.sections or SECTIONS:
        for row in SECTIONS[section].rows(args.tiny):
            if not re.search(args.rows, row.name):
                continue
            sides = SECTIONS[section].measure(row, args.tiny, device, args.rounds, not args.no_static)
            for side in sides:
                print(line(row.name, side), flush=True)
                rows.append({"section": section, "work": row.name, **side.as_row()})
            if args.out:  # after each row: what was measured stays if a later one fails
                args.out.write_text(json.dumps({**about, "rows": rows}, indent=1))
    if args.plot:
        print(growth_plot.table(rows))
        args.plot.write_text(growth_plot.plot(rows))


if __name__ == "__main__":
    main()
