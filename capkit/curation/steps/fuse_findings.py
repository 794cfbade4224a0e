"""FuseCap: a language model writes what experts found in a picture into its caption (arXiv 2305.17718).

The paper's fuser (FLAN-T5-XL, trained on some 20,000 pairs of ChatGPT's) and its prompt were not released; ours are
`capkit/llm/prompts/fuse_v1.txt`, and `fuse_text_v1.txt` for models that cannot write JSON, as T5's have no braces.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from capkit.curation.base import Records, captions_of_one_language
from capkit.curation.step_bases import AskingStep, counts_of
from capkit.curation.steps.gather_findings import findings_of
from capkit.data.records import Added, Caption, Record
from capkit.errors import UsageError
from capkit.experts.base import Box, Finding
from capkit.experts.choosing import FoundObject, by_object
from capkit.llm.asker import Asker
from capkit.llm.base import ChatModel, Question
from capkit.llm.json_replies import JSONField
from capkit.llm.prompts import Prompt
from capkit.llm.replies import Text
from capkit.text.caption_text import clean_text
from capkit.utils.ranges import NonNegativeInt, PositiveInt, check_ranges

FUSECAP = "fusecap"
NOTHING = "(none)"
_WORD = re.compile(r"\w+")


@check_ranges
class FuseFindings(AskingStep):
    """Records whose captions were fused with the findings that `gather_findings` wrote; those without any are left out.

    Each caption in the language of the first is fused by itself, in place; with `keep`, it stays before the fused ones.
    A caption without a usable answer is reported, and left out unless `keep`. The source of a fused caption is
    "fusecap/<prompt>/<model>"; its `added` lists the findings that it says and its original did not. `reply` is what
    the prompt asks for: "json", {"caption": ...}, or "text", the caption alone. `retries`, `batch_size` and `cache_dir`
    are those of `Asker`.

    Raises UsageError for records without findings.
    """

    name = "fuse_findings"
    scope = "record"
    writes_source = f"{FUSECAP}/"

    def __init__(
        self,
        text_lm: ChatModel | None = None,
        prompt: str = "fuse_v1",
        keep: bool = False,
        max_words: PositiveInt = 150,
        retries: NonNegativeInt = 0,
        batch_size: PositiveInt = 32,
        cache_dir: str = "data/answers",
        reply: str = "json",
    ) -> None:
        if text_lm is None:
            raise UsageError("fuse_findings needs a language model; add text_lm=hf, text_lm=server or text_lm=scene")
        if reply not in ("json", "text"):
            raise UsageError(f"fuse_findings: expected reply=json or reply=text, as its prompt asks; got {reply!r}")
        self._prompt, self._keep = Prompt(prompt, ["caption", "objects", "texts", "tags"]), keep
        read = JSONField("caption", Text(max_words)) if reply == "json" else Text(max_words)
        self._asker = Asker(text_lm, cache_dir, read, retries, batch_size=batch_size, pictures=False)
        self.askers = {"text": self._asker}
        about = text_lm.about()
        self._about = {
            "prompt": self._prompt.fingerprint_fields(),
            "text_lm": about,
            "keep": keep,
            "max_words": max_words,
            **({"retries": retries} if retries else {}),
            **({"reply": reply} if reply != "json" else {}),
        }
        self._source = f"{FUSECAP}/{self._prompt.name}/{about['model']}"
        self._added: Counter[str] = Counter()

    @property
    def counts(self) -> dict[str, int]:
        """Of the questions; and how many findings of each expert were added to captions."""
        return counts_of(self.askers) | {f"added_{name}": count for name, count in self._added.items()}

    def __call__(self, records: Records) -> Iterator[Record]:
        for record, answers in self._asker.stream(self._usable(records), self._questions):
            findings = findings_of(record, "fuse_findings")
            originals = _captions(record)
            fused = []
            for original, answer in zip(originals, answers, strict=True):
                if answer.text is None:
                    self._fail(record, str(answer.failure), answer.said)
                    continue
                added = said_anew(findings, original.text, answer.value)
                self._added.update(item.expert for item in added)
                fused.append(Caption(answer.value, self._source, original.language, added=added))
            if fused:
                yield replace(record, captions=[*(record.captions if self._keep else ()), *fused])

    def _usable(self, records: Records) -> Iterator[Record]:
        for record in records():
            findings_of(record, "fuse_findings")
            if _captions(record):
                yield record
            else:
                self._fail(record, "no caption, or only empty ones")

    def _questions(self, record: Record) -> list[Question]:
        objects, rest = by_object(findings_of(record, "fuse_findings"))
        texts = [f'"{item.text}"{_in_percent(item.box)}' for item in rest if item.kind == "text"]
        tags = [item.text for item in rest if item.kind not in ("text", "attribute")]
        found = {"objects": _lines([_object_line(item) for item in objects]), "texts": _lines(texts)}
        found["tags"] = ", ".join(tags) or NOTHING
        return [Question(self._prompt.fill(caption=clean_text(c.text), **found)) for c in _captions(record)]


def _captions(record: Record) -> list[Caption]:
    return [caption for caption in captions_of_one_language(record)[0] if clean_text(caption.text)]


def _lines(lines: Sequence[str]) -> str:
    return "\n".join(lines) or NOTHING


def _object_line(found: FoundObject) -> str:
    """'red large sign with the text "STOP": 10 20 30 40'."""
    words = [*(item.text for item in found.attributes), found.finding.text]
    words += [f'with the text "{item.text}"' for item in found.texts]
    return " ".join(words) + _in_percent(found.finding.box)


def _in_percent(box: Box | None) -> str:
    return "" if box is None else f": {' '.join(str(round(100 * side)) for side in box)}"


def said_anew(findings: Sequence[Finding], original: str, fused: str) -> tuple[Added, ...]:
    """The findings whose words a fused caption says more often than the original one, in their order.

    Words are compared whole and without case. Of several findings with one text, as many as it is said more often; the
    surest first.
    """
    before, after = _words(original), _words(fused)
    room: dict[str, int] = {}
    kept: list[Finding] = []
    for item in sorted(findings, key=lambda item: -item.score):
        text = " ".join(_words(item.text))
        room.setdefault(text, _count(after, text) - _count(before, text) if text else 0)
        if room[text] > 0:
            room[text] -= 1
            kept.append(item)
    return tuple(Added(item.text, item.expert, item.score) for item in findings if any(item is one for one in kept))


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _count(words: Sequence[str], text: str) -> int:
    length = len(text.split())
    return sum(" ".join(words[i : i + length]) == text for i in range(len(words) - length + 1))
