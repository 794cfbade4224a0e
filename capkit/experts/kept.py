"""Findings on disk, by expert and picture, as answers of language models are: no picture is looked at twice.

A line holds [text, box, score, kind, expert]; those of earlier versions, the first three.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from capkit.experts.base import Expert, Finding
from capkit.llm.base import Answer, Picture, Question
from capkit.llm.cache import AnswerStore, question_key

Look = Callable[[list[int]], list[list[Finding]]]


def kept_findings(store: AnswerStore, keys: Sequence[str], look: Look) -> tuple[list[list[Finding]], int]:
    """The findings under each key, and how many were known; `look` is given the places of the others, each once."""
    known = {key: _parsed(str(answer.text)) for key, answer in store.read(keys).items()}
    num_known = sum(key in known for key in keys)
    new: dict[str, int] = {}
    for place, key in enumerate(keys):
        if key not in known:
            new.setdefault(key, place)
    if new:
        known |= dict(zip(new, look(list(new.values())), strict=True))
        for key in new:
            store.add(key, Answer(_written(known[key])))
        store.flush()
    return [known[key] for key in keys], num_known


class KeptFindings:
    """An Expert that looks by another one, once at each picture. `counts`: pictures `cached` and `looked` at."""

    def __init__(self, expert: Expert, cache_dir: str | Path) -> None:
        self._expert, self._store = expert, AnswerStore(cache_dir, {"findings": expert.about()})
        self.counts = Counter(cached=0, looked=0)

    def about(self) -> dict[str, Any]:
        return self._expert.about()

    def look(self, pictures: Sequence[Picture]) -> list[list[Finding]]:
        keys = [question_key(Question("", (picture,))) for picture in pictures]
        found, num_known = kept_findings(
            self._store, keys, lambda places: self._expert.look([pictures[i] for i in places])
        )
        self.counts.update(cached=num_known, looked=len(pictures) - num_known)
        return found


def _written(found: Sequence[Finding]) -> str:
    return json.dumps([[item.text, item.box, item.score, item.kind, item.expert] for item in found])


def _parsed(text: str) -> list[Finding]:
    return [_finding(*row) for row in json.loads(text)]


def _finding(text: str, box: list[float] | None, score: float, kind: str = "object", expert: str = "") -> Finding:
    return Finding(kind, text, None if box is None else (box[0], box[1], box[2], box[3]), score, expert)
