"""A captioner's question about a picture in a chat template: the ids in front of the picture, and those behind it."""

from dataclasses import dataclass
from typing import Any

from capkit.errors import UsageError
from capkit.text.prompt_encoder import PromptEncoder


def plain_template(image_token: str, bos_token: str) -> str:
    """The plainest chat template: the picture, the message, then BOS, where the answer begins."""
    image, bos = (token.replace("'", "\\'") for token in (image_token, bos_token))
    return (
        "{% for message in messages %}{% for part in message['content'] %}"
        f"{{% if part['type'] == 'image' %}}{{{{ '{image}' }}}}{{% else %}}{{{{ part['text'] }}}}{{% endif %}}"
        f"{{% endfor %}}{{% endfor %}}{{% if add_generation_prompt %}}{{{{ '{bos}' }}}}{{% endif %}}"
    )


def paligemma_template(image_token: str, bos_token: str) -> str:
    """What PaliGemma's processor makes of picture and prompt: the picture, BOS, the prompt, a new line."""
    image, bos = (token.replace("'", "\\'") for token in (image_token, bos_token))
    return (
        "{% for message in messages %}{% for part in message['content'] %}"
        f"{{% if part['type'] == 'image' %}}{{{{ '{image}{bos}' }}}}{{% else %}}{{{{ part['text'] }}}}{{% endif %}}"
        "{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ '\\n' }}{% endif %}"
    )


@dataclass(frozen=True)
class ChatTemplate:
    """A user message of one picture and a question, in the tokenizer's chat template; can be pickled.

    Args:
        image_token: What the template writes for a picture, which has one id.
        around: What stands before and behind the picture's tokens, beside what the template writes.
        system: A system message; None: none, or the template's own.
    """

    tokenizer: Any
    image_token: str
    around: tuple[str, str]
    system: str | None = None

    def ids(self, question: str) -> tuple[list[int], list[int]]:
        """Ids in front of the picture's tokens and behind them. The last of the latter is where the answer begins.

        Raises UsageError for a template that writes no picture, or several, or nothing behind it.
        """
        messages: list[dict[str, Any]] = []
        if self.system is not None:
            messages.append({"role": "system", "content": [{"type": "text", "text": self.system}]})
        asked = [{"type": "image"}, {"type": "text", "text": question}]
        messages.append({"role": "user", "content": asked})
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        slots = text.count(self.image_token)
        if slots != 1:
            raise UsageError(
                f"model.question: expected a message with one place for the picture ({self.image_token}), got {slots} "
                f"in {text[:200]!r}; use the model's own chat template, and leave {self.image_token} out of prompts"
            )
        # As the processor of transformers does: a template that writes BOS itself gets no second one.
        special = not (self.tokenizer.bos_token and text.startswith(self.tokenizer.bos_token))
        whole = text.replace(self.image_token, self.image_token.join(self.around))
        ids = self.tokenizer(whole, add_special_tokens=special)["input_ids"]
        place = ids.index(self.tokenizer.convert_tokens_to_ids(self.image_token))
        if place + 1 == len(ids):
            raise UsageError(
                f"model.question: expected a token behind the picture, where the caption begins, got {text[-200:]!r}; "
                "give a chat template with a generation prompt, or a prompt of words that the tokenizer has"
            )
        return ids[:place], ids[place + 1 :]


@dataclass(frozen=True)
class ChatPromptEncoder(PromptEncoder):
    """Ids behind the picture, of a prompt that a caption answers; of None, those of the captioner's own question."""

    template: ChatTemplate | None = None
    question: str = ""

    def __call__(self, prompt: str | None) -> list[int]:
        return super().__call__(self.question if prompt is None else prompt)

    def _ids(self, prompt: str) -> list[int]:
        assert self.template is not None
        front, behind = self.template.ids(prompt)
        if front != self.template.ids(self.question)[0]:
            raise UsageError(
                f"expected a chat template that writes the same in front of the picture for every prompt, got another "
                f"for {prompt!r}; give model.chat_template that puts the picture first"
            )
        return behind
