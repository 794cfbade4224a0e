"""Image-text models of transformers that describe a picture, and say what the picture added to each token."""

import inspect
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from capkit.decoding.guided import LEAST
from capkit.llm.base import Answer, Question
from capkit.llm.huggingface import HFChat
from capkit.llm.rated import rated_answer
from capkit.text.words_of_tokens import spans_of_tokens


class RatedHFChat(HFChat):
    """An `HFChat` of images and texts whose answers are rated texts (`capkit/llm/rated.py`), as ScaleCap rates them.

    The ids that were generated are read twice behind the question, once with its pictures and once without them, one
    question at a time, so that there is no padding. Both log-probabilities are the model's own, normalised, without
    `repetition_penalty` or temperature. Raises UsageError for a model that reads no pictures.
    """

    kinds = ("image_text",)
    rates = True

    def about(self) -> dict[str, Any]:
        return {**super().about(), "rating": "picture gains 1"}

    def _answer(self, asked: tuple[Question, str], row: list[int], tokens_in: int) -> Answer:
        answer = super()._answer(asked, row, tokens_in)
        if answer.text is None or answer.tokens_out is None:
            return answer
        ids = row[: answer.tokens_out - 1]  # all but the end
        blind = replace(asked[0], pictures=())
        without = self._logprobs(blind, self._as_text(blind), ids)
        gains = self._logprobs(*asked, ids) - without.clamp(min=LEAST)
        text, spans = spans_of_tokens(self._tokenizer, ids)
        return replace(answer, text=rated_answer(text, spans, gains.tolist()))

    @torch.inference_mode()
    def _logprobs(self, question: Question, text: str, ids: list[int]) -> Float[Tensor, " n"]:
        """Log-probability of each id behind the question, in nats."""
        model = self._model()
        inputs = {name: value.to(model.device) for name, value in self._inputs([(question, text)]).items()}
        said = torch.tensor([ids], device=model.device)
        shape = inputs["input_ids"].shape
        for name, value in inputs.items():
            if value.shape == shape:  # of each token; whoever says of which kind it is has 0 for text
                more = {"input_ids": said, "attention_mask": torch.ones_like(said)}.get(name, torch.zeros_like(said))
                inputs[name] = torch.cat([value, more.to(value.dtype)], 1)
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
        if "logits_to_keep" in inspect.signature(model.forward).parameters:
            inputs["logits_to_keep"] = len(ids) + 1  # type: ignore[assignment]
        logits = model(**inputs, use_cache=False).logits[0, -len(ids) - 1 : -1]
        return logits.float().log_softmax(-1).gather(-1, said[0, :, None])[:, 0]
