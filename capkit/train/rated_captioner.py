"""A captioner of capkit as a model that describes a picture, and says what the picture added to each token.

B images, L tokens.
"""

import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from capkit.checkpoint.files import identity
from capkit.checkpoint.loading import load_captioner, stored, stored_transform
from capkit.checkpoint.run_checkpoints import resolve_checkpoint
from capkit.decoding.config import Decoding
from capkit.errors import UsageError
from capkit.fault_tolerance.oom import map_in_chunks
from capkit.llm.base import Answer, Question
from capkit.llm.cache import question_key
from capkit.llm.rated import rated_answer
from capkit.models.captioners.picture_gains import picture_gains
from capkit.text.tokenizers import prompt_ids
from capkit.text.words_of_tokens import spans_of_tokens
from capkit.train.guidance import missed_images, prepare_guide
from capkit.types import CaptionBatch, Context
from capkit.utils.ranges import PositiveInt, check_ranges
from capkit.utils.tensors import default_device


@check_ranges
class RatedCaptioner:
    """A ChatModel whose answers are captions with what `picture_gains` says of their tokens (`capkit/llm/rated.py`).

    The captioner reads the question's picture and its own prompt; the question's text is not read. Sampling draws by
    (decoding.seed, question, sample). A caption that does not end within `decoding.max_length` tokens is a failure.

    Warns if no image was missing in its training (`objective.image_dropout`): what such a captioner would write without
    one is a guess, and so is the rating. Raises UsageError for a captioner that reads no pixels.

    Args:
        ckpt: Its run folder, checkpoint or export.
        batch_size: Pictures at a time; in float32 the answers do not depend on it.
    """

    takes_pictures = True
    rates = True

    def __init__(self, ckpt: str, decoding: Decoding | None = None, batch_size: PositiveInt = 32) -> None:
        self.decoding, self.batch_size = decoding or Decoding(), batch_size
        captioner, checkpoint = load_captioner(ckpt)
        if stored(checkpoint, "config.data", dict).get("pictures") is False:
            raise UsageError(f"expected a captioner of pictures, got ckpt={ckpt}, which answers prompts; give another")
        self._transform = stored_transform(checkpoint)
        if not missed_images(checkpoint):
            warnings.warn(
                f"ckpt={ckpt}: this captioner was trained with every image, so what it would write without one is a "
                "guess, and its ratings are too; tune it with objective.image_dropout=0.5 first",
                stacklevel=2,
            )
        self._about = {
            "backend": "capkit",
            "model": Path(ckpt).resolve().name,
            "revision": identity(resolve_checkpoint(Path(ckpt))),
            "decoding": asdict(self.decoding),
            "rating": "picture_gains 1",
        }
        self._captioner = captioner.to(default_device()).requires_grad_(False)
        prepare_guide(self._captioner, checkpoint, self.decoding, default_device())

    @property
    def draws(self) -> bool:
        return self.decoding.method == "sample"

    def about(self) -> dict[str, Any]:
        """Without the checkpoint's path: the revision identifies its weights."""
        return self._about

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        parts = map_in_chunks(list(questions), self._answers, self.batch_size)
        return [answer for part in parts for answer in part]

    @torch.inference_mode()
    def _answers(self, questions: list[Question]) -> list[Answer]:
        pictures = torch.stack([self._transform(question.pictures[0].pixels) for question in questions])
        pixels = self._transform.normalize(pictures.to(default_device()))
        batch = CaptionBatch(keys=[question_key(question) for question in questions], pixels=pixels)
        context = self._captioner.encode(batch)
        samples = self._captioner.generate(context, self.decoding)
        assert samples.tokens is not None and samples.mask is not None and samples.ended is not None
        gains = self._gains(context, samples.tokens, samples.mask)
        rows = zip(samples.tokens[:, 0], samples.mask[:, 0], samples.ended[:, 0].tolist(), gains[:, 0], strict=True)
        return [self._answer(tokens[mask], ended, gain[mask[1:]]) for tokens, mask, ended, gain in rows]

    def _gains(
        self, context: Context, tokens: Int[Tensor, "B 1 L"], mask: Bool[Tensor, "B 1 L"]
    ) -> Float[Tensor, "B 1 L-1"]:
        return picture_gains(self._captioner, context, tokens, mask)

    def _answer(self, tokens: Int[Tensor, " L"], ended: bool, gains: Float[Tensor, " L-1"]) -> Answer:
        tokenizer = self._captioner.tokenizer
        given = len(prompt_ids(tokenizer, self._captioner.prompt))
        ids = tokens[given:].tolist()
        text, spans = spans_of_tokens(tokenizer, ids)
        if not ended:
            limit = self.decoding.max_length
            return Answer(None, f"the caption was truncated at decoding.max_length={limit}", text, None, len(ids))
        said = rated_answer(text, spans[:-1], gains[given - 1 : -1].tolist())  # all but EOS
        return Answer(said, tokens_in=given, tokens_out=len(ids))
