"""SceneWorld's exact judge of contradiction."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from capkit.sceneworld.language.contradiction import contradicts


class SceneRules:
    """Probability 1 where `capkit.sceneworld.language.contradiction` finds a contradiction between two texts of
    SceneWorld, else 0.

    It reads both texts by the scene parser, and no scene. Words outside SceneWorld's language contradict nothing.
    """

    def to(self, device: torch.device | str) -> "SceneRules":
        return self

    def contradiction(self, premises: list[str], hypotheses: list[str]) -> Float[Tensor, " P"]:
        pairs = zip(hypotheses, premises, strict=True)
        return torch.tensor([float(contradicts(*pair)) for pair in pairs], dtype=torch.float32)

    def provenance(self) -> dict[str, Any]:
        return {"judge": "capkit.sceneworld.language.contradiction"}
