"""A caption of a meme by a model that sees: it joins the text on it with what is shown (CAMU, arXiv 2504.17902).

The paper's prompt was not released in full; ours is `capkit/llm/prompts/meme_v1.txt`.
"""

from collections.abc import Iterator
from dataclasses import replace

from capkit.curation.base import Records
from capkit.curation.step_bases import AskingStep, PictureStep
from capkit.data.records import Caption, Record, Region
from capkit.errors import UsageError
from capkit.llm.asker import Asker
from capkit.llm.base import ChatModel, Question
from capkit.llm.prompts import Prompt
from capkit.llm.replies import Text
from capkit.utils.ranges import NonNegativeInt, PositiveInt, check_ranges

MEME_CAPTION = "memecaption"


@check_ranges
class MemeCaption(PictureStep, AskingStep):
    """Records with one more candidate caption, or with it alone (`keep=false`).

    The model gets the picture, the text on the meme (`metadata["text"]`) and the record's regions, one "name: x0 y0 x1
    y1" a line, in percent of width and height. Where it has no usable answer, as models refuse to describe hateful
    pictures, the candidate is empty and the failure is listed: CAMU masks an empty candidate. Records whose picture is
    unreadable are left out.

    The source of the new caption is "memecaption/<prompt>/<model>"; `metadata["candidates"]` lists the sources of all.
    `retries`, `batch_size` and `cache_dir` are those of `Asker`.
    """

    name = "meme_caption"
    writes_source = f"{MEME_CAPTION}/"

    def __init__(
        self,
        vision_chat: ChatModel | None = None,
        prompt: str = "meme_v1",
        keep: bool = True,
        max_words: PositiveInt = 150,
        retries: NonNegativeInt = 0,
        batch_size: PositiveInt = 32,
        cache_dir: str = "data/answers",
    ) -> None:
        if vision_chat is None:
            raise UsageError("meme_caption needs a model that sees; add vision_chat=hf, server or scene")
        self._prompt, self._keep = Prompt(prompt, ["text", "boxes"]), keep
        self._asker = Asker(vision_chat, cache_dir, Text(max_words), retries, batch_size=batch_size, pictures=True)
        self.askers = {"vision": self._asker}
        about = vision_chat.about()
        self._about = {
            "prompt": self._prompt.fingerprint_fields(),
            "vision_chat": about,
            "keep": keep,
            "max_words": max_words,
            **({"retries": retries} if retries else {}),
        }
        self._source = f"{MEME_CAPTION}/{self._prompt.name}/{about['model']}"

    def __call__(self, records: Records) -> Iterator[Record]:
        for record, answers in self._asker.stream(records(), self._questions):
            for answer in answers:  # none where the picture cannot be read
                if answer.text is None:
                    self._fail(record, str(answer.failure), answer.said)
                captions = [*(record.captions if self._keep else ()), Caption(answer.value or "", self._source)]
                candidates = [caption.source for caption in captions]
                yield replace(record, captions=captions, metadata={**record.metadata, "candidates": candidates})

    def _questions(self, record: Record) -> list[Question]:
        boxes = "\n".join(_line(region) for region in record.regions)
        text = self._prompt.fill(text=record.metadata.get("text") or "(not known)", boxes=boxes or "(none found)")
        picture = self.picture(record)
        return [] if picture is None else [Question(text, (picture,))]


def _line(region: Region) -> str:
    return f"{region.text}: {' '.join(str(round(100 * side)) for side in region.box)}"
