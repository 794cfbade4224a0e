"""Reinforcement learning on captions that were written before: rounding cannot make two runs learn from others.

The first run of a kind in one process samples as usual and keeps its captions in `TAPE`; every run that finds them
there replays them. The rewards are scored live, so that what ranks exchange about them is part of what is compared.
"""

from typing import Any

import numpy as np
import torch

from capkit.decoding.config import Decoding
from capkit.objectives.policy.self_critical import SelfCritical
from capkit.scorers.reward import Reward, RewardTerm
from capkit.scorers.self_retrieval import SelfRetrieval
from capkit.train.rl.module import RLModule
from capkit.types import CaptionBatch, Samples
from capkit.utils.rng import stable_hash

TAPE: dict[tuple[str, int, str], Samples] = {}
# Short captions: without `max_length` validation takes half of the time of a run, more under ZeRO-3, which gathers the
# weights for each token.
VALIDATION = Decoding(max_length=6)


class Replaying(RLModule):
    """Images are named "0", "1" ... by their place in the global batch."""

    def __init__(self, kind: str, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.kind = kind

    def sample(self, batch: CaptionBatch, decoding: Decoding, with_greedy=False) -> Samples:
        place = (self.kind, self.global_step, decoding.method)
        if place not in TAPE:
            TAPE[place] = super().sample(batch, decoding, with_greedy)
        return TAPE[place].images([int(key) for key in batch.keys])


class Overlap:
    """Share of the caption's words that its image's references have, plus a number that belongs to the caption."""

    def __call__(self, batch: CaptionBatch, samples: Samples) -> torch.Tensor:
        rows = zip(batch.keys, batch.references, samples.texts, strict=True)
        return torch.tensor([[self.score(key, refs, text) for text in texts] for key, refs, texts in rows])

    def score(self, key: str, references: list[str], text: str) -> float:
        words = text.split()
        shared = sum(word in references[0].split() for word in words)
        return shared / (len(words) + 1) + stable_hash(key, text) % 1000 / 2000


class Listener:
    """A dual encoder without weights: what a text or a picture is, decides its vector."""

    name, prompt, max_length, logit_scale = "listener", "", 8, 5.0

    def preprocess(self, images: Any) -> torch.Tensor:
        return torch.stack([torch.as_tensor(image).permute(2, 0, 1).float() for image in images])

    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.stack([_unit("picture", int(image[0, 0, 0])) for image in pixels])

    def encode_text(self, texts: list[str]) -> torch.Tensor:
        return torch.stack([_unit("text", text) for text in texts])

    def is_cut(self, texts: list[str]) -> list[bool]:
        return [False for _ in texts]

    def to(self, device: Any) -> "Listener":
        return self

    def fingerprint_fields(self, side: str) -> dict[str, Any]:
        return {"side": side}


def _unit(*name: Any) -> torch.Tensor:
    row = torch.randn(6, generator=torch.Generator().manual_seed(stable_hash(*name)))
    return torch.nn.functional.normalize(row, dim=0)


def self_critical(model: Any, *optimization: Any, micro_batch_size: int | None) -> Replaying:
    """A greedy baseline, and a reward of each caption by itself."""
    objective = SelfCritical(Decoding("sample", max_length=6), num_samples=3)
    reward = Reward({"overlap": RewardTerm(Overlap())})
    return Replaying(
        "self_critical", model, objective, reward, *optimization, VALIDATION, micro_batch_size=micro_batch_size
    )


def self_retrieval(model: Any, *optimization: Any, micro_batch_size: int | None) -> Replaying:
    """Captions that tell their picture from those of all ranks, advantages over the global batch."""
    objective = SelfCritical(Decoding("sample", max_length=6), num_samples=2, baseline="none", whiten=True)
    scorer = SelfRetrieval(Listener())
    scorer.attach_images(lambda key: np.full((1, 1, 3), int(key), np.uint8))
    reward = Reward({"self_retrieval": RewardTerm(scorer), "overlap": RewardTerm(Overlap(), weight=0.5)})
    return Replaying(
        "self_retrieval", model, objective, reward, *optimization, VALIDATION, micro_batch_size=micro_batch_size
    )
