"""A figure of a scientific document: the texts about it, and its place in the prompts (MLBCAP, arXiv 2501.02552).

The texts are a record's metadata, under the names of the released data (TEAMREBOOTT-AI/SciCap-MLBCAP).
"""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from capkit.data.records import Caption, Record

Field = Literal["figure_type", "ocr", "paragraph", "mention", "categories", "figure_description"]
FIELDS: tuple[Field, ...] = get_args(Field)
CANDIDATE = "candidate"  # how the source of a candidate begins: "candidate/<generator>/<prompt>/<model>"


def texts_about(record: Record, fields: Sequence[Field]) -> Mapping[str, str]:
    """Every field's text for a prompt; "(not known)" for one that the record lacks, or that is not among `fields`."""
    found = {name: str(record.metadata.get(name) or "").strip() if name in fields else "" for name in FIELDS}
    return {name: text or "(not known)" for name, text in found.items()}


def candidates_of(record: Record) -> list[Caption]:
    return [caption for caption in record.captions if caption.source.startswith(f"{CANDIDATE}/")]
