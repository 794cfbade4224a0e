"""How a captioner is guided while it writes: settings, validated and without torch."""

from dataclasses import dataclass

from capkit.errors import UsageError
from capkit.utils.ranges import NonNegativeFloat, PositiveFloat, check_ranges


@check_ranges
@dataclass(frozen=True)
class Guide:
    """Classifier-free guidance: away from what the captioner would write without the image.

    Each token is scored l_u + scale (l_c - l_u), of its log-probabilities l_c with the image and l_u without it,
    renormalised (Kornblith et al. 2023, arXiv 2307.16686, section 3). The captioner must have been trained with
    `objective.image_dropout`.

    Args:
        scale: g. 1: plain decoding; above 1 captions become more specific, and less likely.
    """

    scale: PositiveFloat = 1.5

    @property
    def weights(self) -> tuple[float, float]:
        """Of l_c, and of -l_u."""
        return float(self.scale), float(self.scale) - 1.0


@check_ranges
@dataclass(frozen=True)
class LanguageModelGuide:
    """Guidance towards a language model: log q + image l_c - no_image l_u, renormalised (the same paper, section 3.3).

    Args:
        language_model: What gives q: a causal language model's name or folder, or a captioner's run or checkpoint,
            which then writes without an image. Its tokenizer must be the captioner's.
        image: a, of the log-probability with the image.
        no_image: b, of the log-probability without it.
        prompt: A text file that a causal language model reads first: example captions, separated by blank lines. Where
            it would go on with a line break, the caption ends.

    Raises UsageError for a weight out of range.
    """

    language_model: str
    image: PositiveFloat = 5.0
    no_image: NonNegativeFloat = 2.5
    prompt: str | None = None

    def __post_init__(self) -> None:
        if not self.language_model:
            raise UsageError(
                "decoding.guide.language_model: expected the name of a language model or a captioner's run, got "
                f"{self.language_model!r}"
            )

    @property
    def weights(self) -> tuple[float, float]:
        """Of l_c, and of -l_u."""
        return float(self.image), float(self.no_image)
