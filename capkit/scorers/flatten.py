"""What scorers of texts share: every caption of a batch in a row, and its numbers in their places again.

B images, K samples per image, T texts.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from capkit.errors import UsageError
from capkit.text.ptb import ptb_words
from capkit.types import CaptionBatch, Samples
from capkit.utils.tensors import send


def flat_texts(samples: Samples) -> list[str]:
    """All K captions of the first image, then those of the next."""
    return [text for image in samples.texts for text in image]


def caption_words(samples: Samples) -> list[list[str]]:
    """PTB words of each caption, tokenised by itself: a score must not depend on what stands next in the batch."""
    return [ptb_words(text) for text in flat_texts(samples)]


def says_something(text: str) -> bool:
    """Whether there is a letter or digit in it. Judges of language know nothing to say about other texts."""
    return any(letter.isalnum() for letter in text)


def unflatten_scores(values: Sequence[float] | Float[Tensor, " T"], samples: Samples) -> Float[Tensor, "B K"]:
    """Numbers of `flat_texts` as float32, where the samples lie."""
    device = samples.tokens.device if samples.tokens is not None else torch.device("cpu")
    return send(torch.as_tensor(values, dtype=torch.float32), device).view(len(samples.texts), -1)


def references_of(batch: CaptionBatch, scorer: str) -> list[list[str]]:
    """The references of each image. Raises UsageError where an image has none."""
    if len(batch.references) != len(batch) or not all(batch.references):
        raise UsageError(f"{scorer} wants at least one reference for every image of the batch; some have none")
    return batch.references
