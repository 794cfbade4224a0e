"""Matching two images with two captions: Winoground (2204.03162), and MMVP-VLM (Tong et al. 2024, 2401.06209).

P pairs.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from capkit.data.datamodule import CaptionDataModule
from capkit.data.records import Record
from capkit.data.sources.base import DataSource, clean_captions
from capkit.errors import UsageError
from capkit.evaluators.base import named, write_results
from capkit.evaluators.embedding import embed_images, embed_texts, resumable
from capkit.metrics.matched_pairs import PairScores, pair_scores
from capkit.models.dual_encoders.base import DualEncoder, provenance


class MatchedPairs:
    """Scores of pairs of images with a caption each: `<name>_text`, `<name>_image` and `<name>_group`.

    Images whose records have the same `bag` form a pair; each has one caption. MMVP-VLM's accuracy is the image score.
    If metadata name a `kind`, the same scores of each kind are `<name>_<kind>_text` and so on. `template` is what an
    encoder reads, with the caption at {}. A pair of which an image cannot be read is left out.

    Raises UsageError if a bag has another number of images than two, or an image another number of captions than one.
    """

    def __init__(
        self, source: DataSource | None = None, split: str = "test", template: str = "{}", name: str = "matched_pairs"
    ) -> None:
        if template.count("{}") != 1:
            raise UsageError(f"template: expected one {{}}, where the caption goes; got {template!r}")
        self.source, self.split, self.template, self.name = source, split, template, name

    def __call__(self, encoder: DualEncoder, data: CaptionDataModule, folder: Path) -> dict[str, float]:
        cached = resumable(encoder, folder)
        images = embed_images(cached, data, self.split, folder, source=self.source)
        pairs = _pairs(images.records, images.num_skipped)
        members = [images.records[place] for pair in pairs for place in pair]
        texts = embed_texts(cached, [self.template.replace("{}", _caption(record)) for record in members])
        own = images.embeddings[torch.tensor(pairs).flatten()].double().view(len(pairs), 2, -1)
        similarity = own @ texts.double().view(len(pairs), 2, -1).mT
        scores = pair_scores(similarity)
        kinds = [str(record.metadata.get("kind", "")) for record in members[::2]]
        numbers = scores.means() | _by_kind(scores, kinds)
        numbers |= {"pairs": float(len(pairs)), "skipped": float(images.num_skipped)}
        numbers = named(self.name, numbers)
        rows = _rows(members, kinds, similarity.tolist(), scores)
        write_results(folder, self.name, rows, numbers, provenance(cached) | {"template": self.template})
        return numbers


def _pairs(records: list[Record], num_skipped: int) -> list[list[int]]:
    """Places of the two images of each pair."""
    bags: dict[str | None, list[int]] = defaultdict(list)
    for place, record in enumerate(records):
        bags[record.bag].append(place)
    wrong = {bag: places for bag, places in bags.items() if bag is None or len(places) > 2}
    wrong |= {bag: places for bag, places in bags.items() if len(places) < 2 and not num_skipped}
    if wrong:
        bag, places = next(iter(wrong.items()))
        raise UsageError(
            f"expected images in pairs, each with the same bag; got {len(places)} with bag={bag!r}, such as "
            f"{records[places[0]].key!r}; give a source of pairs, such as evaluator=[winoground]"
        )
    pairs = [places for places in bags.values() if len(places) == 2]
    if not pairs:
        raise UsageError("expected pairs of readable images, got none; skipped.jsonl lists what cannot be read")
    return pairs


def _caption(record: Record) -> str:
    texts = clean_captions(record.captions)
    if len(texts) != 1:
        raise UsageError(f"{record.key!r}: expected one caption of each image of a pair, got {len(texts)}")
    return texts[0]


def _by_kind(scores: PairScores, kinds: list[str]) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for kind in sorted(set(kinds) - {""}):
        chosen = torch.tensor([found == kind for found in kinds])
        means = PairScores(scores.text[chosen], scores.image[chosen]).means()
        numbers |= {f"{'_'.join(kind.lower().split())}_{name}": value for name, value in means.items()}
    return numbers


def _rows(
    members: list[Record], kinds: list[str], similarity: list[list[list[float]]], scores: PairScores
) -> Iterator[dict[str, Any]]:
    """Each pair's similarities: a list for each image, with those of both captions."""
    for place, kind in enumerate(kinds):
        first, second = members[2 * place], members[2 * place + 1]
        yield {
            "pair": first.bag,
            "keys": [first.key, second.key],
            "captions": [_caption(first), _caption(second)],
            "kind": kind,
            "similarity": similarity[place],
            "text": bool(scores.text[place]),
            "image": bool(scores.image[place]),
            "group": bool(scores.group[place]),
        }
