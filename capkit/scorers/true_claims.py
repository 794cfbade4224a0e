"""What a caption claims about its picture, and how much of it is true (FeedQuill: Ye et al. 2025, arXiv 2503.07906).

B images, K samples per image.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from capkit.errors import UsageError
from capkit.judges.claims import Claim, Decomposer, Failed
from capkit.judges.verdicts import Case, Evidence, Verdicts, Verifier
from capkit.llm.base import Picture
from capkit.scorers.base import BaseScorer, ReadImage
from capkit.scorers.flatten import flat_texts, references_of, unflatten_scores
from capkit.types import CaptionBatch, Samples


class TrueClaims(BaseScorer):
    """`share`: c_p, true claims / claims, 0 to 1; `number`: c_r, how many claims are true.

    A caption is taken apart, and each claim judged by the picture, by its first reference, or by both, as the verifier
    does. A verifier that judges several times gives the mean. NaN where a step failed, since a share of claims is not
    known then, and for the share of a caption without claims.
    """

    def __init__(
        self,
        decomposer: Decomposer | None = None,
        verifier: Verifier | None = None,
        measure: Literal["share", "number"] = "share",
    ) -> None:
        if decomposer is None or verifier is None:
            raise UsageError(
                "reward=true_claims needs a decomposer and a verifier; add decomposer=chat or scene, and "
                "verifier=vision, chat, nli, ensemble or scene"
            )
        if measure not in ("share", "number"):
            raise UsageError(f"measure must be share or number; got {measure!r}")
        self.decomposer, self.verifier, self.measure = decomposer, verifier, measure
        self.needs_references = verifier.by != "picture"
        self._read: ReadImage | None = None

    def attach_images(self, read: ReadImage) -> None:
        self._read = read

    def __call__(self, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K"]:
        num_samples = len(samples.texts[0])
        captions = flat_texts(samples)
        rows = [place // num_samples for place in range(len(captions))]
        distinct = dict.fromkeys(zip(rows, captions, strict=True))
        evidence = [self._evidence(batch, row) for row in range(len(batch))]
        claims: dict[tuple[int, str], list[Claim] | Failed] = dict(
            self.decomposer.decompose((item, item[1]) for item in distinct)
        )

        def cases() -> Iterator[tuple[tuple[int, str], Case]]:
            for item, found in claims.items():
                if not isinstance(found, Failed) and found:
                    yield item, (found, evidence[item[0]])

        verdicts = dict(self.verifier.verify(cases()))
        scores = {item: self._score(claims[item], verdicts.get(item, [])) for item in distinct}
        return unflatten_scores([scores[item] for item in zip(rows, captions, strict=True)], samples)

    def _evidence(self, batch: CaptionBatch, row: int) -> Evidence:
        text = None if self.verifier.by == "picture" else references_of(batch, "TrueClaims")[row][0]
        if self.verifier.by == "text":
            return Evidence(text)
        return Evidence(text, partial(self._picture, batch.keys[row], batch.metadata[row] if batch.metadata else {}))

    def _picture(self, key: str, metadata: dict[str, Any]) -> Picture:
        pixels = None if self._read is None else self._read(key)
        if pixels is None:
            raise UsageError(f"reward=true_claims: expected a picture of {key!r} to judge claims by, got none")
        return Picture(pixels, metadata)

    def _score(self, claims: list[Claim] | Failed, verdicts: list[Verdicts]) -> float:
        if isinstance(claims, Failed) or any(isinstance(given, Failed) for given in verdicts):
            return math.nan
        if not claims:
            return math.nan if self.measure == "share" else 0.0
        given = [found for found in verdicts if not isinstance(found, Failed)]
        true = sum(verdict.is_true for found in given for verdict in found) / len(given)
        return true / len(claims) if self.measure == "share" else true

    def provenance(self) -> dict[str, Any]:
        return {
            "measure": self.measure, "decomposer": self.decomposer.about(), "verifier": self.verifier.about(),
        }  # fmt: skip
