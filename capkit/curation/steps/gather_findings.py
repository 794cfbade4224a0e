"""What experts find in each picture: objects, attributes, texts and tags, for the steps that write with them."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

from capkit.curation.base import Records, batches
from capkit.curation.step_bases import PictureStep
from capkit.data.records import Record
from capkit.errors import UsageError
from capkit.experts.base import Expert, Finding, check_expert
from capkit.experts.choosing import confident, without_duplicates
from capkit.experts.kept import KeptFindings
from capkit.utils.ranges import PositiveInt, Probability, check_ranges

FINDINGS = "findings"


@check_ranges
class GatherFindings(PictureStep):
    """Records with what all `experts` find in their picture as `metadata["findings"]`, in the order of the experts.

    Each finding is {kind, text, box, score, expert} (`capkit.experts.base.Finding`). Those with a score below
    `min_score` are left out; of two of one kind and name whose boxes overlap by more than `max_overlap` (IoU) the surer
    one stays. Records whose picture is unreadable are reported and left out; those without findings stay.

    What experts find is kept in `cache_dir`, by expert and picture: a run that was stopped goes on there, and another
    `min_score` or `max_overlap` costs no look. `batch_size` pictures are read at a time, which is what a kill can lose.

    `counts`: findings of each kind; `below_score`, `duplicates`; pictures `without_findings`; of each expert, pictures
    `looked` at and `cached`.
    """

    name = "gather_findings"
    writes_source = ""

    def __init__(
        self,
        experts: Mapping[str, Expert | None] | None = None,
        min_score: Probability = 0.3,
        max_overlap: Probability = 0.5,
        batch_size: PositiveInt = 16,
        cache_dir: str = "data/answers",
    ) -> None:
        given = {name: expert for name, expert in (experts or {}).items() if expert is not None}
        if not given:
            raise UsageError("gather_findings looks at pictures by experts; add expert=[ocr,tagger] or others")
        for name, expert in given.items():
            check_expert(expert, Expert, f"expert.{name}")
        self._experts = {name: KeptFindings(expert, cache_dir) for name, expert in given.items()}
        self._min_score, self._max_overlap, self._batch_size = float(min_score), float(max_overlap), batch_size
        self._found: Counter[str] = Counter()

    def fingerprint_fields(self) -> dict[str, Any]:
        experts = [expert.about() for expert in self._experts.values()]
        return {"experts": experts, "min_score": self._min_score, "max_overlap": self._max_overlap}

    @property
    def counts(self) -> dict[str, int]:
        looks = {f"{name}_{key}": n for name, expert in self._experts.items() for key, n in expert.counts.items()}
        return dict(self._found) | looks

    def __call__(self, records: Records) -> Iterator[Record]:
        for batch in batches(records(), self._batch_size):
            seen = self.readable(batch)
            pictures = [picture for _, picture in seen]
            found = [expert.look(pictures) for expert in self._experts.values()]
            for place, (record, _) in enumerate(seen):
                chosen = self._chosen([item for by_expert in found for item in by_expert[place]])
                yield replace(record, metadata={**record.metadata, FINDINGS: [asdict(item) for item in chosen]})

    def _chosen(self, found: list[Finding]) -> list[Finding]:
        sure = confident(found, self._min_score)
        chosen = without_duplicates(sure, self._max_overlap)
        self._found.update(below_score=len(found) - len(sure), duplicates=len(sure) - len(chosen))
        self._found.update(f"{item.kind}s" for item in chosen)
        self._found["without_findings"] += not chosen
        return chosen


def findings_of(record: Record, step: str) -> list[Finding]:
    """What `gather_findings` wrote. Raises UsageError, naming the step that asks, where it did not run."""
    rows = record.metadata.get(FINDINGS)
    if rows is None:
        raise UsageError(
            f"{step}: record {record.key!r} has no findings; let experts look first: "
            f"step=[gather_findings,{step}] expert=[...]"
        )
    return [Finding(**{**row, "box": None if row["box"] is None else tuple(row["box"])}) for row in rows]
