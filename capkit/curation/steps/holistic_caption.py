"""HolisticCap: what a vision-language model saw, added to BlendCap by a language model (Gaur et al. 2024, 2409.03025).

BlendCap is the anchor: what contradicts it is dropped. The paper's prompts were not released; ours are `describe_v1`
and `holistic_v1` in `capkit/llm/prompts`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import UInt8

from capkit.curation.base import Failure, Records, batches, ignore_failure, readable
from capkit.curation.caption_answers import json_caption, plain_text
from capkit.curation.steps.blend_captions import BLENDCAP
from capkit.data.records import Caption, Record
from capkit.errors import UsageError
from capkit.llm.base import Answer, TextLM, VisionChat
from capkit.llm.cache import CachedModel
from capkit.llm.prompts import Prompt
from capkit.utils.ranges import PositiveInt, check_ranges

HOLISTICCAP = "holisticcap"


@check_ranges
class HolisticCaption:
    """Records whose BlendCap was enriched by what a model saw; those without usable answers of both are left out.

    Each record needs a caption that blend_captions wrote: the last one is the anchor. `describe_prompt` goes to the
    vision model with the picture alone, `merge_prompt` to the language model with anchor and description. With `keep`,
    the captions that were there stay before the new one. Its source is "holisticcap/<merge prompt>/<language
    model>/<vision model>". Answers are kept in `cache_dir`; `batch_size` records are asked for at a time, which is what
    a kill can lose.
    """

    by_record = True

    def __init__(
        self,
        text_lm: TextLM | None = None,
        vision_chat: VisionChat | None = None,
        describe_prompt: str = "describe_v1",
        merge_prompt: str = "holistic_v1",
        keep: bool = False,
        max_words: PositiveInt = 250,
        batch_size: PositiveInt = 32,
        cache_dir: str = "data/answers",
    ) -> None:
        if text_lm is None or vision_chat is None:
            raise UsageError(
                "holistic_caption needs a language model and one that sees; add text_lm=... and vision_chat=..., each "
                "hf, server or scene"
            )
        self._describe, self._merge = Prompt(describe_prompt, []), Prompt(merge_prompt, ["anchor", "description"])
        self._keep, self._batch_size = keep, batch_size
        self._vision = CachedModel(vision_chat, cache_dir, partial(plain_text, max_words=max_words))
        self._text = CachedModel(text_lm, cache_dir, partial(json_caption, max_words=max_words))
        self._about = {
            "prompts": [self._describe.fingerprint_fields(), self._merge.fingerprint_fields()],
            "text_lm": text_lm.fingerprint_fields(),
            "vision_chat": vision_chat.fingerprint_fields(),
            "keep": keep,
            "max_words": max_words,
        }
        models = f"{text_lm.fingerprint_fields()['model']}/{vision_chat.fingerprint_fields()['model']}"
        self._source = f"{HOLISTICCAP}/{self._merge.name}/{models}"
        self._report: Callable[[Failure], None] = ignore_failure
        self._read: Callable[[str], UInt8[np.ndarray, "H W 3"]] | None = None

    def attach_failures(self, report: Callable[[Failure], None]) -> None:
        self._report = report

    def attach_images(self, read: Callable[[str], UInt8[np.ndarray, "H W 3"]]) -> None:
        """`read` gives the picture of a record's key, or raises BadImage."""
        self._read = read

    def fingerprint_fields(self) -> dict[str, Any]:
        return self._about

    @property
    def counts(self) -> dict[str, int]:
        counts = {f"text_{name}": count for name, count in self._text.counts.items()}
        return counts | {f"vision_{name}": count for name, count in self._vision.counts.items()}

    def __call__(self, records: Records) -> Iterator[Record]:
        for batch in batches(records(), self._batch_size):
            seen = self._descriptions(batch)
            described = [(record, anchor_of(record), seen[record.key]) for record in batch if record.key in seen]
            prompts = [self._merge.fill(anchor=anchor.text, description=text) for _, anchor, text in described]
            answers = self._text.ask(prompts) if prompts else []
            for (record, anchor, _), answer in zip(described, answers, strict=True):
                if answer.text is None:
                    self._fail(record, answer)
                    continue
                merged = Caption(answer.text, self._source, anchor.language)
                yield replace(record, captions=[*(record.captions if self._keep else ()), merged])

    def _descriptions(self, batch: Sequence[Record]) -> dict[str, str]:
        """What the model saw, by the record's key; failures are reported."""
        for record in batch:
            anchor_of(record)
        found = readable(batch, self._read, "holistic_caption", self._report)
        pictures = [picture for _, picture in found]
        answers = self._vision.ask([self._describe.fill()] * len(found), pictures) if found else []
        seen = {}
        for (record, _), answer in zip(found, answers, strict=True):
            if answer.text is None:
                self._fail(record, answer)
            else:
                seen[record.key] = answer.text
        return seen

    def _fail(self, record: Record, answer: Answer) -> None:
        self._report(Failure(record.key, "holistic_caption", str(answer.failure), answer.said))


def anchor_of(record: Record) -> Caption:
    """The record's BlendCap."""
    found = [caption for caption in record.captions if caption.source.startswith(f"{BLENDCAP}/")]
    if not found:
        raise UsageError(
            f"holistic_caption: record {record.key!r} has no caption by blend_captions to be anchored in; run that "
            "step first: step=[blend_captions,holistic_caption]"
        )
    return found[-1]
