"""Exact judges of SceneWorld's texts: contradiction of two, claims of one, and claims by a text or a scene."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from capkit.errors import UsageError
from capkit.judges.claims import Claim, Failed, Item
from capkit.judges.matchers import Facts, Match
from capkit.judges.verdicts import VERDICTS, Case, Verdict, Verdicts
from capkit.sceneworld.experts import scene_in
from capkit.sceneworld.language.asking import seen
from capkit.sceneworld.language.claims import claims_in
from capkit.sceneworld.language.contradiction import contradicts
from capkit.sceneworld.language.parser import parse
from capkit.sceneworld.language.verifying import matches, verdicts


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


class SceneDecomposer:
    """The facts of a text, each in words, and its sentences that state none, which say nothing that is seen."""

    def about(self) -> dict[str, Any]:
        return {"decomposer": "scene"}

    def decompose(self, texts: Iterable[tuple[Item, str]]) -> Iterator[tuple[Item, list[Claim] | Failed]]:
        for item, text in texts:
            yield item, [Claim(*claim) for claim in claims_in(text)]


class SceneVerifier:
    """Claims by a text, or by the picture's scene; a claim outside SceneWorld's language is neutral.

    `by="both"` judges by the scene, which knows all that its references say.
    """

    num_samples = 1

    def __init__(self, by: Literal["text", "picture", "both"] = "text") -> None:
        self.by = by

    def about(self) -> dict[str, Any]:
        return {"verifier": "scene", "by": self.by}

    def verify(self, cases: Iterable[tuple[Item, Case]]) -> Iterator[tuple[Item, list[Verdicts]]]:
        for item, case in cases:
            yield item, [self._verdicts(case)]

    def _verdicts(self, case: Case) -> list[Verdict]:
        claims, evidence = case
        texts = [claim.text for claim in claims]
        if self.by == "text":
            if evidence.text is None:
                raise UsageError("verifier=scene by text reads a reference, and there is none; judge by picture")
            labels = verdicts(texts, parse(evidence.text), is_all=False)
        else:
            if evidence.picture is None:
                raise UsageError("verifier=scene by picture needs SceneWorld's pictures; judge by text")
            labels = verdicts(texts, seen(scene_in(evidence.picture(), "verifier=scene")), is_all=True)
        return [VERDICTS[label] for label in labels]


class SceneMatcher:
    """Claims matched to facts in the words of `SceneDecomposer`, by what they speak of."""

    num_samples = 1

    def about(self) -> dict[str, Any]:
        return {"matcher": "scene"}

    def match(self, cases: Iterable[tuple[Item, tuple[Sequence[Claim], Facts]]]) -> Iterator[tuple[Item, list[Match]]]:
        for item, (claims, facts) in cases:
            yield item, [matches([claim.text for claim in claims], list(facts))]
