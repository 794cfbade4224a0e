"""Parts of speech of the words of captions, for objective=modular."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from capkit.curation.base import Records
from capkit.data.records import Caption, Record
from capkit.errors import UsageError
from capkit.text.caption_text import clean_text
from capkit.text.tagging import Tagger
from capkit.text.word_classes import MODULES, WordClasses, words


class TagWords:
    """Records whose captions have `tags`, one for each word and mark (`capkit.text.word_classes.words`).

    `counts`: captions; words of each class of `classes`; words with a tag of no class, which count as functions.
    """

    scope = "record"
    writes_source = ""

    def __init__(self, tagger: Tagger | None = None, classes: str = "published") -> None:
        if tagger is None:
            raise UsageError("tag_words needs a tagger; give step.tag_words.tagger._target_=...SpacyTagger or a file's")
        self._tagger, self._classes = tagger, WordClasses(classes)
        self._counts: Counter[str] = Counter()

    def fingerprint_fields(self) -> dict[str, Any]:
        about = self._tagger.about() if hasattr(self._tagger, "about") else type(self._tagger).__name__
        return {"tagger": about}

    @property
    def counts(self) -> dict[str, int]:
        return {name: self._counts[name] for name in ("captions", *MODULES, "unknown_tags")}

    def __call__(self, records: Records) -> Iterator[Record]:
        for record in records():
            yield replace(record, captions=[self._tagged(caption) for caption in record.captions])

    def _tagged(self, caption: Caption) -> Caption:
        tags = tuple(self._tagger.tag(words(clean_text(caption.text)), caption.language))
        self._counts["captions"] += 1
        self._counts.update(MODULES[number] for number in self._classes.of_words(tags))
        self._counts["unknown_tags"] += sum(not self._classes.knows(tag) for tag in tags)
        return replace(caption, tags=tags)
