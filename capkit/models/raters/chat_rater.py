"""A rater that reads picture and caption as a chat model does: its last hidden state and a scalar head.

B images; N pictures and M captions of a call; L tokens, P image tokens, E width of their features.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from capkit.errors import UsageError
from capkit.models.captioners.chat_vlm import ChatVLM
from capkit.models.raters.base import freeze_lower, scalar_head
from capkit.models.raters.pixel_rater import PixelRater
from capkit.models.tuning.frozen import trains
from capkit.text.tokenizers import encode_captions, tokenize_as_text
from capkit.types import CaptionBatch
from capkit.utils.ranges import PositiveInt, Probability, check_ranges


@check_ranges
class ChatRater(PixelRater):
    """A chat model (`ChatVLM`), asked its question, with the caption as the answer; an MLP on the state at its end.

    As reward models are built from chat models (Ouyang et al. 2022, arXiv 2203.02155; with pictures, LLaVA-RLHF, arXiv
    2309.14525). The state is that of the last token: EOS, or the last one that is read of a caption that is cut. The
    language model's own head is not used.

    Args:
        captioner: The chat model. Its `freeze` and `lora` say what of it trains.
        transform: The data's ImageTransform, which prepares the pictures that are scored.
        hidden_width: Of the MLP's one hidden layer.
        frozen_share: Share of the lower layers that are frozen, of the language model, and of the tower if it trains;
            with adapters it is not used.
        batch_size: Captions, each with its picture's tokens, of one forward pass where texts are scored.
    """

    def __init__(
        self,
        captioner: Any,
        transform: Any = None,
        hidden_width: PositiveInt = 256,
        frozen_share: Probability = 0.7,
        batch_size: PositiveInt = 16,
    ) -> None:
        if not isinstance(captioner, ChatVLM):
            raise UsageError(
                f"model.captioner: expected a chat model, got {type(captioner).__name__}; take capkit.models."
                "captioners.chat_vlm.ChatVLM with the settings of model=chat_vlm"
            )
        _check_transform(transform, captioner.image_size)
        tokenize = AnswerTokens(captioner.tokenizer, captioner.answer_length)
        super().__init__(tokenize, "", str(captioner.model.config.name_or_path or "chat"), batch_size)
        self.captioner, self._transform = captioner, transform
        captioner.freeze_head()
        if not captioner.has_adapters:
            for part in (captioner.decoder_parts()[0][0], captioner.image_encoder):
                if trains(part):
                    freeze_lower(part, float(frozen_share), "model.frozen_share")
        self._head = scalar_head(captioner.width, hidden_width)

    @property
    def tokenizer_key(self) -> str | None:
        return "captioner.tokenizer"

    @property
    def head(self) -> nn.Sequential:
        return self._head

    @property
    def tokenizer(self) -> Any:
        return self.captioner.tokenizer

    @property
    def processor(self) -> Any:
        """transformers' processor, for an export."""
        return self.captioner.processor

    def see(self, batch: CaptionBatch) -> Float[Tensor, "N P E"]:
        return self.captioner.image_encoder(self.pixels_of(batch))

    def score(
        self, seen: Float[Tensor, "M P E"], tokens: Int[Tensor, "M L"], mask: Bool[Tensor, "M L"]
    ) -> Float[Tensor, " M"]:
        return self._head(self.captioner.last_states(seen, tokens, mask))[:, 0]


class AnswerTokens:
    """Ids of captions as a captioner reads them: BOS, words, EOS; `max_length` in all. Picklable."""

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self.tokenizer, self.max_length = tokenizer, max_length

    def __call__(self, texts: list[str]) -> tuple[Int[Tensor, "M L"], Bool[Tensor, "M L"]]:
        if not texts:
            return torch.zeros(0, 1, dtype=torch.int64), torch.zeros(0, 1, dtype=torch.bool)
        tokens, mask, _ = encode_captions(self.tokenizer, [[text] for text in texts], "", self.max_length)
        return tokens[:, 0], mask[:, 0]

    def is_cut(self, texts: list[str]) -> list[bool]:
        ids = tokenize_as_text(self.tokenizer, texts, add_special_tokens=False)["input_ids"] if texts else []
        return [len(row) + 2 > self.max_length for row in ids]


def _check_transform(transform: Any, side: int) -> None:
    """Raises UsageError for pictures that are none of the chat model's squares."""
    if transform is None:
        raise UsageError(
            "ChatRater expected the transform of its pictures, got null; set model.transform=${data.transform}"
        )
    found = transform.fingerprint_fields()
    if found["size"] != side or {*found["mean"], *found["std"]} != {0.5}:
        raise UsageError(
            f"ChatRater expected pictures of {side} x {side} pixels, normalised by .5 and .5, got a transform of size "
            f"{found['size']}, mean {found['mean']}, std {found['std']}; set data.transform.size={side} "
            "data.transform.mean=[0.5,0.5,0.5] data.transform.std=[0.5,0.5,0.5]"
        )
