"""The COCO metrics of two files, without torch: `python -m capkit.metrics PREDICTIONS REFERENCES`."""

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from capkit.data.prediction_files import images_to_score, match, one_each, read_captions
from capkit.errors import USAGE_STATUS, UsageError
from capkit.metrics.coco.document_frequencies import DocumentFrequencies
from capkit.metrics.coco.named import NAMED, USUAL, check_named, score_named
from capkit.utils.files import output_file, write_json


def main(words: Sequence[str] | None = None) -> int:
    """Score, print the numbers, and write them where `--out` says; returns the exit status."""
    given = _parser().parse_args(words)
    try:
        numbers, num_images = _score(given)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE_STATUS
    width = max(map(len, numbers))
    print("\n".join(f"{name:<{width}}  {value:.4f}" for name, value in numbers.items()))
    print(f"{num_images:,} images")
    return 0


def _score(given: argparse.Namespace) -> tuple[dict[str, float], int]:
    metrics = check_named(given.metrics, given.language, has_others=False)
    out = None if given.out is None else output_file(given.out)
    frequencies = None if given.document_frequencies is None else DocumentFrequencies.load(given.document_frequencies)
    predictions, references = (
        read_captions(path, what)
        for path, what in ((given.predictions, "predictions"), (given.references, "references"))
    )
    found = match(predictions, references)
    captions = one_each(found, given.predictions)
    images = images_to_score(found, references, given.missing)
    targets = [references.captions[image] for image in images]
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: print(f"note: {message}", file=sys.stderr)
        numbers, _ = score_named(metrics, [captions[image] for image in images], targets, given.language, frequencies)
    if out is not None:
        write_json(out, numbers)
    return numbers, len(images)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m capkit.metrics", description="Scores captions against references.")
    parser.add_argument("predictions", type=Path, help="one caption an image: COCO results, JSON, JSON lines, CSV")
    parser.add_argument("references", type=Path, help="COCO annotations, Karpathy's JSON, JSON, JSON lines, CSV")
    parser.add_argument("--metrics", nargs="+", default=list(USUAL), metavar="NAME", help=", ".join(NAMED))
    parser.add_argument("--language", default="en", help="of the captions")
    parser.add_argument("--document-frequencies", metavar="FILE", help="CIDEr's, saved; else those of the references")
    parser.add_argument("--missing", choices=("error", "ignore"), default="error", help="images without a prediction")
    parser.add_argument("--out", metavar="FILE", help="the numbers as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
