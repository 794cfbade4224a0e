"""Accuracy of a grammar head in telling captions from edited captions, per kind of edit, on held-out captions."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from capkit.data.datamodule import CaptionDataModule
from capkit.data.sources.base import DataSource, is_rejected
from capkit.errors import UsageError
from capkit.evaluators.base import named, write_results
from capkit.evaluators.embedding import embed_texts, resumable_texts
from capkit.models.dual_encoders.base import DualEncoder, provenance
from capkit.models.dual_encoders.grammar_head import GrammarJudge, grammar_judge
from capkit.models.weights import weights_fingerprint
from capkit.text.corruption import KINDS, Edits, vocabulary_of, words_and_end
from capkit.utils.ranges import PositiveInt, Seed, check_ranges

Numbers = dict[str, float]


@dataclass(frozen=True)
class EditedCaption:
    """An edited caption. `rejected`: whether the data source rejects it; None if the source cannot tell."""

    kind: str
    caption: str
    text: str
    rejected: bool | None


@check_ranges
class Grammar:
    """Fractions of edits detected, P(grammatical) < 1/2, and of captions wrongly flagged (`false_alarms`).

    The first `num_captions` distinct captions of the split are edited once in each of five ways
    (capkit/text/corruption.py), using words of the training captions; the edit depends on (seed, kind, caption). Per
    kind: the fraction detected; `<kind>_balanced`, its mean with the fraction of the same captions accepted;
    `<kind>_paired`, the fraction of edits with a lower probability than their caption (a tie counts 1/2). The last two
    are 1/2 by chance; a bag of words, for example, cannot tell a shuffled caption. `shuffle_long` covers captions of at
    least `long` words.

    Some edits are still grammatical: "a large red circle" without "large". If the data source can tell, as SceneWorld
    can by its parser, edits that it rejects (`rejected`, `rejected_<kind>`) and accepts (`accepted`) are therefore also
    reported separately.
    """

    def __init__(
        self,
        split: str = "test",
        num_captions: PositiveInt | None = 2000,
        long: PositiveInt = 4,
        seed: Seed = 0,
        name: str = "grammar",
    ) -> None:
        self.split, self.num_captions, self.long, self.seed, self.name = split, num_captions, long, seed, name

    def __call__(self, encoder: DualEncoder, data: CaptionDataModule, folder: Path) -> Numbers:
        """Raises UsageError for an encoder without a grammar head, or a split without captions."""
        judge = grammar_judge(encoder)
        captions = list(islice(dict.fromkeys(data.captions(self.split)), self.num_captions))
        if not captions:
            raise UsageError(f"the grammar evaluator needs captions; the {self.split} split has none; choose another")
        edited = self.edit(captions, Edits(vocabulary_of(data.captions("train"))), data.source(self.split))
        texts = captions + [item.text for item in edited]
        cached = resumable_texts(_AsTextEncoder(judge), folder)
        probability = dict(zip(texts, embed_texts(cached, texts)[:, 0].tolist(), strict=True))
        numbers = named(self.name, grammar_numbers(captions, edited, probability, self.long))
        rows = [
            {"kind": "caption", "caption": text, "text": text, "probability": probability[text]} for text in captions
        ]
        rows += [{**vars(item), "probability": probability[item.text]} for item in edited]
        quoted = {"split": self.split, "num_captions": len(captions), "seed": self.seed}
        write_results(folder, self.name, rows, numbers, provenance(encoder) | quoted)
        return numbers

    def edit(self, captions: Sequence[str], edits: Edits, source: DataSource) -> list[EditedCaption]:
        """Edit each caption in each way that can change it."""
        drawn = [(caption, edits.of_kind(kind, caption, self.seed, caption)) for caption in captions for kind in KINDS]
        return [
            EditedCaption(edit.kind, caption, edit.text, is_rejected(source, edit.text))
            for caption, edit in drawn
            if edit is not None
        ]


def grammar_numbers(
    captions: Sequence[str], edited: Sequence[EditedCaption], probability: dict[str, float], long: int
) -> Numbers:
    """All numbers of `Grammar`, from P(grammatical) of each text."""
    of_kind = {kind: [item for item in edited if item.kind == kind] for kind in KINDS}
    rejected = [item for item in edited if item.rejected]
    groups = {"edits": list(edited), **of_kind, "rejected": rejected}
    groups["shuffle_long"] = [item for item in of_kind["shuffle"] if len(words_and_end(item.caption)[0]) >= long]
    groups["accepted"] = [item for item in edited if item.rejected is False]
    groups |= {f"rejected_{kind}": [item for item in rejected if item.kind == kind] for kind in KINDS}
    numbers = {
        "captions": float(len(captions)),
        "false_alarms": _found(captions, probability),
        "rejected_count": float(len(rejected)),
        "accepted_count": float(len(groups["accepted"])),
    }
    for name, items in groups.items():
        if items:
            numbers |= {f"{name}{end}": value for end, value in _shares(items, probability).items()}
    return numbers


def _shares(items: Sequence[EditedCaption], probability: dict[str, float]) -> Numbers:
    pairs = [(probability[item.caption], probability[item.text]) for item in items]
    found = _found([item.text for item in items], probability)
    false_alarms = _found([item.caption for item in items], probability)
    lower = sum(1.0 if edit < caption else 0.5 * (edit == caption) for caption, edit in pairs)
    return {"": found, "_balanced": (found + 1 - false_alarms) / 2, "_paired": lower / len(items)}


def _found(texts: Sequence[str], probability: dict[str, float]) -> float:
    return sum(probability[text] < 0.5 for text in texts) / len(texts)


class _AsTextEncoder:
    """P(grammatical) as an embedding of width 1, so that it is cached and spread over ranks like embeddings."""

    def __init__(self, judge: GrammarJudge) -> None:
        self._judge: Any = judge

    def fingerprint_fields(self, side: str) -> dict[str, Any]:
        return {**self._judge.fingerprint_fields(side), "grammar_head": weights_fingerprint(self._judge.grammar_head)}

    @property
    def device(self) -> torch.device:
        return self._judge.device

    def to(self, device: torch.device | str) -> "_AsTextEncoder":
        self._judge.to(device)
        return self

    def encode_text(self, texts: list[str]) -> Float[Tensor, "M 1"]:
        return self._judge.grammatical(texts)[:, None]
