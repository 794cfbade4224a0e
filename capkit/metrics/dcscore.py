"""DCScore (Ye et al. 2025, arXiv 2503.07906): a caption's claims, matched to the facts of the picture and verified."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from capkit.errors import UsageError
from capkit.judges.claims import Claim, Decomposer, Failed
from capkit.judges.matchers import Matcher
from capkit.judges.verdicts import Evidence, Verdict, Verifier
from capkit.llm.asker import Asker
from capkit.metrics.judged import MAX_FAILED, Columns, Judged, JudgedMetric, Shown, ratio
from capkit.metrics.judged_pictures import askers_of, picture_of_row, rows_by_name
from capkit.utils.checksums import crc32_and_size
from capkit.utils.files import write_atomically
from capkit.utils.ranges import Probability, check_ranges
from capkit.utils.text_files import expect, member, read_json_or_lines

_LEGACY_EPSILON = 1e-8
_NAMES = ("precision", "recall", "f1")


class Share(NamedTuple):
    """Precision, recall and F1 of claims, each in 0 .. 1."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Oracle:
    """A picture's reference caption and its facts."""

    caption: str
    facts: tuple[str, ...]


def claim_share(
    is_true: Sequence[bool],
    fact_of: Sequence[int | None],
    num_facts: int,
    weights_of: Sequence[int | None] | None = None,
    epsilon: float = 0.0,
) -> Share:
    """Precision, recall and F1 of claims that are true or not, each matched to a fact's place or to none.

    precision = true claims / claims; recall = (sum over true matched claims of 1 / claims matched to that fact, true or
    not, + true unmatched claims) / (facts + true unmatched claims). So claims that share a fact share its weight, one
    that is wrong takes its part of it, and a true claim that the facts do not know of is known afterwards. All are 0
    without a claim.

    `weights_of`: where the claims that share a fact are counted, if not among these. `epsilon`: in the denominator of
    F1.
    """
    if not is_true:
        return Share(0.0, 0.0, 0.0)
    sharing = Counter(place for place in (fact_of if weights_of is None else weights_of) if place is not None)
    found = sum(1 / sharing[place] for true, place in zip(is_true, fact_of, strict=True) if true and place is not None)
    new = sum(true and place is None for true, place in zip(is_true, fact_of, strict=True))
    precision = sum(is_true) / len(is_true)
    recall = (found + new) / (num_facts + new) if num_facts + new else 0.0
    below = precision + recall + epsilon
    return Share(precision, recall, 2 * precision * recall / below if below else 0.0)


def dcscore_of(
    is_seen: Sequence[bool],
    truths: Sequence[Sequence[bool]],
    matches: Sequence[Sequence[int | None]],
    num_facts: int,
    legacy: bool = False,
) -> list[tuple[Share, Share]]:
    """Of each pair of a verification and a matching, the shares over all claims, and over those that say what is seen.

    `legacy`, as released: over the claims that are seen, a fact's weight is shared with those that are not; F1 has
    1e-8 in its denominator.
    """
    epsilon = _LEGACY_EPSILON if legacy else 0.0
    seen = [place for place, is_it in enumerate(is_seen) if is_it]
    pairs = []
    for truth in truths:
        for match in matches:
            every = claim_share(truth, match, num_facts, None, epsilon)
            only = [truth[place] for place in seen], [match[place] for place in seen]
            pairs.append((every, claim_share(*only, num_facts, match if legacy else None, epsilon)))
    return pairs


def read_oracle_facts(file: str) -> dict[str, Oracle]:
    """{image: reference and facts} from rows {image_name, oracle_caption, oracle_facts}, as released.

    Raises UsageError for a file of other rows, an image that comes twice, or one without facts.
    """
    found: dict[str, Oracle] = {}
    for where, value in read_json_or_lines(file, "oracle_facts"):
        row = expect(value, "an object", where)
        name = member(row, "image_name", "text", where)
        facts = tuple(expect(fact, "text", where, "a fact") for fact in member(row, "oracle_facts", "a list", where))
        if name in found or not facts:
            raise UsageError(f"{where}: image {name!r} {'comes twice' if name in found else 'has no facts'}")
        found[name] = Oracle(member(row, "oracle_caption", "text", where), facts)
    return found


@dataclass(frozen=True)
class _Row:
    """A picture on its way: its claims and facts, then its verdicts and matches; or what failed."""

    caption: str
    oracle: Oracle | None
    evidence: Evidence = field(default_factory=Evidence)
    claims: tuple[Claim, ...] = ()
    verdicts: tuple[tuple[Verdict, ...], ...] = ()
    matches: tuple[tuple[int | None, ...], ...] = ()
    failure: Failed | None = None


@check_ranges
class DCScore(JudgedMetric):
    """`dcscore`: 100 x mean over pictures of (F1 of all claims + F1 of the claims that say what is seen) / 2.

    A caption's claims are matched to the picture's facts and verified, by picture and reference as published; F1 is the
    mean over all pairs of a matching and a verification (3 x 3). A caption without claims scores 0. A picture of which
    a step failed is left out of `dcscore`, and scores 0 in `dcscore_failed_as_0`; `dcscore_failed` counts them.
    `dcscore_precision`, `_recall`, `_f1` are means over all claims, those with `_seen` over what is seen.

    Args:
        oracle_facts: The released file, human_annotated_oracle_facts.jsonl; null: the facts are the claims of each
            picture's first reference.
        legacy: As the released program computes (`dcscore_of`).
    """

    def __init__(
        self,
        decomposer: Decomposer | None = None,
        matcher: Matcher | None = None,
        verifier: Verifier | None = None,
        oracle_facts: str | None = None,
        legacy: bool = False,
        name: str = "dcscore",
        max_failed: Probability = MAX_FAILED,
    ) -> None:
        if decomposer is None or matcher is None or verifier is None:
            raise UsageError(
                "metric=dcscore needs who takes captions apart, matches and verifies; add decomposer=..., matcher=... "
                "and verifier=..., each chat or scene"
            )
        super().__init__(name, max_failed)
        self.decomposer, self.matcher, self.verifier, self.legacy = decomposer, matcher, verifier, legacy
        self._file = oracle_facts
        self._about_file = None if oracle_facts is None else [oracle_facts, crc32_and_size(Path(oracle_facts))]
        self._oracle = None if oracle_facts is None else read_oracle_facts(oracle_facts)
        self.needs_references = oracle_facts is None

    @property
    def askers(self) -> Mapping[str, Asker]:
        return askers_of(self.decomposer, self.matcher, self.verifier)

    def describe(self) -> dict[str, Any]:
        parts: dict[str, Any] = {"decomposer": self.decomposer, "matcher": self.matcher, "verifier": self.verifier}
        return {
            **{name: part.about() for name, part in parts.items()},
            "oracle_facts": self._about_file, "legacy": self.legacy,
        }  # fmt: skip

    def complete(self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]) -> Columns:
        if self._oracle is not None:
            rows_by_name(self._oracle, [str(row.get("key")) for row in metadata], str(self._file))
        return predictions, references, metadata

    def judge(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> list[Judged]:
        return [
            self._judged(row) for row in self._verified(self._matched(self._rows(predictions, references, metadata)))
        ]

    def numbers(self, sums: Mapping[str, Float[np.ndarray, " R"]]) -> dict[str, Float[np.ndarray, " R"]]:
        zeros = np.zeros_like(sums["pictures"])
        scored = sums.get("scored", zeros)
        named = {self.name: 100 * ratio(sums.get("score", zeros), scored)}
        named[f"{self.name}_failed_as_0"] = 100 * ratio(sums.get("score", zeros), sums["pictures"])
        for suffix in ("", "_seen"):
            named |= {f"{self.name}_{x}{suffix}": ratio(sums.get(f"{x}{suffix}", zeros), scored) for x in _NAMES}
        return named | {f"{self.name}_claims": ratio(sums.get("claims", zeros), scored)}

    def shown(self, found: Judged) -> Shown | None:
        if found.num_failed:
            return None
        claims, truths = (found.detail["eval_details"][name] for name in ("pred_atomic_facts", "verifications"))
        votes = [sum(truth[place] for truth in truths) / len(truths) for place in range(len(claims))]
        return Shown(
            100 * found.values["score"],
            [(claim["fact"], "right" if vote > 0.5 else "wrong") for claim, vote in zip(claims, votes, strict=True)],
        )

    def write(self, folder: Path, rows: Columns) -> list[Path]:
        """Beside the usual file one a picture, `eval_details/0.json` ..., which the released program sums up."""
        paths = super().write(folder, rows)
        predictions, references, metadata = self.complete(*rows)
        (folder / "eval_details").mkdir(parents=True, exist_ok=True)
        for number, found in enumerate(self.judged(predictions, references, metadata)):
            path = folder / "eval_details" / f"{number}.json"
            item = {"image_name": str(metadata[number]["key"]), "caption": predictions[number], **found.detail}
            write_atomically(path, json.dumps(item, ensure_ascii=False))
            paths.append(path)
        return paths

    # the steps --------------------------------------------------------------------------------------------------------

    def _rows(
        self, predictions: Sequence[str], references: Sequence[Sequence[str]], metadata: Sequence[Mapping[str, Any]]
    ) -> Iterator[_Row]:
        """Pictures with their claims. Without a file of facts, caption and reference are taken apart side by side."""
        oracles: list[Oracle | None] = [None] * len(predictions)
        if self._oracle is not None:
            keys = [str(row.get("key")) for row in metadata]
            oracles = [self._oracle[name] for name in rows_by_name(self._oracle, keys, str(self._file))]

        def texts() -> Iterator[tuple[_Row, str]]:
            for caption, refs, row, oracle in zip(predictions, references, metadata, oracles, strict=True):
                evidence = Evidence(refs[0] if oracle is None else oracle.caption, picture_of_row(row))
                yield _Row(caption, oracle, evidence), caption
                if oracle is None:
                    yield _Row(refs[0], None), refs[0]

        taken = (_with_claims(row, claims) for row, claims in self.decomposer.decompose(texts()))
        for row in taken:
            if row.oracle is not None:
                yield row
            else:
                reference = next(taken)
                oracle = Oracle(reference.caption, tuple(claim.text for claim in reference.claims))
                yield replace(row, oracle=oracle, failure=row.failure or reference.failure)

    def _matched(self, rows: Iterator[_Row]) -> Iterator[_Row]:
        cases = ((row, _case(row)) for row in rows)
        for row, found in self.matcher.match(cases):
            for match in found:
                if isinstance(match, Failed):
                    row = replace(row, failure=row.failure or match)
                else:
                    row = replace(row, matches=(*row.matches, tuple(match)))
            yield row

    def _verified(self, rows: Iterator[_Row]) -> Iterator[_Row]:
        cases = ((row, (() if row.failure else row.claims, row.evidence)) for row in rows)
        for row, found in self.verifier.verify(cases):
            for verdicts in found:
                if isinstance(verdicts, Failed):
                    row = replace(row, failure=row.failure or verdicts)
                else:
                    row = replace(row, verdicts=(*row.verdicts, tuple(verdicts)))
            yield row

    def _judged(self, row: _Row) -> Judged:
        if row.failure is not None or row.oracle is None:
            reason = row.failure or Failed("no facts")
            detail = {"error": reason.reason, **({} if reason.said is None else {"said": reason.said})}
            return Judged({}, 1, 1, {"valid": False, "eval_details": detail})
        is_seen = [claim.is_seen for claim in row.claims]
        truths = [[verdict.is_true for verdict in verdicts] for verdicts in row.verdicts]
        pairs = dcscore_of(is_seen, truths, row.matches, len(row.oracle.facts), self.legacy)
        values = {"scored": 1.0, "claims": float(len(row.claims))}
        for place, suffix in enumerate(("", "_seen")):
            for name in _NAMES:
                values[f"{name}{suffix}"] = sum(getattr(pair[place], name) for pair in pairs) / len(pairs)
        values["score"] = (values["f1"] + values["f1_seen"]) / 2
        return Judged(values, 1, 0, _detail(row, values))


def _with_claims(row: _Row, claims: list[Claim] | Failed) -> _Row:
    return replace(row, failure=claims) if isinstance(claims, Failed) else replace(row, claims=tuple(claims))


def _case(row: _Row) -> tuple[tuple[Claim, ...], tuple[str, ...]]:
    """Nothing to match for a picture that failed."""
    return ((), ()) if row.failure is not None or row.oracle is None else (row.claims, row.oracle.facts)


def _detail(row: _Row, values: Mapping[str, float]) -> dict[str, Any]:
    """What the released program writes of a picture. Claims are referred to by number, facts too, from 0."""
    assert row.oracle is not None
    released = {
        f"{name if name != 'f1' else 'f1_score'}{'_relevant' if suffix else ''}": values[f"{name}{suffix}"]
        for suffix in ("", "_seen")
        for name in _NAMES
    }
    return {
        "valid": True,
        "oracle_caption": row.oracle.caption,
        "human_annotated_oracle_atomic_facts": [
            {"id": number, "fact": fact, "relevance": 1} for number, fact in enumerate(row.oracle.facts)
        ],
        "eval_details": {
            "pred_atomic_facts": [
                {"id": number, "fact": claim.text, "relevance": int(claim.is_seen)}
                for number, claim in enumerate(row.claims)
            ],
            "matched_oracle_ids": [list(match) for match in row.matches],
            "verifications": [[int(verdict.is_true) for verdict in verdicts] for verdicts in row.verdicts],
            "probabilities": [[verdict.entailed for verdict in verdicts] for verdicts in row.verdicts],
            **released,
        },
    }  # fmt: skip
