"""ImageCoDe (Krojer et al. 2022) with the captioner as the describer: one target among ten similar images."""

import re
from typing import Any

import torch

from capkit.errors import UsageError
from capkit.metrics.embedding_metric import EmbeddingMetric, Pairs
from capkit.metrics.ranking import pool_ranks
from capkit.models.dual_encoders.base import DualEncoder
from capkit.utils.ranges import AtLeastTwo, check_ranges
from capkit.utils.renamed import takes_old_arguments
from capkit.utils.text_files import parse_json, read_text, shown


@takes_old_arguments
@check_ranges
class ImageCode(EmbeddingMetric):
    """R@1 of the target's caption within its set: over all sets, over static images, and over video frames.

    `file` is the data set's `<split>_data.json`: {set: {target index: human description}}. Descriptions are ignored;
    indices tell which images of the set are targets. An image's key is `<set>/img<index>`, the data set's file name
    without extension. Sets named `open-images...` hold static images, the others video frames.
    """

    def __init__(self, encoder: DualEncoder, file: str, set_size: AtLeastTwo = 10, name: str = "imagecode") -> None:
        targets = read_targets(file, set_size)
        super().__init__(encoder, name)
        self.targets, self.set_size = targets, set_size

    def score_pairs(self, pairs: Pairs) -> dict[str, float]:
        names = sorted({name for name, _ in self.targets})
        keys = [f"{name}/img{i}" for name in names for i in range(self.set_size)]
        rows = pairs.rows_of(keys, "ImageCoDe's file").view(-1, self.set_size)
        row_of = dict(zip(names, rows, strict=True))
        queries, pools, static = [], [], []
        for name, index in self.targets:
            members = row_of[name]
            pool = torch.cat([members[index : index + 1], members[:index], members[index + 1 :]])
            for caption in (pairs.owner == members[index]).nonzero().flatten().tolist():
                queries.append(caption)
                pools.append(pool)
                static.append("open-images" in name)
        ranks = pool_ranks(
            pairs.texts[torch.tensor(queries, device=pairs.texts.device)], pairs.images, torch.stack(pools)
        )
        hits, is_static = ranks.hits(1), torch.tensor(static, device=pairs.texts.device)
        numbers = {"r1": float(hits.mean()), "targets": float(len(self.targets))}
        for label, chosen in (("static", is_static), ("video", ~is_static)):
            if bool(chosen.any()):
                numbers[f"{label}_r1"] = float(hits[chosen].mean())
        return numbers

    def provenance(self) -> dict[str, Any]:
        return super().provenance() | {"candidates": self.set_size}


def read_targets(file: str, set_size: int) -> list[tuple[str, int]]:
    """(set, index of a target) from an ImageCoDe file. Raises UsageError for another format."""
    wanted = f"file={file!r}: expected ImageCoDe's JSON {{set: {{index: text}}}}"
    content = parse_json(read_text(file, "file"), f"file={file!r}")
    if not isinstance(content, dict) or not all(isinstance(chosen, dict) for chosen in content.values()):
        raise UsageError(f"{wanted}; got {shown(content)}")
    indices = [(name, index) for name, chosen in content.items() for index in chosen]
    if wrong := [index for _, index in indices if not re.fullmatch(r"\d{1,9}", index)]:
        raise UsageError(f"{wanted}; got the index {shown(wrong[0])}")
    targets = [(name, int(index)) for name, index in indices]
    if not targets or not all(0 <= index < set_size for _, index in targets):
        raise UsageError(f"file={file!r}: expected targets with indices 0 to {set_size - 1}; got {targets[:3]} ...")
    return targets
