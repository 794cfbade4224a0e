"""BlendCap: a language model merges the captions of an image into one (Gaur et al. 2024, arXiv 2409.03025).

The paper's prompt was not released; ours is `capkit/llm/prompts/blend_v1.txt`.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from capkit.curation.base import Failure, Records, batches, captions_of_one_language, ignore_failure
from capkit.curation.caption_answers import json_caption
from capkit.data.records import Caption, Record
from capkit.data.sources.base import clean_captions
from capkit.errors import UsageError
from capkit.llm.base import TextLM
from capkit.llm.cache import CachedModel
from capkit.llm.prompts import Prompt, numbered
from capkit.utils.ranges import PositiveInt, check_ranges

BLENDCAP = "blendcap"


@check_ranges
class BlendCaptions:
    """Records with one caption merged from theirs; records that the model has no usable answer for are left out.

    Of captions in several languages, those in the language of the first are merged. With `keep`, the captions it was
    made from stay before it. The source of the new one is "blendcap/<prompt>/<model>". Answers are kept in `cache_dir`;
    `batch_size` records are asked for at a time, which is what a kill can lose.
    """

    by_record = True

    def __init__(
        self,
        text_lm: TextLM | None = None,
        prompt: str = "blend_v1",
        keep: bool = False,
        max_words: PositiveInt = 150,
        batch_size: PositiveInt = 32,
        cache_dir: str = "data/answers",
    ) -> None:
        if text_lm is None:
            raise UsageError("blend_captions needs a language model; add text_lm=hf, text_lm=server or text_lm=scene")
        self._prompt, self._keep, self._batch_size = Prompt(prompt, ["captions"]), keep, batch_size
        self._about = {
            "prompt": self._prompt.fingerprint_fields(),
            "text_lm": text_lm.fingerprint_fields(),
            "keep": keep,
            "max_words": max_words,
        }
        self._model = CachedModel(text_lm, cache_dir, partial(json_caption, max_words=max_words))
        self._source = f"{BLENDCAP}/{self._prompt.name}/{text_lm.fingerprint_fields()['model']}"
        self._report: Callable[[Failure], None] = ignore_failure

    def attach_failures(self, report: Callable[[Failure], None]) -> None:
        self._report = report

    def fingerprint_fields(self) -> dict[str, Any]:
        return self._about

    @property
    def counts(self) -> dict[str, int]:
        return {f"text_{name}": count for name, count in self._model.counts.items()}

    def __call__(self, records: Records) -> Iterator[Record]:
        for batch in batches(self._usable(records), self._batch_size):
            answers = self._model.ask([self._question(record) for record in batch])
            for record, answer in zip(batch, answers, strict=True):
                if answer.text is None:
                    self._report(Failure(record.key, "blend_captions", str(answer.failure), answer.said))
                    continue
                merged = Caption(answer.text, self._source, captions_of_one_language(record)[1])
                yield replace(record, captions=[*(record.captions if self._keep else ()), merged])

    def _usable(self, records: Records) -> Iterator[Record]:
        for record in records():
            if clean_captions(captions_of_one_language(record)[0]):
                yield record
            else:
                self._report(Failure(record.key, "blend_captions", "no caption, or only empty ones"))

    def _question(self, record: Record) -> str:
        captions, _ = captions_of_one_language(record)
        return self._prompt.fill(captions=numbered(list(dict.fromkeys(clean_captions(captions)))))
