"""CapRL's reward on the stamps, with its control: `python -m benchmarks.stamps.question_reward [--seeds 0]`.

Of each picture four questions are made of its human caption: what it shows, the head noun or three of other captions,
drawn anew for each. SmolLM2-135M answers by the options' texts (cloze). A seed: a captioner of the one part of the
training captions (experiment=stamps_mle), then experiment=stamps_qa and stamps_qa_shuffled, 40 steps on the pictures of
the other part. The reader's accuracy on the test pictures is measured with the human caption, with none, and with the
captions before and after either training. Run folders that are finished are read, not trained again.

Intervals are bootstraps over pictures, whose accuracies are averaged over seeds first; differences are paired. Needs
`capkit prepare data=stamps` and `pip install 'capkit[stamps,tagger]'`.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.stamps.questions import EMPTY, HUMAN, head_nouns, questions
from benchmarks.stamps.runs import interval, read_rows
from benchmarks.stamps.self_retrieval import BASE, train
from capkit.assets.cache import path
from capkit.data.sources.stamps import Stamps
from capkit.metrics.caption_qa import CaptionQA
from capkit.metrics.degeneration import sample_numbers
from capkit.readers.hf import HFReader

NUM_DRAWS = 4  # questions of a picture
REWARDED: dict[str, Any] = {"split": "val", "test": 0.3, "val": 0.3}  # as in experiment=stamps_qa
RUNS = {"after": "stamps_qa", "control": "stamps_qa_shuffled"}

# Per picture: the share of its questions that were answered rightly.
Right = np.ndarray


def human_captions(split: Literal["train", "test"]) -> dict[str, str]:
    """Of the pictures that are rewarded, or of the test split, by key."""
    source = Stamps(path("tuxpaint-stamps"), **(REWARDED if split == "train" else {"split": "test"}))
    records = [source.record(index) for index in range(len(source))]
    return {record.key: record.captions[0].text for record in records}


def several(captions: Mapping[str, str], nouns: Sequence[str | None]) -> dict[str, list[Any]]:
    """CaptionQA's file: NUM_DRAWS questions about each picture that has a head noun, with other wrong choices each."""
    draws = [questions(captions, nouns, seed) for seed in range(NUM_DRAWS)]
    return {key: [draw[key][0] for draw in draws] for key in draws[0]}


def write_questions(out: Path) -> dict[str, Path]:
    """The files of either split; they are made once."""
    files = {split: out / f"questions_{split}.json" for split in ("train", "test")}
    for split, file in files.items():
        if not file.exists():
            captions = human_captions(split)  # type: ignore[arg-type]
            asked = several(captions, head_nouns(list(captions.values())))
            file.write_text(json.dumps(asked, indent=1, ensure_ascii=False), encoding="utf-8")
    return files


def train_seed(out: Path, file: Path, seed: int, words: Sequence[str]) -> dict[str, Path]:
    """The run folders of a seed."""
    shared = [f"seed={seed}", *words]
    mle = train(out / f"mle-{seed}", "experiment=stamps_mle", *BASE, *shared)
    asked = [f"init_from={mle}", f"question_set.path={file}", f"reader.cache_dir={out / 'answers'}", *shared]
    return {name: train(out / f"{name}-{seed}", f"experiment={run}", *asked) for name, run in RUNS.items()}


def captions_of(folder: Path, name: str, keys: Sequence[str]) -> list[str]:
    rows = {row["key"]: row["caption"] for row in read_rows(folder, name)}
    return [rows[key] for key in keys]


def answered(metric: CaptionQA, keys: Sequence[str], captions: Sequence[str]) -> Right:
    judged = metric.judged(list(captions), [[] for _ in keys], [{"key": key} for key in keys])
    return np.array([found.values["right"] / found.values["questions"] for found in judged])


def summarize(
    right: Mapping[str, Sequence[Right]], texts: Mapping[str, Sequence[Sequence[str]]]
) -> dict[str, dict[str, Any]]:
    """Accuracy by who wrote the captions, its difference to that before training, words and repetition of each seed."""
    means = {name: np.mean(of_seeds, axis=0) for name, of_seeds in right.items()}
    table = {}
    for name, mean in means.items():
        shapes = [sample_numbers(list(captions)) for captions in texts[name]]
        table[name] = {
            "accuracy": interval(mean),
            "more than before": interval(mean - means["before"]),
            "seeds": [float(one.mean()) for one in right[name]],
            "words": [float(np.mean([len(text.split()) for text in captions])) for captions in texts[name]],
            "repetition": [shape["repetition"] for shape in shapes],
        }
    return table


def show(table: Mapping[str, Mapping[str, Any]], num_pictures: int) -> None:
    title = f"{num_pictures} test pictures, {NUM_DRAWS} questions each, 95 % intervals over pictures; chance 25 %"
    view = Table("captions", "right %", "more than before", "words", "repetition", title=title)
    for name, found in table.items():
        numbers = ["{:.1f} ({:.1f} to {:.1f})".format(*(100 * x for x in found[key])) for key in NUMBERS]
        shape = [" ".join(f"{value:.{digits}f}" for value in found[key]) for key, digits in SHAPE.items()]
        view.add_row(name, *numbers, *shape)
    Console(width=120).print(view)


NUMBERS, SHAPE = ("accuracy", "more than before"), {"words": 1, "repetition": 3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/stamps-question-reward"))
    parser.add_argument("words", nargs="*", help="settings of all trainings, such as trainer=gpu")
    given = parser.parse_args()
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    files = write_questions(out)
    runs = [train_seed(out, files["train"], seed, given.words) for seed in given.seeds]
    keys, human = list(json.loads(files["test"].read_text(encoding="utf-8"))), human_captions("test")
    reader = HFReader(path("smollm2-135m"), "cloze", cache_dir=str(out / "answers"))
    metric = CaptionQA(reader, str(files["test"]), abstain=False)
    texts: dict[str, list[list[str]]] = {
        HUMAN: [[human[key] for key in keys]],
        EMPTY: [[""] * len(keys)],
        "before": [captions_of(run["after"], "test_initial", keys) for run in runs],
        **{name: [captions_of(run[name], "test", keys) for run in runs] for name in RUNS},
    }
    right = {name: [answered(metric, keys, of_seed) for of_seed in of_seeds] for name, of_seeds in texts.items()}
    table = summarize(right, texts)
    show(table, len(keys))
    (out / "numbers.json").write_text(json.dumps(table, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
