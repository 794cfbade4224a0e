"""BlendCap: a language model merges the captions of an image into one (Gaur et al. 2024, arXiv 2409.03025).

The paper's prompt was not released; ours is `capkit/llm/prompts/blend_v1.txt`.
"""

from collections.abc import Iterator
from dataclasses import replace

from capkit.curation.base import Records, captions_of_one_language
from capkit.curation.step_bases import AskingStep
from capkit.data.records import Caption, Record
from capkit.data.sources.base import clean_captions
from capkit.errors import UsageError
from capkit.llm.asker import Asker
from capkit.llm.base import ChatModel, Question
from capkit.llm.json_replies import JSONField
from capkit.llm.prompts import Prompt, numbered
from capkit.llm.replies import Text
from capkit.utils.ranges import NonNegativeInt, PositiveInt, check_ranges

BLENDCAP = "blendcap"


@check_ranges
class BlendCaptions(AskingStep):
    """Records with one caption merged from theirs; records that the model has no usable answer for are left out.

    Of captions in several languages, those in the language of the first are merged. With `keep`, the captions it was
    made from stay before it. The source of the new one is "blendcap/<prompt>/<model>". `retries`, `batch_size` and
    `cache_dir` are those of `Asker`.
    """

    name = "blend_captions"
    scope = "record"
    writes_source = f"{BLENDCAP}/"

    def __init__(
        self,
        text_lm: ChatModel | None = None,
        prompt: str = "blend_v1",
        keep: bool = False,
        max_words: PositiveInt = 150,
        retries: NonNegativeInt = 0,
        batch_size: PositiveInt = 32,
        cache_dir: str = "data/answers",
    ) -> None:
        if text_lm is None:
            raise UsageError("blend_captions needs a language model; add text_lm=hf, text_lm=server or text_lm=scene")
        self._prompt, self._keep = Prompt(prompt, ["captions"]), keep
        reply = JSONField("caption", Text(max_words))
        self._asker = Asker(text_lm, cache_dir, reply, retries, batch_size=batch_size, pictures=False)
        self.askers = {"text": self._asker}
        about = text_lm.about()
        self._about = {
            "prompt": self._prompt.fingerprint_fields(),
            "text_lm": about,
            "keep": keep,
            "max_words": max_words,
            **({"retries": retries} if retries else {}),
        }
        self._source = f"{BLENDCAP}/{self._prompt.name}/{about['model']}"

    def __call__(self, records: Records) -> Iterator[Record]:
        for record, (answer,) in self._asker.stream(self._usable(records), self._questions):
            if answer.text is None:
                self._fail(record, str(answer.failure), answer.said)
                continue
            merged = Caption(answer.value, self._source, captions_of_one_language(record)[1])
            yield replace(record, captions=[*(record.captions if self._keep else ()), merged])

    def _usable(self, records: Records) -> Iterator[Record]:
        for record in records():
            if clean_captions(captions_of_one_language(record)[0]):
                yield record
            else:
                self._fail(record, "no caption, or only empty ones")

    def _questions(self, record: Record) -> list[Question]:
        captions, _ = captions_of_one_language(record)
        return [Question(self._prompt.fill(captions=numbered(list(dict.fromkeys(clean_captions(captions))))))]
