"""HolisticCap: what a vision-language model saw, added to BlendCap by a language model (Gaur et al. 2024, 2409.03025).

BlendCap is the anchor: what contradicts it is dropped. The paper's prompts were not released; ours are `describe_v1`
and `holistic_v1` in `capkit/llm/prompts`.
"""

from collections.abc import Iterator
from dataclasses import replace

from capkit.curation.base import Records
from capkit.curation.step_bases import AskingStep, PictureStep
from capkit.curation.steps.blend_captions import BLENDCAP
from capkit.data.records import Caption, Record
from capkit.errors import UsageError
from capkit.llm.asker import Asker
from capkit.llm.base import Answer, ChatModel, Question
from capkit.llm.json_replies import JSONField
from capkit.llm.prompts import Prompt
from capkit.llm.replies import Text
from capkit.utils.ranges import NonNegativeInt, PositiveInt, check_ranges

HOLISTICCAP = "holisticcap"


@check_ranges
class HolisticCaption(PictureStep, AskingStep):
    """Records whose BlendCap was enriched by what a model saw; those without usable answers of both are left out.

    Each record needs a caption that blend_captions wrote: the last one is the anchor. `describe_prompt` goes to the
    vision model with the picture alone, `merge_prompt` to the language model with anchor and description. With
    `num_captions` of 2 or more, the vision model describes the picture so often, each time as another sample, and each
    description is merged with the anchor (the published data have five); a record keeps those that succeed. With
    `keep`, the captions that were there stay before the new ones. Their source is "holisticcap/<merge prompt>/<language
    model>/<vision model>". The retries, `batch_size` and `cache_dir` are those of `Asker`.
    """

    name = "holistic_caption"
    reads_source = (f"{BLENDCAP}/", "blend_captions")
    writes_source = f"{HOLISTICCAP}/"

    def __init__(
        self,
        text_lm: ChatModel | None = None,
        vision_chat: ChatModel | None = None,
        describe_prompt: str = "describe_v1",
        merge_prompt: str = "holistic_v1",
        keep: bool = False,
        num_captions: PositiveInt = 1,
        max_words: PositiveInt = 250,
        describe_retries: NonNegativeInt = 0,
        merge_retries: NonNegativeInt = 0,
        batch_size: PositiveInt = 32,
        cache_dir: str = "data/answers",
    ) -> None:
        if text_lm is None or vision_chat is None:
            raise UsageError(
                "holistic_caption needs a language model and one that sees; add text_lm=... and vision_chat=..., each "
                "hf, server or scene"
            )
        self._describe, self._merge = Prompt(describe_prompt, []), Prompt(merge_prompt, ["anchor", "description"])
        self._keep, self._num_captions = keep, num_captions
        text = Text(max_words)
        self._vision = Asker(vision_chat, cache_dir, text, describe_retries, num_captions, batch_size, pictures=True)
        merged = JSONField("caption", text)
        self._text = Asker(text_lm, cache_dir, merged, merge_retries, batch_size=batch_size, pictures=False)
        self.askers = {"text": self._text, "vision": self._vision}
        abouts = {"text_lm": text_lm.about(), "vision_chat": vision_chat.about()}
        self._about = {
            "prompts": [self._describe.fingerprint_fields(), self._merge.fingerprint_fields()],
            **abouts,
            "keep": keep,
            "max_words": max_words,
            **({"num_captions": num_captions} if num_captions > 1 else {}),
            **({"describe_retries": describe_retries} if describe_retries else {}),
            **({"merge_retries": merge_retries} if merge_retries else {}),
        }
        models = "/".join(str(about["model"]) for about in abouts.values())
        self._source = f"{HOLISTICCAP}/{self._merge.name}/{models}"

    def __call__(self, records: Records) -> Iterator[Record]:
        for (record, _), answers in self._text.stream(self._described(records), self._merge_questions):
            language = anchor_of(record).language
            merged = [Caption(answer.value, self._source, language) for answer in self._usable(record, answers)]
            if merged:
                yield replace(record, captions=[*(record.captions if self._keep else ()), *merged])

    def _described(self, records: Records) -> Iterator[tuple[Record, list[str]]]:
        """Records with what the model saw in their pictures."""
        for record, answers in self._vision.stream(records(), self._describe_questions):
            if texts := [answer.value for answer in self._usable(record, answers)]:
                yield record, texts

    def _describe_questions(self, record: Record) -> list[Question]:
        anchor_of(record)  # raises before anything is asked about the record
        picture = self.picture(record)
        if picture is None:
            return []
        return [Question(self._describe.fill(), (picture,), sample=sample) for sample in range(self._num_captions)]

    def _merge_questions(self, described: tuple[Record, list[str]]) -> list[Question]:
        record, texts = described
        return [Question(self._merge.fill(anchor=anchor_of(record).text, description=text)) for text in texts]

    def _usable(self, record: Record, answers: list[Answer]) -> list[Answer]:
        """The answers that there are; failures are reported."""
        for answer in answers:
            if answer.text is None:
                self._fail(record, str(answer.failure), answer.said)
        return [answer for answer in answers if answer.text is not None]


def anchor_of(record: Record) -> Caption:
    """The record's BlendCap."""
    found = [caption for caption in record.captions if caption.source.startswith(f"{BLENDCAP}/")]
    if not found:
        raise UsageError(
            f"holistic_caption: record {record.key!r} has no caption by blend_captions to be anchored in; run that "
            "step first: step=[blend_captions,holistic_caption]"
        )
    return found[-1]
