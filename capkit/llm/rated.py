"""Texts whose tokens are rated by what the picture added to them, in the form of replies, so that they are kept."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from capkit.llm.replies import Text, Unparsable

# Of a token: the first character that it writes, the end of those, and its gain in nats.
TokenGain = tuple[int, int, float]


@dataclass(frozen=True)
class RatedText:
    """A text as its model wrote it, and of each token log p(token | picture) - log p(token | no picture)."""

    text: str
    tokens: tuple[TokenGain, ...] = ()


def can_rate(model: Any) -> bool:
    """Whether a ChatModel's answers are rated texts: it says so by `rates = True`."""
    return getattr(model, "rates", False) is True


def rated_answer(text: str, spans: Sequence[tuple[int, int]], gains: Sequence[float]) -> str:
    """The reply that says a text with its tokens: {"text": ..., "tokens": [[start, end, gain], ...]}."""
    tokens = [[start, end, gain] for (start, end), gain in zip(spans, gains, strict=True)]
    return json.dumps({"text": text, "tokens": tokens}, ensure_ascii=False)


@dataclass(frozen=True)
class RatedReply:
    """Reads `rated_answer`: a text of at most `max_words` words that is not empty and no refusal, and its tokens."""

    max_words: int

    def read(self, text: str) -> RatedText:
        try:
            row = json.loads(text)
            said, tokens = row["text"], tuple((int(start), int(end), float(gain)) for start, end, gain in row["tokens"])
        except (ValueError, KeyError, TypeError) as error:
            raise Unparsable('expected {"text": ..., "tokens": [[start, end, gain], ...]}') from error
        Text(self.max_words).take(said)
        if not all(0 <= start < end and math.isfinite(gain) for start, end, gain in tokens):
            raise Unparsable("a token without a character, or whose gain is no number")
        return RatedText(said, tokens)

    def schema(self) -> None:
        return None

    def example(self) -> RatedText:
        return RatedText(Text(self.max_words).example())
