"""Which module said each word of a caption, and where it looked.

B images, K captions of each, L tokens, T = L - 1 that are predicted, N regions or cells of an image.
"""

from math import isqrt
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from capkit.text.tokenizers import prompt_ids
from capkit.text.word_classes import MODULES
from capkit.text.words_of_tokens import words_of_tokens
from capkit.types import CaptionBatch, Context, Samples


@runtime_checkable
class Modular(Protocol):
    """A captioner of modules (`capkit.models.captioners.modular`)."""

    tokenizer: Any
    prompt: str

    def encode(self, batch: CaptionBatch) -> Context: ...

    def weights_and_looks(
        self, context: Context, tokens: Int[Tensor, "B K L"]
    ) -> tuple[Float[Tensor, "B K T 4"], Float[Tensor, "B K T N"]]:
        """While `tokens[..., 1:]` are predicted: the last block's weights, and how much it looks at each region.

        Looks are those of its visual modules, by their weights; both sum to 1.
        """
        ...


@torch.no_grad()
def word_modules(model: Modular, context: Context, samples: Samples) -> list[list[dict[str, Any]]]:
    """Of each image's first caption, word by word: `word`, `weights` of the modules, and what it looked at most.

    That is `cell`, a box in shares of the picture that the model sees, where the image's tokens are a square grid, and
    `region`, its number, where they are regions. Words of the function module have none. Tokens of a word are averaged.
    """
    assert samples.tokens is not None and samples.mask is not None
    tokens, mask = samples.tokens[:, :1], samples.mask[:, :1]
    weights, looks = (part[:, 0].double().cpu() for part in model.weights_and_looks(context, tokens))
    side = isqrt(looks.shape[-1]) if context.mask is None else 0
    is_grid = side > 0 and side**2 == looks.shape[-1]
    given = len(prompt_ids(model.tokenizer, model.prompt))
    found = []
    for row, (ids, real) in enumerate(zip(tokens[:, 0].tolist(), mask[:, 0].sum(-1).tolist(), strict=True)):
        words = []
        for word, places in words_of_tokens(model.tokenizer, ids[given:real]):
            predicting = torch.tensor(places) + given - 1
            own = weights[row, predicting].mean(0)
            said: dict[str, Any] = {"word": word, "weights": [round(float(weight), 4) for weight in own]}
            if int(own.argmax()) != MODULES.index("function"):
                place = int(looks[row, predicting].mean(0).argmax())
                said |= {"cell": _cell(place, side)} if is_grid else {"region": place}
            words.append(said)
        found.append(words)
    return found


def _cell(place: int, side: int) -> list[float]:
    down, across = divmod(place, side)
    return [across / side, down / side, (across + 1) / side, (down + 1) / side]
