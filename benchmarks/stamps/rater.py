"""A rater of the stamps' captions, and the cosine that it has to beat: `python -m benchmarks.stamps.rater --seeds 0`.

A ranking is a person's caption above those of three other pictures and, where it has two words or more, above itself
cut behind a word, with its full stop. A seed: a dual encoder of the one part of the training captions, then
experiment=stamps_rater on rankings of the other part, and again with the captions of each ranking dealt anew, which
say nothing. All are judged on rankings of the test pictures: the share of pairs in which the person's caption has the
higher score. Intervals are 95 % bootstraps over test pictures, whose shares are averaged over seeds first. Run
folders that are finished are read. Writes docs/stamps_rater.json, from which `python -m benchmarks.preferences` makes
a table. Needs `capkit prepare data=stamps`.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.stamps.runs import interval
from benchmarks.stamps.self_retrieval import BASE, train
from benchmarks.stamps.table import write_table
from capkit.assets.cache import path
from capkit.checkpoint.loading import load_dual_encoder
from capkit.checkpoint.raters import load_rater
from capkit.data.features import FeatureStore
from capkit.data.sources.stamps import Stamps, normalized_caption
from capkit.types import CaptionBatch
from capkit.utils.files import write_atomically
from capkit.utils.rng import generator

NUM_OTHERS = 3

Ranking = dict[str, Any]
Shares = dict[str, np.ndarray]


def rankings(source: Stamps, seed: int) -> Iterator[Ranking]:
    """One a picture: its caption, those of other pictures, itself cut; the first above all others."""
    captions = [source.record(index).captions[0].text for index in range(len(source))]
    for index, own in enumerate(captions):
        record = source.record(index)
        others = list(dict.fromkeys(t for t in captions if normalized_caption(t) != normalized_caption(own)))
        drawn = generator(seed, "others", record.key).choice(len(others), NUM_OTHERS, replace=False)
        texts = [own, *(others[place] for place in drawn), *cut(own, seed, record.key)]
        yield {"image": record.key, "captions": texts, "ranking": [0, list(range(1, len(texts)))]}


def cut(caption: str, seed: int, key: str) -> list[str]:
    """The caption without its last words, one at least, and its full stop behind the rest; nothing of a single word."""
    words, end = caption.rstrip(".").split(), "." if caption.endswith(".") else ""
    if len(words) < 2:
        return []
    return [" ".join(words[: int(generator(seed, "cut", key).integers(1, len(words)))]) + end]


def dealt_anew(rows: Sequence[Ranking], seed: int) -> Iterator[Ranking]:
    """Rankings that say nothing: the captions of each in an order that is drawn, under the places that were given."""
    for row in rows:
        order = generator(seed, "dealt", row["image"]).permutation(len(row["captions"]))
        yield {**row, "captions": [row["captions"][place] for place in order]}


def shares(rows: Sequence[Ranking], score: Callable[[str, list[str]], list[float]]) -> Shares:
    """Of each picture the share of pairs whose first caption has the higher score: of all, of others', of cut ones.

    An equal score is half of a pair; NaN where a picture has no such pair.
    """
    found = []
    for row in rows:
        own, *rest = score(row["image"], row["captions"])
        won = [1.0 if own > other else 0.5 if own == other else 0.0 for other in rest]
        found.append([np.mean(won), np.mean(won[:NUM_OTHERS]), np.mean(won[NUM_OTHERS:] or [np.nan])])
    return dict(zip(("all", "others", "cut"), np.array(found).T, strict=True))


def by_rater(ckpt: Path, features: FeatureStore) -> Callable[[str, list[str]], list[float]]:
    rater = load_rater(str(ckpt))

    @torch.no_grad()
    def score(key: str, texts: list[str]) -> list[float]:
        batch = CaptionBatch([key], features=torch.from_numpy(features[[key]]))
        return rater.rate_seen(rater.see(batch), [0] * len(texts), texts).tolist()

    return score


def by_cosine(ckpt: Path, features: FeatureStore) -> Callable[[str, list[str]], list[float]]:
    encoder = load_dual_encoder(str(ckpt)).eval()

    def score(key: str, texts: list[str]) -> list[float]:
        picture = encoder.encode_features(torch.from_numpy(features[[key]]))[0]
        return (encoder.encode_text(texts) @ picture).tolist()

    return score


def write(file: Path, rows: Iterator[Ranking] | Sequence[Ranking]) -> Path:
    write_atomically(file, "".join(json.dumps(row) + "\n" for row in rows))
    return file


def one_seed(runs: Path, seed: int, overrides: list[str]) -> dict[str, Shares]:
    """The shares of one seed by what judges."""
    root = path("tuxpaint-stamps")
    of_rater = Stamps(root, "val", val=0.3, test=0.3)  # as experiment=stamps_rater has them
    trained, tested = (list(rankings(source, seed)) for source in (of_rater, Stamps(root, "test")))
    encoder = train(runs / f"encoder-{seed}", "experiment=stamps_lora_text", *BASE, f"seed={seed}", *overrides)
    words = ["experiment=stamps_rater", f"model.encoder.ckpt={encoder}", f"seed={seed}", *overrides]
    words.append(f"test_ratings={write(runs / f'tested-{seed}.jsonl', tested)}")
    raters = {
        name: train(runs / f"{name}-{seed}", *words, f"ratings={write(runs / f'{name}-{seed}.jsonl', rows)}")
        for name, rows in (("rater", trained), ("dealt", list(dealt_anew(trained, seed))))
    }
    features = FeatureStore(path("stamps-efficientnet-lite0"))
    return {
        "rater": shares(tested, by_rater(raters["rater"], features)),
        "cosine": shares(tested, by_cosine(encoder, features)),
        "rankings dealt anew": shares(tested, by_rater(raters["dealt"], features)),
    }


def summarize(seeds: Sequence[dict[str, Shares]]) -> dict[str, Any]:
    """Means over pictures of the mean over seeds, with intervals; and the rater's lead over the cosine."""
    means = {name: {k: np.mean([one[name][k] for one in seeds], axis=0) for k in seeds[0][name]} for name in seeds[0]}
    means["rater - cosine"] = {k: means["rater"][k] - means["cosine"][k] for k in means["rater"]}
    numbers = {name: {k: interval(v[~np.isnan(v)]) for k, v in kinds.items()} for name, kinds in means.items()}
    return {"numbers": numbers}


if __name__ == "__main__":
    write_table("rater", __doc__, one_seed, summarize)
