"""Builds the objects of a run from its config. Only tasks read the config; everything else gets objects."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from capkit.config.instantiate import build, build_all, nested
from capkit.data.datamodule import CaptionDataModule
from capkit.data.images import BadImage
from capkit.data.sources.base import Preparable
from capkit.decoding.config import Decoding
from capkit.errors import UsageError
from capkit.scorers.as_reranker import Reranker
from capkit.scorers.reward import RewardTotal
from capkit.text.prompt_encoder import PromptEncoder
from capkit.text.tokenizers import CaptionEncoder, word_tokenizer
from capkit.utils.console import say

DRY_RUN_RECORDS = 500


def build_model(node: DictConfig, captions: Callable[[], Iterable[str]], seed: int) -> nn.Module:
    """The model, its new weights drawn from `seed`; `tokenizer: word` is built from the training captions."""
    arguments: dict[str, Any] = {}
    for key in ("tokenizer", "text_tower.tokenizer", "encoder.text_tower.tokenizer", "captioner.tokenizer"):
        if OmegaConf.select(node, key) == "word":
            arguments = nested(key, word_tokenizer(captions()))
    torch.manual_seed(seed)
    return build(node, **arguments)


def vocabulary_captions(data: CaptionDataModule, dry_run: bool) -> Iterable[str]:
    """What a word tokenizer is built from: the captions of every training image, and the prompts that they answer.

    In a dry run, of a source whose records would have to be made first, those of the first 500.
    """
    source = data.source("train")
    if not (dry_run and isinstance(source, Preparable)) or len(source) <= DRY_RUN_RECORDS:
        return itertools.chain(data.captions("train"), data.prompts("train"))
    say(f"vocabulary: of the first {DRY_RUN_RECORDS:,} training images; the run reads all, and may find more words")
    return (text for index in range(DRY_RUN_RECORDS) for text in data.texts(source.record(index)))


def build_parts(cfg: DictConfig) -> dict[str, Any]:
    """All of a MLEModule but its model: built first, so that a wrong value is told before data is touched."""
    return {
        **build_optimization(cfg),
        "decoding": build(cfg.decoding),
        "metrics": build_all(cfg.metric),
    }


def build_optimization(cfg: DictConfig) -> dict[str, Any]:
    """What every module that trains by an objective takes beside its model."""
    return {
        "objective": build(cfg.objective),
        "optimizer": build(cfg.optimizer),
        "schedule": build(cfg.scheduler),
        "micro_batch_size": cfg.micro_batch_size,
        "seed": cfg.seed,
    }


def build_reranker(decoding: Decoding, reward: Mapping[str, Any]) -> Reranker | None:
    """What picks one of an image's candidates by the scorers of cfg.reward, where decoding proposes several."""
    return None if decoding.num_candidates is None else Reranker(RewardTotal(build_all(reward)))


def applicable(metrics: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics that this data can be scored by; the others are named on the screen."""
    kept = {}
    for name, metric in metrics.items():
        missing = [key for key in getattr(metric, "needs", ()) if key not in metadata]
        if missing:
            say(f"metric {name} is left out: this data has no {' and '.join(missing)} in its metadata")
        else:
            kept[name] = metric
    return kept


def applicable_to(data: CaptionDataModule, metrics: Mapping[str, Any], split: str = "test") -> dict[str, Any]:
    """The metrics that the records of a split can be scored by, as its first record says."""
    return applicable(metrics, data.source(split).record(0).metadata)


def encoder_of(model: Any, max_length: int) -> CaptionEncoder:
    """What turns captions into a captioner's tokens; picklable, for the data workers."""
    return CaptionEncoder(model.tokenizer, model.prompt, max_length)


def prompt_encoder_of(model: Any, data: CaptionDataModule) -> PromptEncoder | None:
    """What turns the prompts that captions answer into tokens; None for a captioner that takes none.

    Raises UsageError where prompt and caption may be longer than the captioner's positions.
    """
    if not getattr(model, "takes_prompts", False):
        return None
    room = model.max_length - data.max_length
    most = room if data.max_prompt_tokens is None else data.max_prompt_tokens
    if not 0 < most <= room:
        raise UsageError(
            f"data.max_prompt_tokens={data.max_prompt_tokens} and data.max_length={data.max_length}: expected both "
            f"together within the model's {model.max_length} tokens; raise model.max_length, or lower one of them"
        )
    cut = data.long_prompts == "cut"
    own = getattr(model, "prompt_encoder", None)  # a chat model has its picture in front of a prompt
    return PromptEncoder(model.tokenizer, most, cut) if own is None else own(most, cut)


def picture_reader(
    data: CaptionDataModule, splits: Sequence[str] = ("test", "val", "train")
) -> Callable[[str], np.ndarray | None]:
    """A function from a record's key to its picture, of these splits; None for a picture that cannot be read.

    Where two splits share a key, it is the later one's.
    """
    places: dict[str, tuple[Any, int]] = {}

    def read(key: str) -> np.ndarray | None:
        if not places:
            for split in splits:
                source = data.sources.get(split)
                keys = data.keys(split) if source is not None else []
                places.update((key, (source, index)) for index, key in enumerate(keys))
        source, index = places[key]
        try:
            return source.image(index)
        except BadImage:
            return None

    return read


def training_references(data: CaptionDataModule) -> Sequence[Sequence[str]]:
    """The captions of every training image that has any; those of its regions where captions are of these."""
    source = data.source("train")
    cleaned = (data.texts(source.record(index)) for index in range(len(source)))
    return [captions for captions in cleaned if captions]
