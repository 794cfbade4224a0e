"""A caption of a meme by a model that sees: it joins the text on it with what is shown (CAMU, arXiv 2504.17902).

The paper's prompt was not released in full; ours is `capkit/llm/prompts/meme_v1.txt`.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from capkit.curation.base import Failure, PictureStep, Records, batches
from capkit.curation.caption_answers import plain_text
from capkit.data.records import Caption, Record, Region
from capkit.errors import UsageError
from capkit.llm.base import VisionChat
from capkit.llm.cache import CachedModel
from capkit.llm.prompts import Prompt
from capkit.utils.ranges import PositiveInt, check_ranges

MEME_CAPTION = "memecaption"


@check_ranges
class MemeCaption(PictureStep):
    """Records with one more candidate caption, or with it alone (`keep=false`).

    The model gets the picture, the text on the meme (`metadata["text"]`) and the record's regions, one "name: x0 y0 x1
    y1" a line, in percent of width and height. Where it has no usable answer, as models refuse to describe hateful
    pictures, the candidate is empty and the failure is listed: CAMU masks an empty candidate. Records whose picture is
    unreadable are left out.

    The source of the new caption is "memecaption/<prompt>/<model>"; `metadata["candidates"]` lists the sources of all.
    Answers are kept in `cache_dir`; `batch_size` records are asked for at a time, which is what a kill can lose.
    """

    def __init__(
        self,
        vision_chat: VisionChat | None = None,
        prompt: str = "meme_v1",
        keep: bool = True,
        max_words: PositiveInt = 150,
        batch_size: PositiveInt = 32,
        cache_dir: str = "data/answers",
    ) -> None:
        if vision_chat is None:
            raise UsageError("meme_caption needs a model that sees; add vision_chat=hf, server or scene")
        self._prompt, self._keep, self._batch_size = Prompt(prompt, ["text", "boxes"]), keep, batch_size
        about = vision_chat.fingerprint_fields()
        self._about = {
            "prompt": self._prompt.fingerprint_fields(),
            "vision_chat": about,
            "keep": keep,
            "max_words": max_words,
        }
        self._model = CachedModel(vision_chat, cache_dir, partial(plain_text, max_words=max_words))
        self._source = f"{MEME_CAPTION}/{self._prompt.name}/{about['model']}"
        super().__init__()

    def fingerprint_fields(self) -> dict[str, Any]:
        return self._about

    @property
    def counts(self) -> dict[str, int]:
        return {f"vision_{name}": count for name, count in self._model.counts.items()}

    def __call__(self, records: Records) -> Iterator[Record]:
        for batch in batches(records(), self._batch_size):
            seen = self.readable(batch, "meme_caption")
            prompts = [self._question(record) for record, _ in seen]
            answers = self._model.ask(prompts, [picture for _, picture in seen]) if seen else []
            for (record, _), answer in zip(seen, answers, strict=True):
                if answer.text is None:
                    self._report(Failure(record.key, "meme_caption", str(answer.failure), answer.said))
                added = Caption(answer.text or "", self._source)
                captions = [*(record.captions if self._keep else ()), added]
                candidates = [caption.source for caption in captions]
                yield replace(record, captions=captions, metadata={**record.metadata, "candidates": candidates})

    def _question(self, record: Record) -> str:
        boxes = "\n".join(_line(region) for region in record.regions)
        return self._prompt.fill(text=record.metadata.get("text") or "(not known)", boxes=boxes or "(none found)")


def _line(region: Region) -> str:
    return f"{region.text}: {' '.join(str(round(100 * side)) for side in region.box)}"
