"""Why pairs whose sides are drawn at random move captions: `python -m benchmarks.random_sides --draws 8 --jobs 2`.

The pairs and runs are those of tests/effects/test_preferences.py on seed 0: with the sides as judged, drawn at random
`--draws` times, and with each pair in both orders, which prefers nothing. Of each run: what its greedy captions state
and what captions that are drawn from it state, on 200 test pictures; how probable a colour is behind the captions'
first "a", where this start is undecided; and how far the draw leans: by how much more the chosen sides state than the
rejected ones. Writes docs/random_sides.json, from which `python -m benchmarks.preferences` makes a table. A run takes
half a minute of one core; those that are in `--runs` are read.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from benchmarks.scene_pairs import NUM_PICTURES, WORLD, Row, at_random, collecting, exchanged
from capkit.checkpoint.loading import load_captioner
from capkit.config.arguments import parse
from capkit.config.compose import compose_config
from capkit.config.instantiate import build
from capkit.decoding.config import Decoding
from capkit.sceneworld.metrics.facts import fact_scores
from capkit.sceneworld.world.options import COLORS
from capkit.utils.files import write_atomically

ROOT = Path(__file__).parents[1]
START = ROOT / "tests" / "effects" / "starts" / "hallucinating-0"
TABLE = ROOT / "docs" / "random_sides.json"
BRIEF = ["data.val.source.count=24", "data.test.source.count=200", "controls=0", "trainer=cpu", "trainer.devices=1"]
NUM_SAMPLES = 4


def capkit(*words: str) -> None:
    command = [sys.executable, "-c", "from capkit.cli import main; raise SystemExit(main())"]
    subprocess.run([*command, *words], check=True, cwd=ROOT)


def collect(out: Path) -> list[Row]:
    """200 pairs of the start's own captions, as the effect test collects them."""
    if not out.exists():
        capkit(*collecting(START, 0, out))
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def with_sides(rows: Sequence[Row], name: str) -> list[Row]:
    """The pairs of a run: `judged`, `both orders`, or `draw N`."""
    if name == "judged":
        return list(rows)
    if name == "both orders":
        return [side for row in rows for side in (row, exchanged(row))]
    return at_random(rows, int(name.split()[1]))


def lean(rows: Sequence[Row]) -> dict[str, float]:
    """By how much the chosen sides have more than the rejected ones: share and number of true claims, colours."""
    by = {"share": "true_claims", "number": "num_true_claims"}
    found = {
        name: float(np.mean([row["scores"][0] - row["scores"][1] for row in rows if row["criterion"] == criterion]))
        for name, criterion in by.items()
    }
    return {
        **found,
        "colours": float(np.mean([num_colours(row["chosen"]) - num_colours(row["rejected"]) for row in rows])),
    }


def num_colours(text: str) -> int:
    return sum(word.strip(",.") in COLORS for word in text.split())


@torch.no_grad()
def measure(ckpt: Path) -> dict[str, float]:
    """What a captioner states, greedily and drawn, and how probable a colour is as its second word."""
    model, _ = load_captioner(str(ckpt))
    data = build(compose_config(parse(["task=fit", "model=sceneworld_small", *WORLD, *BRIEF])).config.data)
    data.prepare_data()
    vocabulary = model.eval().tokenizer.get_vocab()
    colors = torch.tensor([vocabulary[color] for color in COLORS if color in vocabulary])
    texts: dict[str, list[str]] = {"greedy": [], "drawn": []}
    about: dict[str, list[Row]] = {"greedy": [], "drawn": []}
    next_word = []
    for batch in data.eval_dataloader("test", 200):
        context = model.encode(batch)
        for name, method, count in (("greedy", "greedy", 1), ("drawn", "sample", NUM_SAMPLES)):
            found = model.generate(context, Decoding(method=method, max_length=16), count).texts
            texts[name] += [text for own in found for text in own]
            about[name] += [row for row in batch.metadata for _ in range(count)]
        begun = torch.tensor([model.tokenizer.bos_token_id, vocabulary["a"]]).expand(len(batch), 1, 2)
        next_word.append(model(context, begun, torch.ones_like(begun, dtype=torch.bool))[:, 0, -1].softmax(-1))
    numbers: dict[str, float] = {}
    for name, captions in texts.items():
        facts = fact_scores(captions, about[name])
        numbers |= {f"{name} {key}": facts[f"fact_{key}"] for key in ("precision", "recall")}
        numbers[f"{name} colours"] = float(np.mean([num_colours(text) for text in captions]))
    words = torch.cat(next_word)
    lead = words[:, colors].max(-1).values - words.index_fill(1, colors, 0).max(-1).values
    return {
        **numbers,
        "undecided": float((lead.abs() < 0.2).float().mean()),
        "colour": float(words[:, colors].sum(-1).mean()),
    }


def one(name: str, runs: Path) -> Row:
    """A run and its numbers, from its file where it is there."""
    file = runs / f"{name.replace(' ', '-')}.json"
    if not file.exists():
        if name == "start":
            row = {"name": name, **measure(START)}
        else:
            rows, pairs, folder = (
                with_sides(collect(runs / "pairs.jsonl"), name),
                file.with_suffix(".jsonl"),
                file.with_suffix(""),
            )
            write_atomically(pairs, "".join(json.dumps(row) + "\n" for row in rows))
            if not (folder / "report.html").exists():
                capkit(
                    "experiment=feedquill_dpo_sceneworld", f"init_from={START}", "seed=0", NUM_PICTURES, *BRIEF,
                    f"pairs={pairs}", f"run_dir={folder}",
                )  # fmt: skip
            row = {"name": name, "lean": lean(rows), **measure(folder)}
        write_atomically(file, json.dumps(row) + "\n")
    return json.loads(file.read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=1, help="runs at once")
    parser.add_argument("--runs", type=Path, default=Path("runs/random_sides"))
    parser.add_argument("--out", type=Path, default=TABLE)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    runs = given.runs.resolve()
    runs.mkdir(parents=True, exist_ok=True)
    if given.one:
        torch.set_num_threads(1)
        one(given.one, runs)
        return
    collect(runs / "pairs.jsonl")
    names = ["start", "judged", "both orders", *(f"draw {number}" for number in range(given.draws))]
    script = [sys.executable, "-m", "benchmarks.random_sides", "--runs", str(runs), "--one"]
    with ThreadPoolExecutor(given.jobs) as pool:
        list(pool.map(lambda name: subprocess.run([*script, name], check=True, cwd=ROOT), names))
    write_atomically(given.out, json.dumps([one(name, runs) for name in names], indent=1) + "\n")
    print(f"wrote {given.out}; now python -m benchmarks.preferences")


if __name__ == "__main__":
    main()
