"""A head on a text tower that classifies captions as grammatical or not (Cho et al. 2022, arXiv 2205.13115).

M captions, W width of the text tower's pooled output.
"""

from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from capkit.errors import UsageError

GRAMMATICAL = 1  # class of true captions; 0 is the class of edited ones


@runtime_checkable
class GrammarJudge(Protocol):
    """A dual encoder with a grammar head. Scores are reported with its name, prompt and truncation."""

    name: str
    prompt: str
    max_length: int

    def grammatical(self, texts: list[str]) -> Float[Tensor, " M"]:
        """Probability that each text is grammatical, without gradient; the prompt is prepended as in training."""
        ...

    def to(self, device: torch.device | str) -> Any:
        """Move the weights in place."""
        ...


class GrammarHead(nn.Module):
    """Linear, ReLU, Linear to two classes, without biases, on the pooled text feature *before* its projection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, width, bias=False)
        self.classes = nn.Linear(width, 2, bias=False)

    def forward(self, pooled: Float[Tensor, "M W"]) -> Float[Tensor, "M 2"]:
        return self.classes(self.hidden(pooled).relu())


def grammar_probability(logits: Float[Tensor, "M 2"]) -> Float[Tensor, " M"]:
    """P(grammatical) from the head's logits."""
    return logits.float().softmax(-1)[:, GRAMMATICAL]


def grammar_judge(encoder: Any) -> GrammarJudge:
    """Return the encoder as a GrammarJudge. Raises UsageError if it has no grammar head."""
    if getattr(encoder, "grammar_head", None) is None:
        raise UsageError(
            f"P(grammatical) needs a dual encoder with a grammar head, got {type(encoder).__name__} without; train one "
            "with experiment=grammar_clip"
        )
    return encoder
