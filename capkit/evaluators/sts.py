"""Semantic textual similarity: how well the cosine of two sentences agrees with human similarity scores."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from capkit.data.datamodule import CaptionDataModule
from capkit.data.sources.sentence_pairs import ScoredPair, read_pairs
from capkit.errors import UsageError
from capkit.evaluators.base import named, write_results
from capkit.evaluators.embedding import embed_texts, resumable_texts
from capkit.metrics.correlation import pearson, spearman
from capkit.metrics.ranking import normalize
from capkit.metrics.text_retrieval import TextEncoder
from capkit.models.dual_encoders.base import provenance


class STS:
    """Pearson's and Spearman's correlation of cosine and score, per file and as the mean over files.

    `files` maps names to paths in any format of capkit/data/sources/sentence_pairs.py (STS12 to STS16, STS-B, SICK, or
    score, sentence, sentence). Correlations are fractions; papers multiply by 100. The encoder's prompt precedes every
    sentence. No images are needed, so a sentence encoder can be used.
    """

    def __init__(self, files: Mapping[str, str], name: str = "sts") -> None:
        if not files:
            raise UsageError("sts: expected files by name, such as files={stsb: sts-test.csv}; got none")
        self.pairs = {key: read_pairs(path) for key, path in files.items()}
        self.name = name

    def __call__(self, encoder: TextEncoder, data: CaptionDataModule | None, folder: Path) -> dict[str, float]:
        cached = resumable_texts(encoder, folder)
        rows: list[dict[str, Any]] = []
        numbers: dict[str, float] = {}
        for file, pairs in self.pairs.items():
            texts = normalize(embed_texts(cached, [text for pair in pairs for text in (pair.first, pair.second)]))
            cosines = (texts[0::2].double() * texts[1::2].double()).sum(1).tolist()
            scores = [pair.score for pair in pairs]
            numbers |= {f"{file}_pearson": pearson(cosines, scores), f"{file}_spearman": spearman(cosines, scores)}
            numbers[f"{file}_pairs"] = float(len(pairs))
            rows += [_row(file, pair, cosine) for pair, cosine in zip(pairs, cosines, strict=True)]
        for kind in ("pearson", "spearman"):
            numbers[kind] = sum(numbers[f"{file}_{kind}"] for file in self.pairs) / len(self.pairs)
        numbers["cut"] = float(sum(cached.is_cut(sorted({row[side] for row in rows for side in ("first", "second")}))))
        numbers = named(self.name, numbers)
        write_results(folder, self.name, rows, numbers, provenance(cached) | {"files": list(self.pairs)})
        return numbers


def _row(file: str, pair: ScoredPair, cosine: float) -> dict[str, Any]:
    return {"file": file, "first": pair.first, "second": pair.second, "score": pair.score, "cosine": cosine}
