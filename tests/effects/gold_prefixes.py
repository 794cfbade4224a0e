"""What a modular captioner does at each word of held-out captions, given the words before it."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf

from capkit.checkpoint.loading import load_captioner
from capkit.config.instantiate import build
from capkit.text.word_classes import MODULES
from capkit.train.build import encoder_of


@dataclass(frozen=True)
class Words:
    """Of each word of a split's captions: itself, its class, how much each module weighs in the last block, and whether
    it is the captioner's likeliest one."""

    words: np.ndarray
    classes: np.ndarray
    weights: np.ndarray
    right: np.ndarray

    def right_of(self, words: Iterable[str]) -> float:
        """Share of these words that the captioner would have said."""
        return float(self.right[np.isin(self.words, list(words))].mean())

    def controller(self) -> float:
        """Share of words whose own module has the largest weight."""
        return float((self.classes == self.weights.argmax(1)).mean())

    def matched(self) -> float:
        """The same, once modules are given to classes as fits best."""
        orders = (np.array(order) for order in permutations(range(len(MODULES))))
        return max(float((order[self.classes] == self.weights.argmax(1)).mean()) for order in orders)


@torch.inference_mode()
def words_of(run: Path, zeroed: str | None = None) -> Words:
    """Of the test split of a run of data=sceneworld_modular; `zeroed` silences a module, as model.zero_module does."""
    model, _ = load_captioner(str(run))
    model.eval()
    model.zero_module = zeroed
    data = build(OmegaConf.load(run / "config.yaml").data)
    data.attach(encode=encoder_of(model, data.max_length), run_dir=run)
    found = []
    for batch in data.test_dataloader():
        hidden, weights = model.with_weights(model.encode(batch), batch.tokens[..., :-1])
        targets, mask = batch.tokens[..., 1:], batch.mask[..., 1:]
        is_word = mask & torch.cat([mask[..., 1:], torch.zeros_like(mask[..., :1])], -1)  # all but the end of a caption
        texts = np.array(model.tokenizer.convert_ids_to_tokens(targets[is_word].tolist()))
        right = model.head(hidden).argmax(-1) == targets
        parts = (batch.word_classes[..., 1:], weights[..., -1, :], right)
        found.append([texts, *(part[is_word].numpy() for part in parts)])
    return Words(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
