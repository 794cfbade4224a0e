"""CapsFusion: a language model fuses a picture's alt-text with a synthetic caption (Yu et al. 2023, arXiv 2310.20550).

The alt-text knows names and is badly written, the synthetic caption is fluent and knows none. The prompt of the
released model, CapsFus-LLaMA, is part of that model, and is given as a file; ours is
`capkit/llm/prompts/fuse_alt_text_v1.txt`.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import NamedTuple

from capkit.curation.base import Records, is_by
from capkit.curation.capsfusion_files import AddRow, capsfusion_writer
from capkit.curation.step_bases import AskingStep, counts_of
from capkit.data.records import Caption, Record
from capkit.errors import UsageError, check_choice
from capkit.llm.asker import Asker
from capkit.llm.base import ChatModel, Question
from capkit.llm.cost import guessed_tokens
from capkit.llm.json_replies import JSONField
from capkit.llm.prompts import Prompt
from capkit.llm.replies import Reply, Text
from capkit.text.caption_text import clean_text
from capkit.utils.ranges import NonNegativeInt, PositiveInt, check_ranges

CAPSFUSION = "capsfusion"
REPLIES = ("json", "text")
_WORD = re.compile(r"\S+")


class _Item(NamedTuple):
    """A record with its two captions and the prompt that is made of them."""

    record: Record
    alt_text: Caption
    synthetic: Caption
    prompt: str


@check_ranges
class FuseAltText(AskingStep):
    """Records with one caption, fused from their alt-text and their synthetic caption; with `keep`, behind those.

    The two are the first captions that are not empty whose source is `alt_text` and `synthetic`, or begins with it and
    a slash ("blendcap" is also "blendcap/blend_v1/MODEL"). A record without one of them, or without a usable answer, is
    reported and left out. The source of the new caption is "capsfusion/<prompt>/<model>", its language that of the
    synthetic one.

    A prompt of more than `max_prompt_tokens` loses the end of its alt-text, in whole words if one word fits. Tokens are
    those that the model counts (`ChatModel.count_tokens`, its chat template included); of a model that counts none,
    such as a server, those of `tokenizer` and 16 for its template; without one they are guessed, rather too many
    (`capkit.llm.cost.guessed_tokens`). The report counts `prompts_cut`.

    Args:
        text_lm: The model.
        alt_text, synthetic: Sources of the two captions.
        prompt: A prompt with $alt_text and $synthetic.
        reply: What it asks for: "json", {"caption": ...}, or "text", the caption alone, as CapsFus-LLaMA answers.
        keep: Whether the record's captions stay.
        max_words: Longest fused caption.
        max_prompt_tokens: Longest prompt; null: no limit.
        tokenizer: Hub name or folder of the tokenizer to count by, for a model that counts none.
        released_file: A .parquet or .json file that also gets the captions as CapsFusion's releases have them
            (`capkit/curation/capsfusion_files.py`); needs all records, no shards.
        retries, batch_size, cache_dir: of `Asker`.

    A run whose records have no such two captions ends before anything is asked (`check_sources`).
    """

    name = "fuse_alt_text"
    writes_source = f"{CAPSFUSION}/"

    def __init__(
        self,
        text_lm: ChatModel | None = None,
        alt_text: str = "alt_text",
        synthetic: str = "synthetic",
        prompt: str = "fuse_alt_text_v1",
        reply: str = "json",
        keep: bool = False,
        max_words: PositiveInt = 150,
        max_prompt_tokens: PositiveInt | None = 256,
        tokenizer: str | None = None,
        released_file: str | None = None,
        retries: NonNegativeInt = 0,
        batch_size: PositiveInt = 32,
        cache_dir: str = "data/answers",
    ) -> None:
        if text_lm is None:
            raise UsageError("fuse_alt_text needs a language model; add text_lm=hf, text_lm=server or text_lm=scene")
        check_choice("reply", reply, REPLIES)
        if alt_text == synthetic:
            raise UsageError(f"alt_text and synthetic must be two sources of captions; got {alt_text!r} for both")
        self.needs_sources = (alt_text, synthetic)
        self.scope = "record" if released_file is None else "all"
        self._prompt, self._keep, self._released = Prompt(prompt, ["alt_text", "synthetic"]), keep, released_file
        if released_file is not None:
            capsfusion_writer(released_file)  # refuses other endings before anything is asked
        text = Text(max_words)
        reader: Reply = JSONField("caption", text) if reply == "json" else text
        self._asker = Asker(text_lm, cache_dir, reader, retries, batch_size=batch_size, pictures=False)
        self.askers = {"text": self._asker}
        self._most, self._num_tokens = max_prompt_tokens, _counter(text_lm, tokenizer)
        about = text_lm.about()
        self._about = {
            "sources": self.needs_sources,
            "prompt": self._prompt.fingerprint_fields(),
            "text_lm": about,
            "reply": reply,
            "keep": keep,
            "max_words": max_words,
            "max_prompt_tokens": max_prompt_tokens,
            "tokenizer": tokenizer,
            "retries": retries,
        }
        self._source = f"{CAPSFUSION}/{self._prompt.name}/{about['model']}"
        self._num_cut = 0

    @property
    def counts(self) -> dict[str, int]:
        return counts_of(self.askers) | {"prompts_cut": self._num_cut}

    def __call__(self, records: Records) -> Iterator[Record]:
        with self._writer() as add:
            for item, (answer,) in self._asker.stream(self._usable(records), lambda item: [Question(item.prompt)]):
                record = item.record
                if answer.text is None:
                    self._fail(record, str(answer.failure), answer.said)
                    continue
                if add is not None:
                    add(record.metadata.get("url"), item.alt_text.text, item.synthetic.text, answer.value)
                fused = Caption(answer.value, self._source, item.synthetic.language)
                yield replace(record, captions=[*(record.captions if self._keep else ()), fused])

    def _writer(self) -> AbstractContextManager[AddRow | None]:
        is_wanted = self._released is not None and not self._asker.account.ledger.is_dry
        return capsfusion_writer(self._released) if is_wanted and self._released is not None else nullcontext()

    def _usable(self, records: Records) -> Iterator[_Item]:
        for record in records():
            pair = [self._first(record, source) for source in self.needs_sources]
            missing = [source for source, found in zip(self.needs_sources, pair, strict=True) if found is None]
            if missing:
                self._fail(record, f"no caption, or only empty ones, by {' and '.join(missing)}")
                continue
            alt_text, synthetic = (caption for caption in pair if caption is not None)
            prompt = self.prompt_of(clean_text(alt_text.text), clean_text(synthetic.text))
            if prompt is None:
                reason = f"without its alt-text the prompt has more than max_prompt_tokens={self._most} tokens"
                self._fail(record, reason)
            else:
                yield _Item(record, alt_text, synthetic, prompt)

    def _first(self, record: Record, source: str) -> Caption | None:
        return next((c for c in record.captions if is_by(c.source, source) and clean_text(c.text)), None)

    def prompt_of(self, alt_text: str, synthetic: str) -> str | None:
        """The prompt, with as much of the alt-text's beginning as fits; None if nothing of it does."""

        def filled(end: int) -> str:
            return self._prompt.fill(alt_text=alt_text[:end], synthetic=synthetic)

        def length(end: int) -> int:
            return self._num_tokens(Question(filled(end)))

        if self._most is None or length(len(alt_text)) <= self._most:
            return filled(len(alt_text))
        words = [word.end() for word in _WORD.finditer(alt_text)]
        for ends in (words, range(1, words[0])):  # a first word that is too long, as without spaces, loses letters
            if kept := bisect_right(ends, self._most, key=length):
                self._num_cut += 1
                return filled(ends[kept - 1])
        return None


def _counter(model: ChatModel, tokenizer: str | None) -> Callable[[Question], int]:
    own = getattr(model, "count_tokens", None)
    if own is not None and tokenizer is not None:
        raise UsageError(
            f"tokenizer={tokenizer!r} is for models that count no tokens, and {type(model).__name__} does; leave it out"
        )
    if tokenizer is not None:
        from capkit.llm.huggingface import token_counter  # imports transformers, which servers do without

        return token_counter(tokenizer)
    return guessed_tokens if own is None else own
