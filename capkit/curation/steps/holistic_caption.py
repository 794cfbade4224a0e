"""HolisticCap: what a vision-language model saw, added to BlendCap by a language model (Gaur et al. 2024, 2409.03025).

BlendCap is the anchor: what contradicts it is dropped. The paper's prompts were not released; ours are `describe_v1`
and `holistic_v1` in `capkit/llm/prompts`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from capkit.curation.base import Failure, PictureStep, Records, batches
from capkit.curation.caption_answers import json_caption, plain_text
from capkit.curation.steps.blend_captions import BLENDCAP
from capkit.data.records import Caption, Record
from capkit.errors import UsageError
from capkit.llm.base import Answer, Picture, SampledVisionChat, TextLM, VisionChat
from capkit.llm.cache import CachedModel
from capkit.llm.prompts import Prompt
from capkit.utils.ranges import PositiveInt, check_ranges

HOLISTICCAP = "holisticcap"


@check_ranges
class HolisticCaption(PictureStep):
    """Records whose BlendCap was enriched by what a model saw; those without usable answers of both are left out.

    Each record needs a caption that blend_captions wrote: the last one is the anchor. `describe_prompt` goes to the
    vision model with the picture alone, `merge_prompt` to the language model with anchor and description. With
    `num_captions` of 2 or more, the vision model describes the picture so often, each time with draws of its own, and
    each description is merged with the anchor (the published data have five); a record keeps those that succeed. With
    `keep`, the captions that were there stay before the new ones. Their source is "holisticcap/<merge prompt>/<language
    model>/<vision model>". Answers are kept in `cache_dir`; `batch_size` records are asked for at a time, which is what
    a kill can lose.
    """

    def __init__(
        self,
        text_lm: TextLM | None = None,
        vision_chat: VisionChat | None = None,
        describe_prompt: str = "describe_v1",
        merge_prompt: str = "holistic_v1",
        keep: bool = False,
        num_captions: PositiveInt = 1,
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
        self._visions = [
            CachedModel(model, cache_dir, partial(plain_text, max_words=max_words))
            for model in _draws(vision_chat, num_captions)
        ]
        self._text = CachedModel(text_lm, cache_dir, partial(json_caption, max_words=max_words))
        self._about = {
            "prompts": [self._describe.fingerprint_fields(), self._merge.fingerprint_fields()],
            "text_lm": text_lm.fingerprint_fields(),
            "vision_chat": vision_chat.fingerprint_fields(),
            "keep": keep,
            "max_words": max_words,
            **({"num_captions": num_captions} if num_captions > 1 else {}),
        }
        models = f"{text_lm.fingerprint_fields()['model']}/{vision_chat.fingerprint_fields()['model']}"
        self._source = f"{HOLISTICCAP}/{self._merge.name}/{models}"
        super().__init__()

    def fingerprint_fields(self) -> dict[str, Any]:
        return self._about

    @property
    def counts(self) -> dict[str, int]:
        counts = {f"text_{name}": count for name, count in self._text.counts.items()}
        seen = sum((vision.counts for vision in self._visions), Counter())
        return counts | {f"vision_{name}": seen[name] for name in self._visions[0].counts}

    def __call__(self, records: Records) -> Iterator[Record]:
        for batch in batches(records(), self._batch_size):
            for record in batch:
                anchor_of(record)
            found = self.readable(batch, "holistic_caption")
            merged: dict[str, list[Caption]] = defaultdict(list)
            for vision in self._visions:
                for record, text in self._merged(self._descriptions(found, vision)):
                    merged[record.key].append(Caption(text, self._source, anchor_of(record).language))
            for record, _ in found:
                if record.key in merged:
                    kept = record.captions if self._keep else ()
                    yield replace(record, captions=[*kept, *merged[record.key]])

    def _merged(self, described: list[tuple[Record, str]]) -> Iterator[tuple[Record, str]]:
        """Anchor and description of each record as one text; failures are reported."""
        prompts = [self._merge.fill(anchor=anchor_of(record).text, description=text) for record, text in described]
        answers = self._text.ask(prompts) if prompts else []
        return self._usable([record for record, _ in described], answers)

    def _descriptions(self, found: list[tuple[Record, Picture]], vision: CachedModel) -> list[tuple[Record, str]]:
        """What the model saw in each record's picture; failures are reported."""
        pictures = [picture for _, picture in found]
        answers = vision.ask([self._describe.fill()] * len(found), pictures) if found else []
        return list(self._usable([record for record, _ in found], answers))

    def _usable(self, records: list[Record], answers: list[Answer]) -> Iterator[tuple[Record, str]]:
        for record, answer in zip(records, answers, strict=True):
            if answer.text is None:
                self._fail(record, answer)
            else:
                yield record, answer.text

    def _fail(self, record: Record, answer: Answer) -> None:
        self._report(Failure(record.key, "holistic_caption", str(answer.failure), answer.said))


def _draws(vision_chat: VisionChat, number: int) -> list[VisionChat]:
    """The model itself, or as many of its samples. Raises UsageError for a model that cannot sample."""
    if number == 1:
        return [vision_chat]
    if not isinstance(vision_chat, SampledVisionChat):
        raise UsageError(
            f"num_captions={number} needs a vision_chat that can be sampled (capkit/llm/base.py: SampledVisionChat), "
            f"got {type(vision_chat).__name__}; choose another, or num_captions=1"
        )
    return [vision_chat.sample(place) for place in range(number)]


def anchor_of(record: Record) -> Caption:
    """The record's BlendCap."""
    found = [caption for caption in record.captions if caption.source.startswith(f"{BLENDCAP}/")]
    if not found:
        raise UsageError(
            f"holistic_caption: record {record.key!r} has no caption by blend_captions to be anchored in; run that "
            "step first: step=[blend_captions,holistic_caption]"
        )
    return found[-1]
