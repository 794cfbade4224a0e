"""What questions cost: tokens, counted or guessed, and money."""

from dataclasses import dataclass

from capkit.llm.base import Question
from capkit.utils.ranges import NonNegativeFloat

BYTES_PER_TOKEN = 3
TOKENS_OF_TEMPLATE = 16
PIXELS_PER_TOKEN = 28 * 28


@dataclass(frozen=True)
class Price:
    """Money per million tokens, of questions and of answers, in whatever currency."""

    tokens_in: NonNegativeFloat
    tokens_out: NonNegativeFloat

    def __call__(self, tokens_in: float | int, tokens_out: float | int) -> float:
        return (tokens_in * self.tokens_in + tokens_out * self.tokens_out) / 1e6


def tokens_of_text(text: str) -> int:
    """About how many tokens a text has: one for 3 bytes of UTF-8 (English text of common tokenizers has 4)."""
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


def guessed_tokens(question: Question) -> int:
    """About how many tokens a question has, for limits and estimates: rather too many.

    Those of its texts, 16 for the chat template, and one for each 28 x 28 pixels of a picture, as Qwen2-VL has (Wang et
    al. 2024, section 2.1; others scale pictures to a fixed number).
    """
    pixels = [picture.pixels.shape[0] * picture.pixels.shape[1] for picture in question.pictures]
    patches = sum(-(-number // PIXELS_PER_TOKEN) for number in pixels)
    return tokens_of_text(question.text) + tokens_of_text(question.system or "") + TOKENS_OF_TEMPLATE + patches
