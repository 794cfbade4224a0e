"""One block of a modular captioner: modules that look at the image or at the language, a controller, two LSTMs.

B images, K captions of each, R = B x K rows, N regions, D width, A width of attention, S slots of the memory.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from capkit.models.captioners.module_controllers import States, Weights, controller
from capkit.text.word_classes import MODULES

VISUAL = ("object", "relation", "attribute")
SLOPE = 0.1  # of LeakyReLU, below zero
_OWN = 4  # states of a block in front of its controller's: of either LSTM, hidden and cell


class AdditiveAttention(nn.Module):
    """softmax over regions of v . tanh(U region + W query); masked regions have no weight."""

    def __init__(self, width: int, attention_width: int) -> None:
        super().__init__()
        self.of_regions = nn.Linear(width, attention_width)
        self.of_query = nn.Linear(width, attention_width, bias=False)
        self.score = nn.Linear(attention_width, 1, bias=False)

    def forward(
        self,
        query: Float[Tensor, "B K D"],
        keys: Float[Tensor, "B N A"],
        regions: Float[Tensor, "B N D"],
        mask: Bool[Tensor, "B N"] | None,
    ) -> Float[Tensor, "B K D"]:
        """`keys` are `of_regions(regions)`, which serves all steps."""
        return self.shares(query, keys, mask) @ regions

    def shares(
        self, query: Float[Tensor, "B K D"], keys: Float[Tensor, "B N A"], mask: Bool[Tensor, "B N"] | None
    ) -> Float[Tensor, "B K N"]:
        """How much of each region is seen."""
        scores = self.score(torch.tanh(keys[:, None] + self.of_query(query)[:, :, None])).squeeze(-1)
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None], -torch.inf)
        return scores.softmax(-1)


@dataclass
class Seen:
    """What all steps look at: the modules' regions (in the order of VISUAL), the whole image, and keys by block."""

    regions: list[Float[Tensor, "B N D"]]
    image: Float[Tensor, "B D"]
    mask: Bool[Tensor, "B N"] | None
    keys: list[list[Float[Tensor, "B N A"]]]


class ModularBlock(nn.Module):
    """Writes one word's state (CNM, Yang et al. 2019, eq. 4 to 10; CVLNM with a memory).

    With h the language LSTM's last hidden state, c its last cell, f the image, x the word: u = LSTM([h; f; x]); each
    visual module attends to its regions by u, the function module is a layer of c; the controller weighs them, w =
    C([h; f; x; object; relation; attribute]); LSTM([w_1 a_1; ..; w_4 a_4; u; memory]) + u is the word's state.

    Deliberate difference: all three visual outputs reach the controller, of either kind. The released CNM feeds the
    object's twice and the relation's never, the released CVLNM none.
    """

    def __init__(
        self, width: int, attention_width: int, kind: str, num_heads: int, memory_width: int | None, dropout: float
    ) -> None:
        super().__init__()
        self.attend = nn.LSTMCell(3 * width, width)
        self.look = nn.ModuleList(AdditiveAttention(width, attention_width) for _ in VISUAL)
        self.function = nn.Sequential(nn.Linear(width, width), nn.LeakyReLU(SLOPE), nn.Dropout(dropout))
        self.controller: Any = controller(kind, 6 * width, width, num_heads)
        self.remember = None if memory_width is None else nn.Linear(5 * width, memory_width)
        self.speak = nn.LSTMCell(5 * width + (memory_width or 0), width)

    def start(self, rows: int, like: Tensor) -> States:
        own = [like.new_zeros((rows, self.attend.hidden_size)) for _ in range(_OWN)]
        return [*own, *self.controller.start(rows, like)]

    def forward(
        self,
        x: Float[Tensor, "R D"],
        seen: Seen,
        number: int,
        states: States,
        memory: Float[Tensor, "S M"] | None,
        zeroed: str | None,
    ) -> tuple[Float[Tensor, "R D"], Weights, States]:
        """The word's state, the modules' weights and the states behind it. `number`: which block this is."""
        attending, attending_cell, language, language_cell, *controlling = states
        images = (len(seen.image), -1)
        image = seen.image.repeat_interleave(len(x) // len(seen.image), 0)
        given = torch.cat([language, image, x], -1)
        attending, attending_cell = self.attend(given, (attending, attending_cell))
        query = attending.unflatten(0, images)
        outputs = {"function": self.function(language_cell)}
        for look, name, regions, keys in zip(self.look, VISUAL, seen.regions, seen.keys[number], strict=True):
            outputs[name] = look(query, keys, regions, seen.mask).flatten(0, 1)
        if zeroed is not None:
            outputs[zeroed] = torch.zeros_like(outputs[zeroed])
        visual = torch.cat([outputs[name] for name in VISUAL], -1)
        weights, controlling = self.controller(torch.cat([given, visual], -1), controlling)
        fused = torch.cat([weights[:, i, None] * outputs[name] for i, name in enumerate(MODULES)], -1)
        said = torch.cat([fused, attending], -1)
        if self.remember is not None and memory is not None:
            said = torch.cat([said, (self.remember(said) @ memory.T).softmax(-1) @ memory], -1)
        language, language_cell = self.speak(said, (language, language_cell))
        return language + attending, weights, [attending, attending_cell, language, language_cell, *controlling]
