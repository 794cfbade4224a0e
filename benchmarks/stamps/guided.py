"""Guidance and dialects on the stamps, over several seeds: `python -m benchmarks.stamps.guided --seeds 0 1 2`.

Trains experiment=captioner_ptbr_stamps, whose decoder knows no language before, once a seed for each of: native and
literal Portuguese captions, which `capkit cross` scores on both; English ones, with half of the images missing and with
all, which `capkit frontier` decodes at its scales. Folders that are finished are read. Retrieval is by MiniLM, of a
picture's own caption among those of all test pictures. Writes docs/guided_stamps.json, from which `python -m
benchmarks.guided_effects` makes tables. Needs `capkit prepare data=stamps`; further words go to every training.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.guided_effects import STAMPS
from benchmarks.stamps.runs import hits, read_rows
from capkit.assets.cache import path
from capkit.config.quoting import quote
from capkit.metrics.text_retrieval import TextRetrieval

PORTUGUESE = {"native": ["data=stamps"], "literal": ["data=stamps_literal"]}
ON = {"native": "stamps languages=[pt-BR]", "literal": "stamps_literal"}
ENGLISH = ["data.languages=[en]", "metric.language=en", "metric=[cider,diversity]"]
GUIDED = {"half of the images missing": ["objective.image_dropout=0.5"], "all images": []}


def capkit(*words: str) -> None:
    command = [sys.executable, "-c", "from capkit.cli import main; raise SystemExit(main())"]
    subprocess.run([*command, *words], check=True)


def train(folder: Path, *words: str) -> None:
    if not (folder / "report.html").exists():
        capkit("experiment=captioner_ptbr_stamps", *words, f"run_dir={folder}")


def dialects(out: Path, seed: int, words: Sequence[str]) -> dict[tuple[str, str], dict[str, float]]:
    """Numbers by (captions of training, captions of the test)."""
    for name, own in PORTUGUESE.items():
        train(out / f"{name}-{seed}", *own, f"seed={seed}", *words)
    matrix = out / f"cross-{seed}"
    if not (matrix / "cross.json").exists():
        runs = ",".join(str(out / f"{name}-{seed}") for name in PORTUGUESE)
        capkit("cross", f"runs=[{runs}]", f"data=[{', '.join(ON.values())}]", f"run_dir={matrix}")
    cells = json.loads((matrix / "cross.json").read_text(encoding="utf-8"))["cells"]
    names = {text: name for name, text in ON.items()}
    return {(Path(cell["run"]).name.rpartition("-")[0], names[cell["data"]]): cell["numbers"] for cell in cells}


def frontier(out: Path, seed: int, name: str, words: Sequence[str]) -> dict[float, dict[str, float]]:
    """Numbers by scale, with R@1 in percent."""
    run = f"{'guided' if GUIDED[name] else 'plain'}-{seed}"
    train(out / run, *ENGLISH, *GUIDED[name], f"seed={seed}", *words)
    folder = out / f"frontier-{run}"
    if not (folder / "frontier.json").exists():
        capkit("frontier", f"ckpt={quote(str(out / run))}", f"run_dir={folder}")
    places = json.loads((folder / "frontier.json").read_text(encoding="utf-8"))
    retrieval = TextRetrieval(path("minilm"))
    found = {}
    for place in places:
        r1 = hits(retrieval, read_rows(folder / f"scale-{place['label']}", "test"))[:, 0].mean()
        found[place["scale"]] = {**place["numbers"], "r1": 100 * float(r1)}
    return found


def listed(values: Sequence[float], digits: int = 2) -> str:
    return " ".join(f"{value:.{digits}f}" for value in values)


def tables(seeds: Sequence[int], out: Path, words: Sequence[str]) -> list[dict[str, Any]]:
    matrices = [dialects(out, seed, words) for seed in seeds]
    about = f"`python -m benchmarks.stamps.guided --seeds {' '.join(map(str, seeds))}`; 118 test pictures; each seed."
    kinds = {"CIDEr-D": "cider", "ROUGE-L": "rouge_l", "CIDEr-D, captions of other pictures": "shuffled/cider"}
    dialect = {
        "title": "Real pictures: native and literal Portuguese",
        "about": about,
        "columns": ["captioner", *(f"{title}, on {data}" for title in kinds for data in ON)],
        "rows": [
            [run, *(listed([found[run, data][key] for found in matrices]) for key in kinds.values() for data in ON)]
            for run in PORTUGUESE
        ],
    }
    rows = []
    for name in GUIDED:
        found = [frontier(out, seed, name, words) for seed in seeds]
        for scale in sorted(found[0]):
            of = [numbers[scale] for numbers in found]
            cells = [listed([numbers[key] for numbers in of], digits) for key, digits in FRONTIER.values()]
            rows.append([name, f"{scale:g}", *cells])
    guidance = {
        "title": "Real pictures: guidance",
        "about": about,
        "columns": ["trained with", "scale", *FRONTIER],
        "rows": rows,
    }
    return [dialect, guidance]


FRONTIER = {"R@1 %": ("r1", 1), "CIDEr-D": ("cider", 2), "words": ("length", 1), "repetition": ("repetition", 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/stamps-guided"))
    parser.add_argument("words", nargs="*")
    given = parser.parse_args()
    found = tables(given.seeds, given.out.resolve(), given.words)
    STAMPS.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"wrote {STAMPS}; now python -m benchmarks.guided_effects")


if __name__ == "__main__":
    main()
