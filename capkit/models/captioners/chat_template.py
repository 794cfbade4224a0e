"""A captioner's question about a picture in a chat template: the ids in front of the picture, and those behind it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

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
        adds_special_tokens: Whether the processor lets the tokenizer add its own, such as BOS.
    """

    tokenizer: Any
    image_token: str
    around: tuple[str, str]
    system: str | None = None
    adds_special_tokens: bool = True

    def ids(self, question: str) -> tuple[list[int], list[int]]:
        """Ids in front of the picture's tokens and behind them. The last of the latter is where the answer begins.

        Raises UsageError for a template that fails, leaves out a message, writes no picture, or several, or nothing
        behind it.
        """
        text = self._written(question)
        for key, message in (("question", question), ("system", self.system or "")):
            if message.strip() not in text:
                raise UsageError(
                    f"model.{key}: expected a chat template that writes {message[:60]!r}, got {text[:200]!r}; leave it "
                    "out, or give model.chat_template"
                )
        slots = text.count(self.image_token)
        if slots != 1:
            raise UsageError(
                f"model.question: expected a message with one place for the picture ({self.image_token}), got {slots} "
                f"in {text[:200]!r}; use the model's own chat template, and leave {self.image_token} out of prompts"
            )
        special = self._is_completed(text)
        whole = text.replace(self.image_token, self.image_token.join(self.around))
        ids = self.tokenizer(whole, add_special_tokens=special)["input_ids"]
        place = ids.index(self.tokenizer.convert_tokens_to_ids(self.image_token))
        if place + 1 == len(ids):
            raise UsageError(
                f"model.question: expected a token behind the picture, where the caption begins, got {text[-200:]!r}; "
                "give a chat template with a generation prompt, or a prompt of words that the tokenizer has"
            )
        return ids[:place], ids[place + 1 :]

    def is_completed(self, question: str) -> bool:
        """Whether the tokenizer adds its special tokens to what the template writes."""
        return self._is_completed(self._written(question))

    def _is_completed(self, text: str) -> bool:
        # As the processor of transformers does: a template that writes BOS itself gets no second one.
        has_bos = bool(self.tokenizer.bos_token and text.startswith(self.tokenizer.bos_token))
        return self.adds_special_tokens and not has_bos

    def end(self) -> str | None:
        """The special token that the template puts behind an answer; None where it puts none, or writes no answers."""
        answer = "answer"
        messages = [*self.messages("question"), {"role": "assistant", "content": [{"type": "text", "text": answer}]}]
        try:
            behind = self.tokenizer.apply_chat_template(messages, tokenize=False).rpartition(answer)[2]
        except TemplateError:
            return None
        ids = self.tokenizer(behind, add_special_tokens=False)["input_ids"]
        special = {*self.tokenizer.all_special_ids, *self.tokenizer.added_tokens_decoder} - {
            self.tokenizer.unk_token_id
        }
        found = next((number for number in ids if number in special), None)
        return None if found is None else self.tokenizer.convert_ids_to_tokens(found)

    def messages(self, question: str, picture: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """The messages that the template writes; `picture`: the picture's part, None for one without content."""
        part = {"type": "image"} if picture is None else dict(picture)
        user = {"role": "user", "content": [part, {"type": "text", "text": question}]}
        if self.system is None:
            return [user]
        return [{"role": "system", "content": [{"type": "text", "text": self.system}]}, user]

    def _written(self, question: str) -> str:
        messages = self.messages(question)
        try:
            return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except TemplateError as error:
            roles = " and a ".join(message["role"] for message in messages)
            raise UsageError(
                f"model.chat_template: expected one that writes a {roles} message, got {type(error).__name__}: "
                f"{error}; mend it, or leave model.system out"
            ) from error


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
