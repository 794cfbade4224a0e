"""Decomposers: a chat model, and sentences by rule."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from capkit.errors import UsageError
from capkit.judges.claims import Claim, Failed, Item, failed
from capkit.llm.asker import Asker
from capkit.llm.base import ChatModel, Question
from capkit.llm.json_replies import JSONField, ObjectList
from capkit.llm.prompts import Prompt
from capkit.llm.replies import Text, YesNo
from capkit.text.caption_text import clean_text
from capkit.utils.ranges import NonNegativeInt, PositiveInt, check_ranges

# The end of a sentence: a mark, then white space and no small letter ("a 3.5 m pole", "e.g. a dog").
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?![a-z])")


@check_ranges
class ChatDecomposer:
    """A chat model that lists the claims of a text, each as a sentence that can be understood alone.

    Args:
        model: A language model.
        prompt: With the field $text.
        max_claims: More are refused.
        max_words: Of one claim.
        retries, batch_size, cache_dir: of `Asker`.
    """

    def __init__(
        self,
        model: ChatModel | None = None,
        prompt: str = "claims_v1",
        max_claims: PositiveInt = 200,
        max_words: PositiveInt = 100,
        retries: NonNegativeInt = 0,
        batch_size: PositiveInt = 32,
        cache_dir: str = "data/answers",
    ) -> None:
        if model is None:
            raise UsageError("decomposer=chat needs a language model; add text_lm=hf, server or scene")
        self._prompt = Prompt(prompt, ["text"])
        reply = JSONField("claims", ObjectList({"claim": Text(max_words), "seen": YesNo()}, max_claims))
        asker = Asker(model, cache_dir, reply, retries, batch_size=batch_size, pictures=False)
        self.askers: Mapping[str, Asker] = {"claims": asker}
        self._about = {
            "decomposer": "chat", "model": model.about(), "prompt": self._prompt.fingerprint_fields(),
            "max_claims": max_claims, "max_words": max_words, "retries": retries,
        }  # fmt: skip

    def about(self) -> dict[str, Any]:
        return self._about

    def decompose(self, texts: Iterable[tuple[Item, str]]) -> Iterator[tuple[Item, list[Claim] | Failed]]:
        def questions(row: tuple[Item, str]) -> list[Question]:
            text = clean_text(row[1])
            return [Question(self._prompt.fill(text=text))] if text else []

        for (item, _), answers in self.askers["claims"].stream(texts, questions):
            if not answers:
                yield item, []
            for answer in answers:
                if answer.text is None:
                    yield item, failed(answer, "claims")
                else:
                    yield item, [Claim(row["claim"], row["seen"]) for row in answer.value]


class SentenceDecomposer:
    """Each sentence is a claim about what is seen: a baseline without a model.

    A sentence ends at a full stop, exclamation or question mark before white space that no small letter follows.
    """

    def about(self) -> dict[str, Any]:
        return {"decomposer": "sentences"}

    def decompose(self, texts: Iterable[tuple[Item, str]]) -> Iterator[tuple[Item, list[Claim] | Failed]]:
        for item, text in texts:
            yield item, [Claim(sentence) for sentence in sentences(text)]


def sentences(text: str) -> list[str]:
    """The sentences of a text that have a letter or digit, with their marks."""
    found = (sentence.strip() for sentence in _SENTENCE_END.split(clean_text(text)))
    return [sentence for sentence in found if any(letter.isalnum() for letter in sentence)]
