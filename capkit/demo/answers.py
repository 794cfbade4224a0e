"""What a captioner says about one picture: captions, the log-probability of each word, where it looked, and scores.

K captions, L tokens of a caption.
"""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from capkit.data.given_pictures import given_pictures
from capkit.decoding.config import Decoding
from capkit.decoding.generate import other_ends
from capkit.errors import UsageError
from capkit.loaded import NUM_BEAMS, LoadedCaptioner
from capkit.models.captioners.word_attention import require_attention, word_attention
from capkit.scorers.base import BaseScorer, ReadImage, as_scorer
from capkit.scorers.reward import RewardTerm
from capkit.text.tokenizers import encode_captions, prompt_ids
from capkit.text.words_of_tokens import words_of_tokens
from capkit.train.conditions import UNCONDITIONED, Requested
from capkit.types import CaptionBatch, Context, Samples
from capkit.utils.ranges import Range, Seed, check_ranges
from capkit.utils.tensors import send

MOST_SAMPLES, LONGEST_TEXT = 8, 500  # of one request: sampled captions, characters of a caption that is given
OWN = "its own decoding"  # what `capkit caption` writes, where that is neither greedy search nor the beam
_NO_LIMIT = 1 << 30


@check_ranges
@dataclass(frozen=True)
class Asked:
    """What a visitor wants beside greedy search and beam search. Raises UsageError for values out of range.

    Args:
        samples: sampled captions.
        temperature: of the samples; what is said of probabilities is at temperature 1.
        seed: with the picture, decides which captions are sampled.
        attention: whether to say where the captioner looked at each word.
        text: a caption of the visitor's, to be scored; "": none.
        prompt: words that the written captions start with; "": those of the captioner's decoding, if it has any.
    """

    samples: Annotated[int, Range(0, MOST_SAMPLES)] = 3
    temperature: Annotated[float, Range(0.01, 10)] = 1.0
    seed: Seed = 0
    attention: bool = True
    text: str = ""
    prompt: str = ""

    def __post_init__(self) -> None:
        for name, words in (("text", self.text), ("prompt", self.prompt)):
            if len(words) > LONGEST_TEXT:
                raise UsageError(f"{name}: expected at most {LONGEST_TEXT} characters, got {len(words):,}")


@dataclass(frozen=True)
class Word:
    """A word of a caption; `nats`, the log-probability of its tokens, summed."""

    text: str
    nats: float
    shares: Float[np.ndarray, "S S"] | None = None  # of attention, by cell of the picture; they sum to 1


@dataclass(frozen=True)
class Written:
    """A caption. `nats`: log-probability of all tokens, punctuation and the end included, at temperature 1."""

    how: str
    text: str
    words: list[Word]
    nats: float
    end_nats: float | None  # of the end, where it was written: a caption that was cut has none
    num_unknown: int = 0  # tokens outside of the captioner's vocabulary, which counts its unknown token in their place
    scores: dict[str, float | None] = field(default_factory=dict)  # by name of the scorer; None: it gave no number


@dataclass(frozen=True)
class Answer:
    """What one captioner says about the picture, which `seen` shows as the captioner sees it (`_seen`)."""

    name: str
    seen: UInt8[np.ndarray, "P P 3"]
    captions: list[Written]
    note: str = ""


class Shown:
    """A captioner of the demo, by the name that the page gives it. Readies what guides its decoding.

    Raises UsageError where that cannot be had.
    """

    def __init__(self, name: str, captioner: LoadedCaptioner, requested: Requested = UNCONDITIONED) -> None:
        self.name, self.captioner, self.requested = name, captioner, requested
        captioner.ready(captioner.decoding)
        self.no_attention = ""
        try:
            require_attention(captioner.model)
        except UsageError as error:
            self.no_attention = str(error).removeprefix("attention: ")


class Demo:
    """Captioners and scorers that answer pictures, one at a time.

    Raises UsageError for scorers that need what a lone picture does not have: references, or other captions.
    """

    def __init__(self, shown: Sequence[Shown], terms: Mapping[str, RewardTerm | None] | None = None) -> None:
        self.shown = list(shown)
        self.scorers = {name: as_scorer(term.scorer) for name, term in (terms or {}).items() if term is not None}
        for name, scorer in self.scorers.items():
            _require_lone_pictures(name, scorer)
            scorer.meet(lambda split: ["the picture that is dropped"] if split == "train" else [])
            scorer.prepare(_nothing_to_see, list, shown[0].captioner.device)

    def answer(self, picture: bytes, asked: Asked) -> list[Answer]:
        """What each captioner says. Raises BadImage for bytes that are no picture.

        Not to be called by two threads at once.
        """
        (given,) = given_pictures(picture)
        pixels = given.read()
        key = given.key(pixels)
        try:
            self._attach({key: pixels}.get)
            return [self._answer(one, key, pixels, asked) for one in self.shown]
        finally:
            self._attach(_nothing_to_see)

    def rehearse(self) -> None:
        """Answer about a grey picture. Raises UsageError where a scorer needs what a picture alone has not."""
        grey = io.BytesIO()
        Image.new("RGB", (64, 64), (128, 128, 128)).save(grey, format="PNG")
        self.answer(grey.getvalue(), Asked(samples=0))

    def _attach(self, read: ReadImage) -> None:
        """Scorers forget the pictures of an earlier reader, and what they have made of them."""
        for scorer in self.scorers.values():
            scorer.attach_images(read)

    @torch.inference_mode()
    def _answer(self, one: Shown, key: str, pixels: np.ndarray, asked: Asked) -> Answer:
        captioner, model = one.captioner, one.captioner.model
        prepared = captioner.preprocess([pixels])
        batch = one.requested(CaptionBatch([key], pixels=send(prepared, captioner.device)))
        context = model.encode(batch)
        own = captioner.decoding
        shared: dict[str, Any] = {"max_length": own.max_length, "prompt": asked.prompt.strip() or own.prompt}
        ways: list[tuple[str, Decoding, int]] = [
            ("greedy", Decoding("greedy", **shared), 1),
            (f"beam of {NUM_BEAMS}", Decoding("beam", num_beams=NUM_BEAMS, **shared), 1),
        ]
        if (own := replace(own, **shared)) not in [decoding for _, decoding, _ in ways]:
            ways.append((OWN, own, 1))
        if asked.samples:
            sampled = Decoding("sample", temperature=asked.temperature, seed=asked.seed, **shared)
            ways.append(("sample", sampled, asked.samples))
        captions: list[Written] = []
        for how, decoding, number in ways:
            captions += self._written(how, one, batch, context, model.generate(context, decoding, number), asked)
        if asked.text.strip():
            captions += self._written("yours", one, batch, context, _given(captioner, asked.text), asked)
        return Answer(one.name, _seen(prepared[0]), captions, one.no_attention if asked.attention else "")

    def _written(
        self, how: str, one: Shown, batch: CaptionBatch, context: Context, samples: Samples, asked: Asked
    ) -> list[Written]:
        model = one.captioner.model
        assert samples.tokens is not None and samples.mask is not None
        logprobs: Float[Tensor, "1 K L-1"] = model.logprobs(context, samples.tokens, samples.mask)
        scores = self._scores(one, batch, samples)
        given = len(prompt_ids(model.tokenizer, model.prompt))
        unknown = model.tokenizer.unk_token_id  # GPT-2's is that of EOS, which is no word
        captions = []
        for k, text in enumerate(samples.texts[0]):
            real = int(samples.mask[0, k].sum())
            ids = samples.tokens[0, k, given:real].tolist()
            nats = logprobs[0, k, given - 1 : real - 1].double().tolist()
            is_ended = bool(ids) and ids[-1] in (model.tokenizer.eos_token_id, *other_ends(model))
            shares: Sequence[np.ndarray | None] | None = None
            if asked.attention and not one.no_attention:
                shares = list(word_attention(model, context, samples.numbers(slice(k, k + 1)))[0].shares)
            ids = ids[: len(ids) - is_ended]
            words = _words(model.tokenizer, ids, nats, shares)
            name = f"{how} {k + 1}" if len(samples.texts[0]) > 1 else how
            of_caption = {scorer: values[k] for scorer, values in scores.items()}
            end = nats[-1] if is_ended else None
            captions.append(Written(name, text, words, sum(nats), end, ids.count(unknown), of_caption))
        return captions

    def _scores(self, one: Shown, batch: CaptionBatch, samples: Samples) -> dict[str, list[float | None]]:
        found = {}
        for name, scorer in self.scorers.items():
            scorer.attach_captioner(one.captioner.model.tokenizer, one.captioner.model.prompt)
            values = scorer(batch, samples)[0].tolist()
            found[name] = [None if math.isnan(value) else float(value) for value in values]
        return found


def _nothing_to_see(key: str) -> None:
    """Reads no picture."""


def _seen(prepared: Float[Tensor, "3 P P"]) -> UInt8[np.ndarray, "P P 3"]:
    """Pixels that a captioner is given, however they were normalised: from the darkest to the brightest, 0 to 255."""
    values = prepared.float().cpu()
    low, high = values.min(), values.max()
    scaled = (values - low) / (high - low).clamp(min=1e-6)
    return (scaled * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def _require_lone_pictures(name: str, scorer: BaseScorer) -> None:
    if scorer.needs_references or scorer.needs_fit or not scorer.scores_alone:
        lacks = "other captions to compare with" if not scorer.scores_alone else "references"
        raise UsageError(
            f"reward.{name}: expected a scorer of a picture and its caption alone, got one that needs {lacks}, which a "
            "dropped picture has not; take for example reward=[clip_score], [length] or [fluency]"
        )


def _given(captioner: LoadedCaptioner, text: str) -> Samples:
    """A visitor's caption as if the captioner had written it. Raises UsageError where it is too long."""
    model = captioner.model
    tokens, mask, _ = encode_captions(model.tokenizer, [[text]], model.prompt, _NO_LIMIT)
    if tokens.shape[-1] > model.max_length:
        raise UsageError(
            f"text: expected at most {model.max_length} tokens, the captioner's positions, got {tokens.shape[-1]}; "
            "shorten it"
        )
    tokens, mask = send(tokens, captioner.device), send(mask, captioner.device)
    return replace(Samples.from_texts([[text]]), tokens=tokens, mask=mask)


def _words(tokenizer: Any, ids: list[int], nats: list[float], shares: Sequence[np.ndarray | None] | None) -> list[Word]:
    """Words with the log-probability of the tokens that write them; a token of two words counts in both."""
    found = words_of_tokens(tokenizer, ids)
    looks = shares if shares is not None else [None] * len(found)
    return [
        Word(word, sum(nats[place] for place in places), look)
        for (word, places), look in zip(found, looks, strict=True)
    ]
