"""DNLI (Yanuka et al. 2024, arXiv 2411.09018): a dense caption's claims, judged by the reference text."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from capkit.errors import UsageError
from capkit.judges.claims import Claim, Decomposer, Failed
from capkit.judges.verdicts import Evidence, Label, Verdict, Verifier
from capkit.llm.asker import Asker
from capkit.metrics.judged import MAX_FAILED, Columns, Judged, JudgedMetric, Shown, ratio
from capkit.metrics.judged_pictures import askers_of
from capkit.utils.files import write_atomically
from capkit.utils.ranges import Probability, check_ranges

_LABELS: tuple[Label, ...] = ("entailed", "contradicted", "neutral")
# Each number, the label that it counts, and what it is divided by: claims of the caption, or of the reference.
_SHARES: tuple[tuple[str, Label, str], ...] = (
    ("entailed_precision", "entailed", "generated"),
    ("entailed_recall", "entailed", "reference"),
    ("contradicted_precision", "contradicted", "generated"),
    ("contradicted_recall", "contradicted", "reference"),
    ("neutral_recall", "neutral", "reference"),
)
_RELEASED = {"precision": "_propositions_precision", "recall": "_propositions_recall"}


def label_of(claim: Claim, verdict: Verdict, neutral_is: Literal["opinion", "new"]) -> Label:
    """A claim's label. As published ("opinion") what the reference does not tell is contradicted if it can be seen, and
    neutral if it is an opinion; with "new" it is neutral, whatever it is."""
    if neutral_is == "opinion" and verdict.label == "neutral" and claim.is_seen:
        return "contradicted"
    return verdict.label


@dataclass(frozen=True)
class _Row:
    """A picture on its way: claims of caption and reference, then a label for each of the caption's; or what failed."""

    reference: str
    generated: tuple[Claim, ...] = ()
    expected: tuple[Claim, ...] = ()
    labels: tuple[Label, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    failure: Failed | None = None


@check_ranges
class DNLI(JudgedMetric):
    """Means over pictures of shares of a caption's claims: `dnli_entailed_precision` of its own claims that the
    reference entails, `dnli_entailed_recall` the same number by the claims of the reference, `dnli_contradicted_...`
    and `dnli_neutral_recall` alike.

    "Recall" is the published name: as many claims may be entailed as the caption repeats. Shares of a caption, or of a
    reference, that claims nothing have no value and are left out of their mean; `dnli_without_claims` counts these
    captions. The reference is the first one of each picture.

    Args:
        neutral_is: "opinion", as published: visual information that the reference does not have is contradicted;
            "new": it is neutral, which keeps what is wrong apart from what is not known.
    """

    higher_is_better = None
    needs_references = True

    def __init__(
        self,
        decomposer: Decomposer | None = None,
        verifier: Verifier | None = None,
        neutral_is: Literal["opinion", "new"] = "opinion",
        name: str = "dnli",
        max_failed: Probability = MAX_FAILED,
    ) -> None:
        if decomposer is None or verifier is None:
            raise UsageError(
                "metric=dnli needs who takes captions apart, and who judges by a text; add decomposer=chat or scene, "
                "and verifier=chat, nli or scene"
            )
        if verifier.by != "text" or verifier.num_samples != 1:
            raise UsageError(
                f"metric=dnli judges each caption once by the reference's text; got a verifier by {verifier.by} with "
                f"num_samples={verifier.num_samples}; set verifier.by=text and verifier.num_samples=1"
            )
        if neutral_is not in ("opinion", "new"):
            raise UsageError(f"expected neutral_is=opinion (as published) or new, got {neutral_is!r}")
        super().__init__(name, max_failed)
        self.decomposer, self.verifier, self.neutral_is = decomposer, verifier, neutral_is

    @property
    def askers(self) -> Mapping[str, Asker]:
        return askers_of(self.decomposer, self.verifier)

    def describe(self) -> dict[str, Any]:
        return {
            "decomposer": self.decomposer.about(), "verifier": self.verifier.about(), "neutral_is": self.neutral_is,
        }  # fmt: skip

    def judge(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> list[Judged]:
        return [_judged(row) for row in self._labelled(self._rows(predictions, [refs[0] for refs in references]))]

    def numbers(self, sums: Mapping[str, Float[np.ndarray, " R"]]) -> dict[str, Float[np.ndarray, " R"]]:
        zeros = np.zeros_like(sums["pictures"])
        named = {
            f"{self.name}_{name}": ratio(sums.get(name, zeros), sums.get(f"with_{of}", zeros))
            for name, _, of in _SHARES
        }
        return named | {f"{self.name}_without_claims": sums.get("without_claims", zeros)}

    def shown(self, found: Judged) -> Shown | None:
        if found.num_failed:
            return None
        kinds = {"Entailed": "right", "Contradicted": "wrong", "Neutral": "open"}
        marks: Any = [(row["proposition"], kinds[row["judgment"]]) for row in found.detail["propositions"]]
        return Shown(found.values.get("entailed_precision", 0.0), marks)

    def write(self, folder: Path, rows: Columns) -> list[Path]:
        """Beside the usual file those of the released program, without pictures that failed."""
        predictions, references, metadata = self.complete(*rows)
        judged = self.judged(predictions, references, metadata)
        kept = [
            (caption, refs[0], found.detail)
            for caption, refs, found in zip(predictions, references, judged, strict=True)
            if not found.num_failed
        ]
        files = {
            "gt_propositions.csv": _table(("gt_propositions", "total_propositions"), map(_expected_row, kept)),
            "generated_descriptions_propositions.csv": _table(
                (
                    "generated_description", "original_description", "entailed_propositions",
                    "contradicted_propositions", "neutral_propositions", "propositions", "total_propositions",
                ),
                map(_generated_row, kept),
            ),
            "generated_descriptions_propositions_parsed.csv": _table(
                ("id", "proposition", "judgment"),
                (
                    (row["id"], row["proposition"], row["judgment"])
                    for _, _, detail in kept
                    for row in detail["propositions"]
                ),
            ),
            "propositions_metrics.json": json.dumps(self._released(judged)),
        }  # fmt: skip
        paths = super().write(folder, rows)
        for name, content in files.items():
            write_atomically(folder / name, content)
            paths.append(folder / name)
        return paths

    def _released(self, judged: Sequence[Judged]) -> dict[str, float | None]:
        sums = self._sums(judged)
        found = sums.numbers(sums.values.sum(0)[None])
        values = {name: found[f"{self.name}_{name}"][0] for name, _, _ in _SHARES if f"{self.name}_{name}" in found}
        named = {f"mean_{name.partition('_')[0]}{_RELEASED[name.partition('_')[2]]}": x for name, x in values.items()}
        return {name: None if np.isnan(value) else float(value) for name, value in named.items()}

    # the steps --------------------------------------------------------------------------------------------------------

    def _rows(self, predictions: Sequence[str], references: Sequence[str]) -> Iterator[_Row]:
        """Pictures with the claims of caption and reference, which are taken apart side by side."""
        texts = ((None, text) for pair in zip(predictions, references, strict=True) for text in pair)
        taken = (claims for _, claims in self.decomposer.decompose(texts))
        for reference in references:
            generated, expected = next(taken), next(taken)
            if isinstance(generated, Failed) or isinstance(expected, Failed):
                failure = generated if isinstance(generated, Failed) else expected
                assert isinstance(failure, Failed)
                yield _Row(reference, failure=failure)
            else:
                yield _Row(reference, tuple(generated), tuple(expected))

    def _labelled(self, rows: Iterator[_Row]) -> Iterator[_Row]:
        cases = ((row, (row.generated, Evidence(row.reference))) for row in rows)
        for row, (verdicts,) in self.verifier.verify(cases):
            if isinstance(verdicts, Failed):
                yield replace(row, failure=row.failure or verdicts)
            else:
                pairs = zip(row.generated, verdicts, strict=True)
                labels = tuple(label_of(*pair, self.neutral_is) for pair in pairs)
                yield replace(row, labels=labels, verdicts=tuple(verdicts))


def _judged(row: _Row) -> Judged:
    if row.failure is not None:
        said = {} if row.failure.said is None else {"said": row.failure.said}
        return Judged({}, 1, 1, {"error": row.failure.reason, **said})
    sizes, counts = {"generated": len(row.generated), "reference": len(row.expected)}, Counter(row.labels)
    values = {f"with_{name}": 1.0 for name, size in sizes.items() if size}
    values |= {name: counts[label] / sizes[of] for name, label, of in _SHARES if sizes[of]}
    values |= {} if row.generated else {"without_claims": 1.0}
    detail = {
        "propositions": [
            {"id": number, "proposition": claim.text, "judgment": label.capitalize()}
            for number, (claim, label) in enumerate(zip(row.generated, row.labels, strict=True), 1)
        ],
        "probabilities": [{name: getattr(verdict, name) for name in _LABELS} for verdict in row.verdicts],
        "gt_propositions": [{"id": number, "proposition": claim.text} for number, claim in enumerate(row.expected, 1)],
    }
    return Judged(values, 1, 0, detail)


_Kept = tuple[str, str, Mapping[str, Any]]  # caption, reference, detail


def _expected_row(kept: _Kept) -> tuple[Any, ...]:
    _, _, detail = kept
    return {"propositions": detail["gt_propositions"]}, len(detail["gt_propositions"])


def _generated_row(kept: _Kept) -> tuple[Any, ...]:
    caption, reference, detail = kept
    counts = Counter(row["judgment"].lower() for row in detail["propositions"])
    propositions = {"propositions": detail["propositions"]}
    return (caption, reference, *(counts[label] for label in _LABELS), propositions, sum(counts.values()))


def _table(columns: Sequence[str], rows: Any) -> str:
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return file.getvalue()
