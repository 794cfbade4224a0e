"""A caption's length as a reward: full inside a range, falling to nothing outside of it.

B images, K samples per image.
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from capkit.errors import UsageError
from capkit.scorers.flatten import caption_words, unflatten_scores
from capkit.types import CaptionBatch, Samples
from capkit.utils.ranges import NonNegativeInt, PositiveInt, check_ranges

UNITS = ("word", "token")


@check_ranges
class Length:
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
