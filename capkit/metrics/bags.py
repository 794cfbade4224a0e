"""R@1 and CLIP score within bags of similar images (TrueMatch, Gaur et al. 2024).

N images, M captions, Q queries, D width.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from capkit.errors import UsageError
from capkit.metrics.clip_score import clip_score
from capkit.metrics.embedding_metric import EmbeddingMetric, Pairs
from capkit.metrics.ranking import Ranks, pool_ranks
from capkit.models.dual_encoders.base import DualEncoder
from capkit.utils.renamed import takes_old_arguments
from capkit.utils.text_files import expect, read_json, shown


def bag_ranks(
    images: Float[Tensor, "N D"], texts: Float[Tensor, "M D"], owner: Int[Tensor, " M"], bags: list[list[int]]
) -> Ranks:
    """Ranks of each caption's image among the images of its bag; every image is the target once in each of its bags.

    `bags` lists rows of `images`.
    """
    queries = _queries(owner, bags)
    width = max(map(len, bags))
    pools = [[target, *(row for row in bag if row != target)] + [-1] * (width - len(bag)) for _, target, bag in queries]
    return pool_ranks(texts[_captions(queries, texts)], images, torch.tensor(pools, device=images.device))


def bag_cosines(
    images: Float[Tensor, "N D"], texts: Float[Tensor, "M D"], owner: Int[Tensor, " M"], bags: list[list[int]]
) -> Float[Tensor, " Q"]:
    """Cosine of each caption with its own image, for the queries of `bag_ranks`."""
    captions = _captions(_queries(owner, bags), texts)
    return (texts[captions] * images[owner[captions]]).sum(-1)


def _queries(owner: Int[Tensor, " M"], bags: list[list[int]]) -> list[tuple[int, int, list[int]]]:
    """Caption, target and bag of each query."""
    captions: dict[int, list[int]] = defaultdict(list)
    for caption, image in enumerate(owner.tolist()):
        captions[image].append(caption)
    return [(caption, target, bag) for bag in bags for target in bag for caption in captions[target]]


def _captions(queries: list[tuple[int, int, list[int]]], texts: Tensor) -> Int[Tensor, " Q"]:
    return torch.tensor([caption for caption, _, _ in queries], device=texts.device)


def read_bags(path: str) -> list[list[str]]:
    """Read TrueMatch's file format: a JSON list of lists of image ids, compared as text with the records' keys.

    Raises UsageError for another format, a bag of fewer than two images, or one with a repeated image.
    """
    content = read_json(path, "bags")
    if not isinstance(content, list) or not all(isinstance(bag, list) for bag in content) or not content:
        raise UsageError(f"bags={path!r}: expected a JSON list of lists of image ids; got {shown(content)}")
    bags = [
        [str(expect(key, "text or a whole number", f"{path} bag {number}", "image id")) for key in bag]
        for number, bag in enumerate(content)
    ]
    for bag in bags:
        if len(bag) < 2 or len(set(bag)) < len(bag):
            raise UsageError(f"{path!r}: expected two or more different images in each bag; got {bag}")
    return bags


@takes_old_arguments
class Bags(EmbeddingMetric):
    """R@1 by bag size, with each image captioned on its own: `<name>_3_r1`, `<name>_5_r1`, `<name>_7_r1`.

    A constant caption gets 1/n in bags of n images; captions that distinguish all images get 1. Beside each stands the
    paper's CLIP score, `<name>_3_clip_score`: the mean of 100 max(cos, 0) of captions and their own images, over the
    same queries. It does not depend on the bags' other images.

    Args:
        encoder: compares captions with images.
        files: TrueMatch's `3.json`, `5.json`, `7.json`, or lists written by `capkit bags`. A file without any captioned
            image is skipped, so that one list of files can cover validation and test. Without files, images whose
            metadata have the same "bag" form a bag.
        name: prefix of the numbers.

    Raises UsageError if only some images of a file were captioned, or if there is no bag at all.
    """

    def __init__(self, encoder: DualEncoder, files: list[str] | None = None, name: str = "truematch") -> None:
        bags = [read_bags(path) for path in files or []]
        super().__init__(encoder, name)
        self.files = bags

    def score_pairs(self, pairs: Pairs) -> dict[str, float]:
        by_size: dict[int, list[list[int]]] = defaultdict(list)
        for bag in self._rows(pairs):
            by_size[len(bag)].append(bag)
        numbers = {}
        for size in sorted(by_size):
            ranks = bag_ranks(pairs.images, pairs.texts, pairs.owner, by_size[size])
            cosines = bag_cosines(pairs.images, pairs.texts, pairs.owner, by_size[size])
            numbers[f"{size}_r1"] = ranks.recall(1)
            numbers[f"{size}_clip_score"] = float(clip_score(cosines, weight=100.0).mean())
            numbers[f"{size}_bags"] = float(len(by_size[size]))
        return numbers

    def provenance(self) -> dict[str, Any]:
        return super().provenance() | {"candidates": "the images of the bag"}

    def bags_among(self, metadata: Sequence[Mapping[str, Any]]) -> list[list[str]]:
        """Bags, as keys, whose images all have metadata here."""
        if self.files:
            known = {str(row["key"]) for row in metadata}
            return [bag for bags in self.files for bag in bags if known.issuperset(bag)]
        groups: dict[str, list[str]] = defaultdict(list)
        for row in metadata:
            if row.get("bag") is not None:
                groups[row["bag"]].append(str(row["key"]))
        return [keys for keys in groups.values() if len(keys) > 1]

    def hits(self, captions: list[str], metadata: list[dict[str, Any]]) -> list[float]:
        """For captions of the images of one bag: probability that each finds its own image in the bag."""
        vectors, _ = self._embed(captions, [[] for _ in captions], metadata)
        width = (vectors.shape[1] - 1) // 2
        members = range(len(captions))
        own = torch.arange(len(captions), device=vectors.device)
        return bag_ranks(vectors[:, :width], vectors[:, width:-1], own, [list(members)]).hits(1).tolist()

    def _rows(self, pairs: Pairs) -> list[list[int]]:
        if self.files:
            return self._rows_of_files(pairs)
        groups: dict[int, list[int]] = defaultdict(list)
        for image, bag in enumerate(pairs.bags.tolist()):
            if bag >= 0:
                groups[bag].append(image)
        bags = [group for group in groups.values() if len(group) > 1]
        if not bags:
            raise UsageError(
                "Bags: expected files=[3.json, ...], or records that name a bag of two or more images; got neither"
            )
        return bags

    def _rows_of_files(self, pairs: Pairs) -> list[list[int]]:
        members = [sorted({key for bag in bags for key in bag}) for bags in self.files]
        rows = []
        for bags, keys in zip(self.files, members, strict=True):
            if pairs.has_any(keys):
                row = dict(zip(keys, pairs.rows_of(keys, "the bag file").tolist(), strict=True))
                rows += [[row[key] for key in bag] for bag in bags]
        if not rows:
            raise UsageError(
                f"expected bags of captioned images; no file names any (they name, e.g., {members[0][0]!r}); give bags "
                "of the captioned split, and check that keys are written alike in both"
            )
        return rows
