"""One caption for all views of an object (Embodied captioning, Galliena et al. 2025, arXiv 2504.08531, LD-CPS).

A captioner contradicts itself from view to view. A language model is told how often it said what, and writes the
caption that holds for all views. Our prompt is `capkit/llm/prompts/embodied_agree_v1.txt`.
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from capkit.curation.base import Records, captions_of_one_language
from capkit.curation.groups import groups
from capkit.curation.step_bases import AskingStep
from capkit.data.records import Caption, Record
from capkit.data.sources.base import clean_captions
from capkit.errors import UsageError
from capkit.llm.asker import Asker
from capkit.llm.base import Answer, ChatModel, Question
from capkit.llm.marked_replies import Tagged
from capkit.llm.prompts import Prompt
from capkit.utils.files import atomic_path
from capkit.utils.ranges import NonNegativeInt, PositiveInt, check_ranges

EMBODIED = "embodied"
TAG = "Caption"
_COUNTED = ("objects", "agreed", "captions_banned", "most_frequent")
_COLUMNS = ("episode_id", "object_id", "pseudo_caption")


@dataclass(frozen=True)
class _Object:
    """The views of one object, and how often each of their captions stands among them, the most frequent first."""

    views: list[Record]
    frequencies: list[tuple[str, int]]
    language: str

    @property
    def name(self) -> str:
        return str(self.views[0].object)


@check_ranges
class AgreeOnViews(AskingStep):
    """Records with one caption, the same for all views of an object (`Record.object`).

    Captions with a banned word are left out first. `text_lm` gets the others with their frequencies, the most frequent
    first, and answers with a caption between <Caption> and </Caption>; its source is "embodied/<prompt>/<model>".
    Where it says something else, without tags or with more than `max_words` words, the most frequent caption is taken
    (of equally frequent ones the first), with the source "embodied/most_frequent".

    The views of an object are left out, and reported, if no caption is left of it, or if the model gave no answer.

    `counts`, beside those of the asker: `objects`, of these `agreed`; `captions_banned`; `most_frequent`, objects whose
    reply was not usable.

    Args:
        banned_words: Lists of words, by kind. A word is banned as a whole, with its plural in -s or -es, in any case:
            "cat" bans "cats", and neither "location" nor "catalogue". Null: none.
        csv_file: Also write episode_id, object_id, pseudo_caption there: what stands before and behind the last slash
            of `Record.object`. It needs all records, so no shards.
        keep: Whether the captions that were there stay before the new one.
        retries, batch_size, cache_dir: of `Asker`.

    Deliberate differences from the released program: (1) it looks for banned words anywhere, so that "cat" bans
    "location"; (2) an object whose captions were all banned vanishes there; (3) without tags it writes no caption.
    """

    name = "agree_on_views"
    writes_source = f"{EMBODIED}/"

    def __init__(
        self,
        text_lm: ChatModel | None = None,
        banned_words: Mapping[str, Sequence[str] | None] | None = None,
        prompt: str = "embodied_agree_v1",
        max_words: PositiveInt = 20,
        csv_file: str | None = None,
        keep: bool = False,
        retries: NonNegativeInt = 0,
        batch_size: PositiveInt = 32,
        cache_dir: str = "data/answers",
    ) -> None:
        if text_lm is None:
            raise UsageError(f"{self.name} needs a language model; add text_lm=hf, text_lm=server or text_lm=scene")
        self.scope = "group" if csv_file is None else "all"
        words = [word for of_kind in (banned_words or {}).values() for word in of_kind or ()]
        self._banned = banned_pattern(words)
        self._prompt = Prompt(prompt, ["frequencies"], ["max_words"])
        self._max_words, self._csv_file, self._keep = max_words, csv_file, keep
        reply = Tagged(TAG, max_words)
        self._asker = Asker(text_lm, cache_dir, reply, retries, batch_size=batch_size, pictures=False)
        self.askers = {"text": self._asker}
        about = text_lm.about()
        self._about = {
            "prompt": self._prompt.fingerprint_fields(),
            "text_lm": about,
            "banned_words": sorted(words),
            "max_words": max_words,
            "keep": keep,
            "retries": retries,
        }
        self._source = f"{EMBODIED}/{self._prompt.name}/{about['model']}"
        self._numbers: dict[str, int] = dict.fromkeys(_COUNTED, 0)

    def __call__(self, records: Records) -> Iterator[Record]:
        self._numbers = dict.fromkeys(_COUNTED, 0)  # a step behind this one may iterate anew
        with self._table() as write:
            for seen, (answer,) in self._asker.stream(self._objects(records), self._questions):
                caption = self._agreed(seen, answer)
                if caption is None:
                    self._drop(seen.views, str(answer.failure), answer.said)
                    continue
                self._numbers["agreed"] += 1
                write([*_identity(seen.name), caption.text])
                for view in seen.views:
                    yield replace(view, captions=[*(view.captions if self._keep else ()), caption])

    def _objects(self, records: Records) -> Iterator[_Object]:
        for views in groups(records(), self.name):
            self._numbers["objects"] += 1
            language = next((view.captions[0].language for view in views if view.captions), "en")
            texts = [text for view in views for text in _texts(view, language)]
            kept = [text for text in texts if self._banned is None or not self._banned.search(text)]
            self._numbers["captions_banned"] += len(texts) - len(kept)
            if kept:
                yield _Object(views, Counter(kept).most_common(), language)
            elif texts:
                assert self._banned is not None
                word = next(found[0] for text in texts if (found := self._banned.search(text)))
                self._drop(views, f"every caption of its object has a banned word, such as {word!r} in {texts[0]!r}")
            else:
                self._drop(views, "its object has no caption, or only empty ones")

    def _questions(self, seen: _Object) -> list[Question]:
        told = json.dumps([[number, text] for text, number in seen.frequencies], ensure_ascii=False)
        return [Question(self._prompt.fill(frequencies=told, max_words=str(self._max_words)))]

    def _agreed(self, seen: _Object, answer: Answer) -> Caption | None:
        """The object's caption; None where the model said nothing."""
        if answer.text is not None:
            return Caption(answer.value, self._source, seen.language)
        if answer.said is None:
            return None
        self._numbers["most_frequent"] += 1
        return Caption(seen.frequencies[0][0], f"{EMBODIED}/most_frequent", seen.language)

    def _drop(self, views: list[Record], reason: str, said: str | None = None) -> None:
        for view in views:
            self._fail(view, reason, said)

    @contextmanager
    def _table(self) -> Iterator[Callable[[Sequence[str]], Any]]:
        """Writes rows to `csv_file`, which is there once all are written; without one, or in a dry run, nowhere."""
        if self._csv_file is None or self._asker.account.ledger.is_dry:
            yield lambda row: None
            return
        with atomic_path(self._csv_file) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(_COLUMNS)
            yield table.writerow


def banned_pattern(words: Sequence[Any]) -> re.Pattern[str] | None:
    """Finds any of the words or phrases as a whole, or its plural in -s or -es; None without words.

    Raises UsageError for what is no word, since an empty one would ban every caption.
    """
    if wrong := [word for word in words if not isinstance(word, str) or not word.strip()]:
        raise UsageError(f"agree_on_views: expected banned words, got {wrong[0]!r}; leave it out, or quote it")
    if not words:
        return None
    # The longest first, so that the message names "living room" and not "room".
    spelled = sorted((r"\s+".join(map(re.escape, word.split())) for word in words), key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(spelled)})(?:e?s)?(?!\w)", re.IGNORECASE)


def _texts(view: Record, language: str) -> list[str]:
    captions, own = captions_of_one_language(view)
    return clean_captions(captions) if own == language else []


def _identity(name: str) -> tuple[str, str]:
    """The episode and the object: a name without a slash has no episode."""
    episode, _, item = name.rpartition("/")
    return episode, item
