"""Questions to language models, with or without pictures, and the protocol of the models that answer them."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from capkit.llm.replies import Reply
from capkit.utils.renamed import moved_names

__getattr__ = moved_names(__name__)  # ChatModel was TextLM and VisionChat


@dataclass(frozen=True)
class Picture:
    """Unprocessed pixels, and the source's metadata, which only oracles may read."""

    pixels: UInt8[np.ndarray, "H W 3"]
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Question:
    """One user message with its pictures, which stand before the text, and an optional system message.

    `sample` numbers the answers to one question: a model that draws gives each number an answer of its own. `schema` is
    the JSON schema of the reply, for models that are `structured`. `reply` reads the answer where it depends on the
    question, as a list of as many verdicts as there are claims does; None: the Asker's own.
    """

    text: str
    pictures: tuple[Picture, ...] = ()
    system: str | None = None
    sample: int = 0
    schema: Mapping[str, Any] | None = None
    reply: Reply | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Answer:
    """A model's answer; or `text` None, the reason, and in `said` the rejected output if any.

    `tokens_in` and `tokens_out` count the question's and the answer's tokens, None if unknown. `value` is what a reply
    reader took from the text (`capkit/llm/replies.py`), None in what a model returns. `first_logprobs` are
    log-probabilities of what the first token could have been, the likeliest ones, from models that give them.
    """

    text: str | None
    failure: str | None = None
    said: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    value: Any = None
    first_logprobs: Mapping[str, float] | None = None


@runtime_checkable
class ChatModel(Protocol):
    """Answers questions, one answer each, in order. The model applies its chat template.

    A failed question gives an Answer with the reason. A failure of all questions (wrong key, unknown model, no server)
    raises UsageError.

    Optional attributes: `draws` (True if samples of one question differ; without it the model counts as
    deterministic), `takes_pictures` (True if it needs pictures, False if it takes none; without it nothing is checked),
    `structured` (True if it heeds `Question.schema`), `count_tokens(question)` (how many tokens it reads; without it
    they are guessed), `can_write(text)` (whether its tokenizer has what is needed to write this; without it all is).
    """

    def about(self) -> dict[str, Any]:
        """Everything but the question that answers depend on, as plain data: model, revision, decoding settings.

        "model" is the name by which captions' sources call it.
        """
        ...

    def ask(self, questions: Sequence[Question]) -> list[Answer]: ...


@runtime_checkable
class BatchedModel(ChatModel, Protocol):
    """A ChatModel that answers in batches of its own and gives each answer when its batch is done."""

    def ask_each(self, questions: Sequence[Question]) -> Iterator[tuple[int, Answer]]:
        """Each question's place and its answer, in the order in which they are found."""
        ...


@runtime_checkable
class ConcurrentModel(ChatModel, Protocol):
    """A ChatModel that works on many questions at once, as servers do. `num_open` keep it busy."""

    num_open: int

    def open(self, question: Question) -> "Future[Answer]":
        """Start a question and return without waiting, however many are open.

        The future holds the answer of `ask`; its exception is a UsageError that ends the run. A future that has not
        begun can be cancelled.
        """
        ...
