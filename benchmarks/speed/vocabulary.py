"""A vocabulary of words that read like words, and captions of its common ones: random weights then write texts that
tokenizers and metrics treat as English."""

import random
from itertools import islice, product
from typing import Any

import torch
from tokenizers import models
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn

from capkit.text.tokenizers import SPECIAL_TOKENS, word_tokenizer

_SYLLABLES = ["".join(pair) for pair in product("bdfgklmnprstvz", "aeiou")]
NUM_COMMON = 3_000  # words of which captions are made
_PULL = 12.0  # nats by which common words are likelier than others: nothing else is sampled, EOS included


def words_of(size: int) -> list[str]:
    """As many different words as a vocabulary of `size` has beside its special tokens."""
    return ["".join(word) for word in islice(product(_SYLLABLES, repeat=3), size - 4)]


def common_words(size: int) -> list[str]:
    words = words_of(size)
    return words[:: max(1, len(words) // NUM_COMMON)][:NUM_COMMON]


def tokenizer_of(size: int) -> Any:
    return word_tokenizer([" ".join(words_of(size))])


def judge_tokenizer_of(size: int) -> Any:
    """Most of the same words, and syllables of the others, so that captions differ in length as they do under CLIP's
    tokenizer; BOS and EOS around each text."""
    tokenizer = tokenizer_of(size)
    whole = [word for number, word in enumerate(words_of(size)) if number % 5]
    pieces = [*SPECIAL_TOKENS.values(), *_SYLLABLES, *(f"##{syllable}" for syllable in _SYLLABLES), *whole]
    backend = tokenizer.backend_tokenizer
    backend.model = models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="<unk>")
    around = [("<bos>", tokenizer.bos_token_id), ("<eos>", tokenizer.eos_token_id)]
    backend.post_processor = TemplateProcessing(single="<bos> $A <eos>", special_tokens=around)
    return tokenizer


def references_of(size: int, num_images: int, per_image: int = 5, length: int = 10) -> list[list[str]]:
    """Captions of random common words."""
    draw, words = random.Random(0), common_words(size)
    return [[" ".join(draw.choices(words, k=length)) for _ in range(per_image)] for _ in range(num_images)]


@torch.no_grad()
def favour_common_words(tokenizer: Any, size: int, norm: nn.LayerNorm, embedding: Tensor) -> None:
    """Make a decoder whose head is `embedding` write common words: its last norm's bias points along them."""
    direction = nn.functional.normalize(torch.randn(embedding.shape[1], device=embedding.device), dim=0)
    ids = tokenizer.convert_tokens_to_ids(common_words(size))
    norm.bias.add_(10 * direction)
    embedding[ids] += _PULL / 10 * direction
