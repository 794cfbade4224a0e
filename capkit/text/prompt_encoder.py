"""Token ids of the prompts that captions answer: those that a chat model of transformers gets for the same message."""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from capkit.errors import UsageError


class LongPrompt(ValueError):
    """A prompt of more tokens than there may be; the message says so."""


def give_chat_template(tokenizer: Any) -> None:
    """Give a tokenizer that has no chat template the plainest one: the message, then BOS, where the answer begins."""
    if tokenizer.chat_template is None:
        bos = tokenizer.bos_token.replace("'", "\\'")
        tokenizer.chat_template = (
            "{% for message in messages %}{{ message['content'] }}{% endfor %}"
            f"{{% if add_generation_prompt %}}{{{{ '{bos}' }}}}{{% endif %}}"
        )


@dataclass(frozen=True)
class PromptEncoder:
    """Turns the prompt of a caption into token ids; for the data workers, so it can be pickled.

    A prompt is one user message in the tokenizer's chat template, or stands in front of BOS where there is none.
    Special tokens spelled out in it are special tokens, as for every model that is asked through transformers.

    Args:
        most: Tokens of a prompt at most, the template's included.
        cut: Whether a longer prompt loses its end, in front of what the template puts behind the message.
        as_text: Whether an encoder reads the prompt: as it is, with the special tokens that the tokenizer adds.
    """

    tokenizer: Any
    most: int
    cut: bool = False
    as_text: bool = field(default=False, kw_only=True)

    def __call__(self, prompt: str | None) -> list[int]:
        """Ids of one prompt; of None, BOS alone. Raises LongPrompt for too many tokens where they are not cut."""
        if prompt is None:
            return [self.tokenizer.bos_token_id]
        ids = self._ids(prompt)
        if len(ids) <= self.most:
            return ids
        if not self.cut:
            raise LongPrompt(f"a prompt of {len(ids)} tokens, more than {self.most} (data.max_prompt_tokens)")
        message = self.tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True)
        ends = [end for _, end in message["offset_mapping"]]
        kept = len(ends) - (len(ids) - self.most)
        while kept > 0:
            ids = self._ids(prompt[: ends[kept - 1]])
            if len(ids) <= self.most:  # tokens may join differently where the text ends
                return ids
            kept -= 1
        raise UsageError(
            f"data.max_prompt_tokens={self.most}: the chat template alone takes {len(self._ids(''))} tokens; give more"
        )

    def _ids(self, prompt: str) -> list[int]:
        if self.as_text:
            return list(self.tokenizer(prompt)["input_ids"])
        if self.tokenizer.chat_template is None:
            return [*self.tokenizer(prompt, add_special_tokens=False)["input_ids"], self.tokenizer.bos_token_id]
        message = [{"role": "user", "content": prompt}]
        return self.tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=True, return_dict=False)


def stack_prompts(
    prompts: list[list[list[int]]], pad_token_id: int
) -> tuple[Int[Tensor, "B K P"], Bool[Tensor, "B K P"]]:
    """Prompts padded on the left, and where they are real. An image with fewer prompts than others gets padding."""
    most = max(map(len, prompts))
    length = max(len(ids) for of_image in prompts for ids in of_image)
    tokens = torch.full((len(prompts), most, length), pad_token_id, dtype=torch.int64)
    mask = torch.zeros(tokens.shape, dtype=torch.bool)
    for image, of_image in enumerate(prompts):
        for number, ids in enumerate(of_image):
            tokens[image, number, length - len(ids) :] = torch.tensor(ids)
            mask[image, number, length - len(ids) :] = True
    return tokens, mask
