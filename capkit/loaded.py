"""What `capkit.load` returns: a captioner or a dual encoder that takes pictures as people hold them.

N pictures, M texts, D width of an embedding; K captions of a picture, L tokens.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar, overload

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from capkit.checkpoint.hub_models import Preprocess
from capkit.data.given_pictures import Chunk, Errors, Picture, given_pictures, is_one, read_in_chunks
from capkit.decoding.config import METHODS, Decoding
from capkit.errors import UsageError
from capkit.fault_tolerance.oom import map_in_chunks
from capkit.models.conditions.base import ConditionKind
from capkit.models.conditions.parts import parse_values
from capkit.text.tokenizers import encode_captions
from capkit.train.conditions import Requested
from capkit.train.guidance import prepare_guide
from capkit.types import CaptionBatch
from capkit.utils.caller import warn_caller
from capkit.utils.tensors import send

Result = TypeVar("Result")
NUM_BEAMS = 5  # of decoding="beam", as in configs/decoding/beam.yaml
_NO_LIMIT = 1 << 30


def _texts(given: Any) -> list[str]:
    """The captions of one picture, which may come from a generator."""
    texts: list[Any] = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [None]
    if not all(isinstance(text, str) for text in texts):
        raise UsageError("captions: expected a list of texts for each picture, as in score(picture, ['a dog'])")
    return texts


class LoadedCaptioner:
    """A captioner in eval mode, on a device, with the processing of pictures that it was trained with.

    The same pictures get the same captions as from `capkit caption`.

    Args:
        model: it keeps the protocol of `capkit/models/captioners/base.py`.
        preprocess: pixels (H, W, 3) of several pictures to what `model.encode` takes, float (N, 3, S, S).
        decoding: how captions are written where a call does not say; that of its run, or greedy search.
        kinds: the conditions that it was trained with, by name.
        checkpoint: plain data of the checkpoint that it comes from; None for a model of transformers.
    """

    def __init__(
        self,
        model: Any,
        preprocess: Preprocess,
        decoding: Decoding,
        kinds: Mapping[str, ConditionKind],
        checkpoint: Mapping[str, Any] | None,
        device: torch.device,
    ) -> None:
        self.model, self.preprocess, self.decoding, self.kinds = model.eval().to(device), preprocess, decoding, kinds
        self.device = device
        self._checkpoint = checkpoint

    @overload
    def caption(  # type: ignore[overload-overlap]
        self,
        pictures: Picture,
        *,
        decoding: str | Decoding | None = None,
        n: None = None,
        conditions: Mapping[str, Any] | None = None,
        batch_size: int = 32,
        errors: Errors = "warn",
    ) -> str: ...
    @overload
    def caption(
        self,
        pictures: Sequence[Picture],
        *,
        decoding: str | Decoding | None = None,
        n: None = None,
        conditions: Mapping[str, Any] | None = None,
        batch_size: int = 32,
        errors: Errors = "warn",
    ) -> list[str | None]: ...
    @overload
    def caption(  # type: ignore[overload-overlap]
        self,
        pictures: Picture,
        *,
        decoding: str | Decoding | None = None,
        n: int,
        conditions: Mapping[str, Any] | None = None,
        batch_size: int = 32,
        errors: Errors = "warn",
    ) -> list[str]: ...
    @overload
    def caption(
        self,
        pictures: Sequence[Picture],
        *,
        decoding: str | Decoding | None = None,
        n: int,
        conditions: Mapping[str, Any] | None = None,
        batch_size: int = 32,
        errors: Errors = "warn",
    ) -> list[list[str] | None]: ...
    def caption(
        self,
        pictures: Any,
        *,
        decoding: str | Decoding | None = None,
        n: int | None = None,
        conditions: Mapping[str, Any] | None = None,
        batch_size: int = 32,
        errors: Errors = "warn",
    ) -> Any:
        """The caption of each picture.

        Args:
            pictures: a path, the bytes of an image file, a Pillow image, a uint8 array (H, W, 3), or a tensor
                (3, H, W), uint8 or floats in [0, 1]; or several: a list of these, an array (N, H, W, 3), a tensor
                (N, 3, H, W).
            decoding: "greedy", "beam" (of five) or "sample", or a `capkit.Decoding` with more settings.
            n: so many captions of each picture, by sampling or the best beams; None: one, as text.
            conditions: what captions are written under, such as {"length": 8}.
            batch_size: pictures in memory at once.
            errors: of several pictures those that cannot be read are None, with a warning that names them; "raise"
                raises UsageError instead, as one picture alone always does.

        Returns:
            The caption of one picture; of several a list. With `n` a list of captions in the place of each.

        Raises UsageError for settings that do not go together and for values that are no pictures. A draw of sampling
        depends on (seed, the file's name or a hash of the pixels, number of the sample), not on other pictures.
        """
        settings = self._decoding(decoding)
        if n is not None and n < 1:
            raise UsageError(f"n: expected 1 or more captions of each picture, or None for one as text, got {n}")
        requested = Requested(parse_values(self.kinds, dict(conditions or {})))
        self.ready(settings)

        def write(batch: CaptionBatch) -> list[list[str]]:
            context = self.model.encode(requested(batch))
            return self.model.generate(context, settings, num_samples=1 if n is None else n).texts

        written = self._of_each(pictures, write, batch_size, errors)
        found = written if n is not None else [texts and texts[0] for texts in written]
        return found[0] if is_one(pictures) else found

    def ready(self, decoding: Decoding) -> None:
        """Load what guides `decoding`, if anything does. Raises UsageError where it cannot be had."""
        if decoding.guide is not None and self._checkpoint is not None:
            prepare_guide(self.model, self._checkpoint, decoding, self.device)

    @overload
    def score(
        self,
        pictures: Any,
        captions: Iterable[Any],
        *,
        per_token: Literal[False] = False,
        conditions: Mapping[str, Any] | None = None,
        batch_size: int = 32,
        errors: Errors = "warn",
    ) -> list[float] | list[list[float] | None]: ...
    @overload
    def score(
        self,
        pictures: Any,
        captions: Iterable[Any],
        *,
        per_token: Literal[True],
        conditions: Mapping[str, Any] | None = None,
        batch_size: int = 32,
        errors: Errors = "warn",
    ) -> list[list[tuple[str, float]]] | list[list[list[tuple[str, float]]] | None]: ...
    def score(
        self,
        pictures: Any,
        captions: Iterable[Any],
        *,
        per_token: bool = False,
        conditions: Mapping[str, Any] | None = None,
        batch_size: int = 32,
        errors: Errors = "warn",
    ) -> Any:
        """Log-probability of each caption given its picture, in nats: the sum over its tokens, EOS included.

        Args:
            pictures: one or several, as in `caption`.
            captions: of one picture a list of texts; of several a list of such lists.
            per_token: a list of (token, nats) in the place of each number, in the order of the text.
            conditions: as in `caption`.
            batch_size: as in `caption`.
            errors: as in `caption`.

        The model's own distribution, at temperature 1 and without truncation. The captioner's prompt is given, and
        counts nothing. Warns of words that the tokenizer does not know, which count as its unknown token. Raises
        UsageError for a caption that is longer than the model's positions.
        """
        alone = is_one(pictures)
        rows = [_texts(row) for row in ([captions] if alone or not isinstance(captions, Iterable) else captions)]
        given = given_pictures(pictures)
        if len(rows) != len(given):
            raise UsageError(f"captions: expected a list for each of {len(given)} pictures, got {len(rows)}")
        requested = Requested(parse_values(self.kinds, dict(conditions or {})))
        scores: list[Any] = [None] * len(given)
        for chunk in read_in_chunks(given, batch_size, errors, alone):
            texts = [rows[place] for place in chunk.places]
            found = self._score(requested(self._batch(chunk)), texts, per_token)
            for place, of_picture in zip(chunk.places, found, strict=True):
                scores[place] = of_picture
        return scores[0] if alone else scores

    @torch.inference_mode()
    def _score(self, batch: CaptionBatch, captions: list[list[str]], per_token: bool) -> list[Any]:
        """One list for each picture, with an entry for each of its captions."""
        if not any(captions):
            return [[] for _ in captions]
        tokenizer = self.model.tokenizer
        tokens, mask, prompt_length = encode_captions(tokenizer, captions, self.model.prompt, _NO_LIMIT)
        if tokens.shape[-1] > self.model.max_length:
            longest = max((text for row in captions for text in row), key=len)
            raise UsageError(
                f"captions: expected at most {self.model.max_length} tokens, the model's positions, got "
                f"{tokens.shape[-1]} in {longest[:60]!r}...; shorten it"
            )
        logprobs: Float[Tensor, "N K L-1"] = self.model.logprobs(
            self.model.encode(batch), send(tokens, self.device), send(mask, self.device)
        )
        nats = logprobs.double().cpu()[..., prompt_length - 1 :]
        ids, real = tokens[..., prompt_length:], mask[..., prompt_length:]
        words = ids[..., :-1][real[..., 1:]]  # without EOS, which has the unknown token's id in GPT-2
        if tokenizer.unk_token_id in words.tolist():
            warn_caller("captions hold words that the captioner does not know: the unknown token is scored there")
        found = []
        for row, of_picture in enumerate(captions):
            if per_token:
                found.append([self._tokens(ids[row, k], nats[row, k], real[row, k]) for k in range(len(of_picture))])
            else:
                found.append(nats[row, : len(of_picture)].sum(-1).tolist())
        return found

    def _tokens(self, ids: Tensor, nats: Tensor, real: Tensor) -> list[tuple[str, float]]:
        return [
            (self.model.tokenizer.decode([token]), value)
            for token, value in zip(ids[real].tolist(), nats[real].tolist(), strict=True)
        ]

    def _decoding(self, decoding: str | Decoding | None) -> Decoding:
        if isinstance(decoding, str):
            if decoding not in METHODS:
                raise UsageError(f"decoding: expected {', '.join(METHODS)} or a capkit.Decoding, got {decoding!r}")
            return Decoding(decoding, num_beams=NUM_BEAMS) if decoding == "beam" else Decoding(decoding)
        if decoding is not None and not isinstance(decoding, Decoding):
            raise UsageError(f"decoding: expected a name or a capkit.Decoding, got {type(decoding).__name__}")
        return self.decoding if decoding is None else decoding

    @torch.inference_mode()
    def _of_each(
        self, pictures: Any, work: Callable[[CaptionBatch], list[Result]], batch_size: int, errors: Errors
    ) -> list[Result | None]:
        """What `work` makes of each picture; None for those that cannot be read."""
        given = given_pictures(pictures)
        found: list[Result | None] = [None] * len(given)
        at_once: list[int] = []  # fewer, once memory has run out
        for chunk in read_in_chunks(given, batch_size, errors, is_one(pictures)):
            parts = map_in_chunks(self._batch(chunk), work, at_once[-1] if at_once else None, at_once.append)
            for place, result in zip(chunk.places, [item for part in parts for item in part], strict=True):
                found[place] = result
        return found

    def _batch(self, chunk: Chunk) -> CaptionBatch:
        return CaptionBatch(chunk.keys, pixels=send(self.preprocess(chunk.images), self.device))


class LoadedEncoder:
    """A dual encoder, frozen and on a device, with its processing of pictures and texts.

    Args:
        model: it keeps the protocol of `capkit/models/dual_encoders/base.py`.
    """

    def __init__(self, model: Any, device: torch.device) -> None:
        self.model, self.device = model.to(device), device

    @property
    def logit_scale(self) -> float:
        """What the model multiplied cosines by in training."""
        return float(self.model.logit_scale)

    def similarity(
        self, pictures: Any, texts: str | Sequence[str], *, batch_size: int = 32, errors: Errors = "warn"
    ) -> Float[np.ndarray, "N M"]:
        """Cosine of each picture and each text, -1 to 1; a row for each picture, also for one alone.

        Args:
            pictures: one or several, as in `LoadedCaptioner.caption`.
            texts: one or several. The model's own prompt, if it has one, is put before each.
            batch_size: pictures in memory at once.
            errors: of several pictures those that cannot be read are rows of NaN, with a warning that names them;
                "raise" raises UsageError instead, as one picture alone always does.
        """
        return self.embed_pictures(pictures, batch_size=batch_size, errors=errors) @ self.embed_texts(texts).T

    def embed_pictures(
        self, pictures: Any, *, batch_size: int = 32, errors: Errors = "warn"
    ) -> Float[np.ndarray, "N D"]:
        """Unit-norm embeddings; NaN for pictures that cannot be read."""
        given = given_pictures(pictures)
        rows: dict[int, np.ndarray] = {}
        for chunk in read_in_chunks(given, batch_size, errors, is_one(pictures)):
            pixels = send(self.model.preprocess(chunk.images), self.device)
            rows |= zip(chunk.places, self.model.encode_image(pixels).float().cpu().numpy(), strict=True)
        width = len(next(iter(rows.values()))) if rows else self.embed_texts("").shape[1]
        found = np.full((len(given), width), np.nan, dtype=np.float32)
        for place, row in rows.items():
            found[place] = row
        return found

    def embed_texts(self, texts: str | Sequence[str]) -> Float[np.ndarray, "M D"]:
        """Unit-norm embeddings. Warns of texts that are cut at the model's longest."""
        listed = [texts] if isinstance(texts, str) else list(texts)
        if cut := sum(self.model.is_cut(listed)):
            warn_caller(f"{cut} of {len(listed)} texts are cut: the model reads {self.model.max_length} tokens")
        return self.model.encode_text(listed).float().cpu().numpy()
