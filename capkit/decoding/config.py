"""Decoding settings: one frozen, validated object that every captioner understands."""

import math
from dataclasses import dataclass

from capkit.decoding.guide import Guide, LanguageModelGuide
from capkit.errors import UsageError, did_you_mean
from capkit.utils.ranges import (
    AtLeastTwo,
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
    """Settings of greedy search, beam search or sampling.

    Args:
        method: "greedy", "beam" or "sample".
        max_length: Most new tokens, EOS included.
        min_length: Fewest new tokens, EOS excluded.
        num_beams: Beams per image.
        length_penalty: A beam's score is its log-probability divided by its length to this power.
        temperature: Divides the logits before top-k and top-p.
        top_k: Sample from the k most probable tokens; 0 disables it.
        top_p: Then sample from the smallest set of tokens with at least this probability mass; 1 disables it.
        no_repeat_ngram_size: No n-gram of tokens of this size occurs twice; 0 disables it.
        stop: A caption ends with the first token whose text contains this, such as "." (ClipCap, DiscriTune). The token
            is kept, and EOS follows as the only possible token. None: captions end with EOS alone.
        num_candidates: Captions proposed for each image, by sampling or by the beams, of which a scorer picks one
            (`capkit/scorers/as_reranker.py`); None: the method's one caption.
        prompt: Words that every caption starts with, as in "the colour is": given, and part of the caption, behind the
            captioner's own `prompt`, which is not.
        guide: Guidance of each token's score, before all other settings (`capkit/decoding/guided.py`); None: none.
        seed: Each draw depends on (seed, image key, sample, position) and nothing else.

    Raises UsageError for a value out of range and for an option that the chosen method would ignore.
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
    stop: str | None = None
    num_candidates: AtLeastTwo | None = None
    prompt: str = ""
    guide: Guide | LanguageModelGuide | None = None
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
        if self.stop == "":
            raise UsageError('decoding.stop: expected text such as ".", or null for none; got an empty text')
        for method, defaults in _ONLY_FOR.items():
            unused = [name for name, default in defaults.items() if getattr(self, name) != default]
            if unused and method != self.method:
                raise UsageError(
                    f"decoding.{unused[0]} applies to method={method} only; "
                    f"got method={self.method}; set decoding.method={method} or leave {unused[0]} out"
                )
        if self.method == "beam" and self.num_beams < 2:
            raise UsageError(
                f"decoding.method=beam needs num_beams of 2 or more; got {self.num_beams}; "
                "set decoding.num_beams=5 or use decoding=greedy"
            )
        if self.num_candidates is not None and self.num_candidates > self._most_captions:
            raise UsageError(
                f"decoding.num_candidates must be at most {self._most_captions}, all that method={self.method} gives "
                f"of an image; got {self.num_candidates}; set decoding.method=sample or raise decoding.num_beams"
            )

    @property
    def _most_captions(self) -> float | int:
        return {"greedy": 1, "beam": self.num_beams}.get(self.method, math.inf)
