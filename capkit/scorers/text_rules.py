"""Scorers that read the caption, and at most the references: BLEU, repetition, bad endings, length.

B images, K samples per image.
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from capkit.errors import UsageError
from capkit.metrics.coco.bleu import bleu_scores
from capkit.metrics.diversity import BAD_ENDINGS, has_bad_ending, repetition
from capkit.scorers.base import BaseScorer
from capkit.scorers.flatten import caption_words, references_of, unflatten_scores
from capkit.text.ptb import ptb_words
from capkit.types import CaptionBatch, Samples
from capkit.utils.ranges import NonNegativeInt, PositiveInt, check_ranges

UNITS = ("word", "token")


class Bleu(BaseScorer):
    """BLEU-4 of each sample against its image's references, in 0 .. 1: the COCO tools' number for the image alone.

    Their smoothing adds 1e-15 to the matches of each order and 1e-9 to the n-grams: without a common 4-gram the score
    is about 0, and nearly flat. The end of a caption is no word here: one that breaks off loses by its length only.
    A caption without a word scores 0. `capkit.metrics.coco.collected.Bleu` is the number of the corpus, from the sums
    of the same n-gram statistics over all images: the mean of this one is another number.
    """

    needs_references = True

    def __call__(self, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K"]:
        """Raises UsageError where an image has no reference."""
        references = [[" ".join(ptb_words(text)) for text in image] for image in references_of(batch, "Bleu")]
        own = [image for image, texts in zip(references, samples.texts, strict=True) for _ in texts]
        scores = bleu_scores([" ".join(words) for words in caption_words(samples)], own, tokenized=True)
        return unflatten_scores(scores[:, -1].tolist(), samples)

    def provenance(self) -> dict[str, Any]:
        return {"order": 4, "words": "PTB", "smoothing": "COCO: (matches + 1e-15) / (n-grams + 1e-9)"}


@check_ranges
class Repetition(BaseScorer):
    """Minus the share of a caption's n-grams that it has said before, in -1 .. 0: the monitor's and metric's number.

    Of PTB words, so that punctuation repeats for nothing. A caption below `ngram` words repeats nothing and has 0.
    """

    def __init__(self, ngram: PositiveInt = 2) -> None:
        self.ngram = ngram

    def __call__(self, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K"]:
        return unflatten_scores([-repetition(words, self.ngram) for words in caption_words(samples)], samples)

    def provenance(self) -> dict[str, Any]:
        return {"ngram": self.ngram, "words": "PTB"}


class BadEndings(BaseScorer):
    """-1 for a caption whose last word waits for another ("a man riding a"), else 0; 0 for one without a word.

    The words are those of `capkit.metrics.diversity.BAD_ENDINGS`. What was cut elsewhere is not seen.
    """

    def __call__(self, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K"]:
        return unflatten_scores([-1.0 if has_bad_ending(words) else 0.0 for words in caption_words(samples)], samples)

    def provenance(self) -> dict[str, Any]:
        return {"words": sorted(BAD_ENDINGS)}


@check_ranges
class Length(BaseScorer):
    """1 from `shortest` to `longest`, falling linearly to 0 over `fall_off` words or tokens on either side.

    CapRL (arXiv 2509.22647) has shortest 0, longest 2048 and fall_off 1024 tokens: 2000, 2560, 3072 give 1, .5, 0.

    `units="word"`: PTB words of the text, without punctuation. `units="token"`: the captioner's own ids after the
    prompt, EOS not counted; it wants samples with tokens.
    """

    def __init__(
        self, shortest: NonNegativeInt, longest: NonNegativeInt, fall_off: PositiveInt, units: str = "word"
    ) -> None:
        if units not in UNITS:
            raise UsageError(f"Length wants units=word or units=token; got {units!r}")
        if shortest > longest:
            raise UsageError(f"Length wants shortest <= longest; got {shortest=}, {longest=}")
        self.shortest, self.longest, self.fall_off, self.units = shortest, longest, fall_off, units
        self.needs_tokens = units == "token"

    def __call__(self, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K"]:
        """Raises UsageError for units=token where the samples are texts only."""
        lengths = self._tokens(batch, samples) if self.units == "token" else self._words(samples)
        outside = (self.shortest - lengths).clamp(min=0) + (lengths - self.longest).clamp(min=0)
        return (1 - outside / self.fall_off).clamp(min=0)

    def provenance(self) -> dict[str, Any]:
        return {"shortest": self.shortest, "longest": self.longest, "fall_off": self.fall_off, "units": self.units}

    def _words(self, samples: Samples) -> Float[Tensor, "B K"]:
        return unflatten_scores([float(len(words)) for words in caption_words(samples)], samples)

    def _tokens(self, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K"]:
        if samples.mask is None or samples.ended is None:
            raise UsageError("Length(units=token) wants samples with mask and ended; got texts; use units=word")
        return (samples.mask.sum(-1) - batch.prompt_length - samples.ended.long()).float()
