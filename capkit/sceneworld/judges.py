"""Exact judge of contradiction between SceneWorld texts."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from capkit.sceneworld.language.contradiction import contradicts


class SceneRules:
    """P(contradiction) by rule: 1 if two SceneWorld texts contradict each other, else 0.

    Parses both texts and uses no scene (`capkit.sceneworld.language.contradiction`). Words outside SceneWorld's
    language contradict nothing.
    """

    def to(self, device: torch.device | str) -> "SceneRules":
        return self

    def contradiction(self, premises: list[str], hypotheses: list[str]) -> Float[Tensor, " P"]:
        pairs = zip(hypotheses, premises, strict=True)
        return torch.tensor([float(contradicts(*pair)) for pair in pairs], dtype=torch.float32)

    def provenance(self) -> dict[str, Any]:
        return {"judge": "capkit.sceneworld.language.contradiction"}
