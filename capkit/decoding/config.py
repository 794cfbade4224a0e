"""How captions are written: one frozen, checked description that every captioner understands."""

from dataclasses import dataclass

from capkit.errors import UsageError, did_you_mean
from capkit.utils.ranges import (
    FiniteFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    PositiveProbability,
    Seed,
    check_ranges,
)

METHODS = ("greedy", "beam", "sample")
_ONLY_FOR = {
    "beam": {"num_beams": 1, "length_penalty": 1.0},
    "sample": {"temperature": 1.0, "top_k": 0, "top_p": 1.0},
}


@check_ranges
@dataclass(frozen=True)
class Decoding:
    """Greedy search, beam search or sampling.

    `max_length` and `min_length` count new tokens, EOS included in the first and not in the second. `length_penalty` is
    the exponent of the length that a beam's log-probability is divided by. Sampling applies temperature, then top-k
    (0: off), then top-p (1: off). `no_repeat_ngram_size` bans an n-gram of tokens from occurring twice (0: off).
    `seed` changes which samples are drawn; each draw depends on (seed, image key, sample, position) and nothing else.

    Raises UsageError for values out of range, and for an option that the chosen method would ignore.
    """

    method: str = "greedy"
    max_length: PositiveInt = 32
    min_length: NonNegativeInt = 0
    num_beams: PositiveInt = 1
    length_penalty: FiniteFloat = 1.0
    temperature: PositiveFloat = 1.0
    top_k: NonNegativeInt = 0
    top_p: PositiveProbability = 1.0
    no_repeat_ngram_size: NonNegativeInt = 0
    seed: Seed = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(
                f"decoding.method must be greedy, beam or sample; got {self.method!r}; "
                f"{did_you_mean(str(self.method), METHODS)}"
            )
        if self.min_length >= self.max_length:
            raise UsageError(
                f"decoding.min_length must be less than max_length={self.max_length}; got {self.min_length}"
            )
        for method, defaults in _ONLY_FOR.items():
            unused = [name for name, default in defaults.items() if getattr(self, name) != default]
            if unused and method != self.method:
                raise UsageError(
                    f"decoding.{unused[0]} has a meaning for method={method} only; "
                    f"got method={self.method}; set decoding.method={method} or leave {unused[0]} out"
                )
        if self.method == "beam" and self.num_beams < 2:
            raise UsageError(
                f"decoding.method=beam needs num_beams of 2 or more; got {self.num_beams}; "
                "set decoding.num_beams=5 or use decoding=greedy"
            )
