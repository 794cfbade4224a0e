"""Regions of captioned pictures: phrases of the captions, where a detector finds them (FlexCap, arXiv 2403.12026)."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from capkit.curation.base import Records, batches, captions_of_one_language
from capkit.curation.step_bases import PictureStep
from capkit.data.records import Record, Region
from capkit.data.sources.base import clean_captions
from capkit.errors import UsageError
from capkit.experts.base import Detector, Finding, check_expert
from capkit.experts.kept import kept_findings
from capkit.llm.base import Picture, Question
from capkit.llm.cache import AnswerStore, question_key
from capkit.utils.ranges import PositiveInt, Probability, check_ranges

# A phrase that begins or ends with one of these is cut out of a longer one: "with a red", "dog on the".
_ENGLISH = """
    a an the this that these those some any another other each every both its his her their our my your it he she they
    we you i him them who which what whose where when while there here and or but nor so as than then if because is are
    was were be been being am has have had having do does did can could will would may might not no also very of in on
    at by to from with without for into onto over under above below behind beside between near next along across through
    around about against inside outside within off up down out plus like s
"""
FUNCTION_WORDS = tuple(_ENGLISH.split())
_PART = re.compile(r"[^.,;:!?()\[\]\"“”|]+")


def phrases_of(caption: str, max_words: int, function_words: Sequence[str] = FUNCTION_WORDS) -> list[str]:
    """Runs of 1 to `max_words` words of a caption that no function word begins or ends, in lower case, each once.

    None goes across a punctuation mark.
    """
    incomplete = set(function_words)
    found: dict[str, None] = {}
    for part in _PART.findall(caption.lower()):
        words = part.split()
        for start, first in enumerate(words):
            if first not in incomplete:
                ends = range(start + 1, min(start + max_words, len(words)) + 1)
                found |= {" ".join(words[start:end]): None for end in ends if words[end - 1] not in incomplete}
    return list(found)


@check_ranges
class MineRegions(PictureStep):
    """Records with a region for each phrase of their captions and each box where `detector` finds it, not their own.

    Phrases are the n-grams of up to `max_words` words of the captions in the first one's language (`phrases_of`). A box
    whose score is not above `min_score` is dropped; a box may have several phrases. What a detector finds that is none
    of the phrases is dropped too. Records without any region are reported and left out, as those whose picture is
    unreadable.

    What the detector found is kept in `cache_dir`, by detector, picture and phrases: a run that was stopped goes on
    there. `batch_size` pictures are read at a time, which is what a kill can lose.

    `counts`: `phrases` asked for, `boxes` kept, of these `words_1`, `words_2` ... by the phrase's length; boxes
    `below_score`; boxes of `other_phrases`; pictures `cached`; records `without_regions`.
    """

    name = "mine_regions"
    writes_source = ""

    def __init__(
        self,
        detector: Detector | None = None,
        max_words: PositiveInt = 8,
        min_score: Probability = 0.1,
        function_words: Sequence[str] = FUNCTION_WORDS,
        batch_size: PositiveInt = 16,
        cache_dir: str = "data/answers",
    ) -> None:
        if detector is None:
            raise UsageError("mine_regions needs a detector; see configs/step/mine_regions.yaml")
        check_expert(detector, Detector, "mine_regions: detector")
        self._detector, self._max_words, self._min_score = detector, max_words, float(min_score)
        self._function_words, self._batch_size = tuple(function_words), batch_size
        self._store = AnswerStore(cache_dir, {"detections": detector.about()})
        lengths = [f"words_{length}" for length in range(1, max_words + 1)]
        names = ("phrases", "boxes", *lengths, "below_score", "other_phrases", "cached", "without_regions")
        self.counts = dict.fromkeys(names, 0)

    def fingerprint_fields(self) -> dict[str, Any]:
        settings = {"max_words": self._max_words, "min_score": self._min_score}
        words = sorted(self._function_words)
        return {"detector": self._detector.about(), **settings, "function_words": words}

    def __call__(self, records: Records) -> Iterator[Record]:
        for batch in batches(records(), self._batch_size):
            seen = self.readable(batch)
            phrases = [self._phrases(record) for record, _ in seen]
            found = self._found([picture for _, picture in seen], phrases)
            for (record, _), asked, boxes in zip(seen, phrases, found, strict=True):
                if regions := self._regions(set(asked), boxes):
                    yield replace(record, regions=regions)
                    continue
                self.counts["without_regions"] += 1
                reason = f"none of {len(asked)} phrases was found" if asked else "no phrase in its captions"
                self._fail(record, reason)

    def _phrases(self, record: Record) -> list[str]:
        captions = clean_captions(captions_of_one_language(record)[0])
        found = {p: None for text in captions for p in phrases_of(text, self._max_words, self._function_words)}
        self.counts["phrases"] += len(found)
        return list(found)

    def _regions(self, asked: set[str], found: Sequence[Finding]) -> list[Region]:
        regions = []
        for item in found:
            if item.text not in asked:
                self.counts["other_phrases"] += 1
            elif item.score <= self._min_score:
                self.counts["below_score"] += 1
            else:
                assert item.box is not None, "a detector gives boxes"
                regions.append(Region(item.box, item.text))
                self.counts["boxes"] += 1
                self.counts[f"words_{len(item.text.split())}"] += 1
        return regions

    def _found(self, pictures: list[Picture], phrases: list[list[str]]) -> list[list[Finding]]:
        """What the detector finds; of what was asked before, what it found then."""
        keys = [question_key(Question(json.dumps(a), (picture,))) for picture, a in zip(pictures, phrases, strict=True)]
        found, num_cached = kept_findings(
            self._store,
            keys,
            lambda places: self._detector.detect([pictures[i] for i in places], [phrases[i] for i in places]),
        )
        self.counts["cached"] += num_cached
        return found
