"""What self-retrieval does to captions on SceneWorld, with controls, over seeds, as tables.

    python -m benchmarks.rl.self_retrieval_effects --out runs/retrieval [--seeds 0 1 2] [--only bags] [--table FILE]

- listener: self-retrieval against a listener that is asked for another picture.
- bags: batches of mined look-alikes against random batches, at equal steps, in a world where random pictures seldom
  need what the starting captions leave out; random batches of four times the size as well (look_alike_bags.py).
- captions: likelihood training on plain, merged and enriched captions (boosted_captions.py).
- boosting: self-retrieval after generic captions against self-retrieval after merged ones (BlendCap), by judges that
  have read both, at the experiment's learning rate, one that decays and a lower one.

Every run, mining and curating included, is kept in --out: what is complete is not made again, and what was cut goes on.
Recalls are by a judge that no reward saw.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.rl import boosted_captions
from benchmarks.rl.boosted_captions import KINDS
from benchmarks.rl.effects import Study, table
from benchmarks.rl.look_alike_bags import ARMS, Comparison
from benchmarks.starts import STARTS

BAG_COLUMNS = {
    "R@1 in bags of 5": "truematch_5_r1",
    "CLIP score": "truematch_5_clip_score",
    "R@1 in 20": "rd20_r1",
    "background said": "background_said",
    "said rightly": "background_precision",
    "fact precision": "fact_precision",
    "fact recall": "fact_recall",
    "words": "length",
}
CAPTION_COLUMNS = {
    "R@1 in 20": "rd20_r1",
    "fact recall": "fact_recall",
    "fact precision": "fact_precision",
    "colours named": "color_recall",
    "background named": "background_recall",
    "words": "length",
}
BOOST_COLUMNS = {
    "R@1 in 20": "rd20_r1",
    "colours named": "color_recall",
    "colours right": "color_precision",
    "fact precision": "fact_precision",
    "fact recall": "fact_recall",
    "words": "length",
}


def listener(study: Study, seeds: Sequence[int]) -> str:
    arms = ["retrieval", "retrieval_shuffled"]
    for seed in seeds:
        for arm in arms:
            study.arm(arm, seed)
    return table(study, arms, list(seeds))


# Bags of look-alikes against random batches ---------------------------------------------------------------------------


def bags(study: Study, seeds: Sequence[int]) -> str:
    rows: dict[str, list[dict[str, float]]] = {}
    for seed in seeds:
        comparison = Comparison(
            study.run, lambda name, seed: study.run(f"{name}-{seed}", STARTS[name].words_of(seed)), seed
        )
        for arm in ("start", *ARMS):
            rows.setdefault(arm, []).append(comparison.numbers(arm))
    return table_of(rows, BAG_COLUMNS)


def captions(study: Study, seeds: Sequence[int]) -> str:
    """Likelihood training on each kind of captions."""
    rows = {f"MLE({kind})": [boosted_captions.numbers(study, kind, seed) for seed in seeds] for kind in KINDS}
    return table_of(rows, CAPTION_COLUMNS)


# Generic captions against merged ones ---------------------------------------------------------------------------------

LONG = ["data.max_length=20", "decoding.max_length=20"]  # merged captions are sentences
RATES = {"5e-4": [], "5e-4 to 0": ["scheduler=linear"], "1e-4": ["optimizer.lr=1.0e-4"]}


def blended(study: Study, name: str, world: Sequence[str] = (), step: Sequence[str] = ()) -> list[str]:
    """The data of manifests: training pictures with the BlendCap of their five captions; val and test as they are."""
    out = study.out / name
    words = ["task=curate", "data=sceneworld_generic", f"out={out}", *world]
    study.run(name, [*words, *step], made="train.jsonl")
    study.run(name, [*words, "step=[]", "splits=[val,test]"], made="test.jsonl")
    paths = [f"data.{split}.path={out / split}.jsonl" for split in ("train", "val", "test")]
    return ["data=manifest", *paths, "data.transform.size=32", "data.num_workers=0", *LONG[:1]]


def reading_judge(study: Study, seed: int) -> Path:
    """A dual encoder of full captions, each picture's five lists and their BlendCap, a sentence for each object."""
    data = blended(study, "full", ["data.train.dropped=0"], ["step.blend_captions.keep=true"])
    words = ["experiment=judge_sceneworld", *data, "~data.train.dropped", "max_steps=1200", f"seed={seed}"]
    return study.run(f"reading_judge-{seed}", words)


def boosted_captioner(study: Study, seed: int) -> Path:
    data = [*blended(study, "blended"), LONG[1], "data.captions_per_image=1"]
    return study.run(
        f"boosted_start-{seed}", ["experiment=generic_mle_sceneworld", *data, f"seed={seed}", "controls=0"]
    )


def tuned_by_readers(study: Study, start: Path, rate: str, seed: int) -> Path:
    judges = [f"reward_encoder={reading_judge(study, 0)}", f"eval_encoder={reading_judge(study, 1)}"]
    words = ["experiment=discritune_sceneworld", f"init_from={start}", f"seed={seed}", *LONG, *judges, *RATES[rate]]
    return study.run(f"{start.name}-{rate.replace(' ', '_')}", words)


def boosting(study: Study, seeds: Sequence[int]) -> str:
    rows: dict[str, list[dict[str, float]]] = {}
    for name, start_of in (("generic", partial(study.base, "generic")), ("merged", partial(boosted_captioner, study))):
        for rate in RATES:
            found = [metrics(tuned_by_readers(study, start_of(seed), rate, seed)) for seed in seeds]
            rows[f"{name}: start"] = [initial(numbers) for numbers in found]
            rows[f"{name}, {rate}"] = found
    return table_of(rows, BOOST_COLUMNS)


# ----------------------------------------------------------------------------------------------------------------------


def metrics(folder: Path) -> dict[str, float]:
    """Final numbers of the test split, by their names alone."""
    found: dict[str, float] = json.loads((folder / "metrics.json").read_text())
    return {name.removeprefix("test/"): value for name, value in found.items() if name.startswith("test/")}


def initial(found: dict[str, float]) -> dict[str, float]:
    """The same numbers of the captioner that the run started from."""
    return {name.removeprefix("initial/"): value for name, value in found.items() if name.startswith("initial/")}


def table_of(rows: dict[str, list[dict[str, float]]], columns: dict[str, str]) -> str:
    """A line for each name, "seed seed seed" in each cell."""
    lines = [f"| | {' | '.join(columns)} |", f"| --- |{' --- |' * len(columns)}"]
    for name, found in rows.items():
        cells = [" ".join(f"{numbers[key]:.3f}" for numbers in found) for key in columns.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


PARTS: dict[str, Callable[[Study, Sequence[int]], str]] = {
    "listener": listener,
    "bags": bags,
    "captions": captions,
    "boosting": boosting,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/self_retrieval"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--table", type=Path, help="write the tables to this file too")
    given = parser.parse_args()
    study = Study(given.out)
    text = f"Made {time.strftime('%Y-%m-%d')}, seeds {given.seeds}.\n"
    for part in given.only:
        text += f"\n{part}\n\n{PARTS[part](study, given.seeds)}\n"
    print(text)
    if given.table is not None:
        given.table.write_text(text)


if __name__ == "__main__":
    main()
