"""CaptionerModule: base class of LightningModules that generate captions."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from capkit.decoding.config import Decoding
from capkit.distributed.collectives import Sums, add_sums, means_over_ranks
from capkit.errors import UsageError
from capkit.metrics.base import TextScore
from capkit.metrics.scoring import gather_rows, score_rows
from capkit.models.captioners.word_modules import Modular, word_modules
from capkit.models.encoders.compile import as_they_are, compile_blocks, recompute_blocks, restore_blocks
from capkit.optim.optimizers import OptimizerFactory
from capkit.optim.schedules import Schedule
from capkit.train.conditions import UNCONDITIONED, Requested
from capkit.train.train_module import TrainModule
from capkit.types import CaptionBatch, Samples

LENGTH_MULTIPLE = 4  # of tokens that compiled layers see: each new length costs some seconds


class CaptionerModule(TrainModule):
    """Base class of modules that train a captioner: generates captions of the validation split and computes metrics.

    `image_reader` maps an image's key to its pixels, for metrics that look at the image. `requested`: the conditions
    that captions are written under.

    `compile` compiles each layer of the image encoder and of the decoder for the forward passes with gradient;
    `recompute` lets them keep their inputs alone. Generation and validation run the layers as they are.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        decoding: Decoding,
        metrics: Mapping[str, TextScore] | None,
        micro_batch_size: int | None,
        seed: int,
        reranker: Callable[[CaptionBatch, Samples], Samples] | None = None,
        compile: bool = False,
        recompute: bool = False,
        requested: Requested = UNCONDITIONED,
    ) -> None:
        super().__init__(model, optimizer, schedule, micro_batch_size, seed)
        self.compiled, self.recompute = compile, recompute
        if (decoding.num_candidates is None) != (reranker is None):
            raise UsageError(
                "decoding.num_candidates and a reranker go together, in task=evaluate and task=caption; got "
                f"num_candidates={decoding.num_candidates} and reranker={reranker}; set decoding=greedy elsewhere"
            )
        self.decoding, self.reranker, self.requested = decoding, reranker, requested
        self.metrics = dict(metrics or {})
        self.image_reader: Callable[[str], np.ndarray] | None = None
        self._validation: list[dict[str, Any]] = []

    def setup(self, stage: str) -> None:
        """Raises UsageError under ZeRO-3 for compiled layers, since hooks gather the weights of parts of a layer, and
        for layers that run again in the backward pass, since their weights are gone by then.
        """
        super().setup(stage)
        if getattr(self.strategy, "stage", 0) != 3:
            return
        if self.compiled:
            raise UsageError(
                "compile=true compiles whole layers, which ZeRO-3 cannot gather weights within; expected another "
                "strategy, got trainer=deepspeed_3; set compile=false, or choose trainer=ddp or deepspeed_2"
            )
        if self.recompute:
            raise UsageError(
                "recompute=true runs layers again in the backward pass, where ZeRO-3 has not gathered their weights; "
                "expected another strategy, got trainer=deepspeed_3; set recompute=false, or choose trainer=ddp or "
                "deepspeed_2"
            )

    def on_train_start(self) -> None:
        if self.compiled:
            compile_blocks(self._towers())
            self.model.length_multiple = LENGTH_MULTIPLE  # type: ignore[assignment]
        if self.recompute:
            recompute_blocks(self._towers())

    def on_train_end(self) -> None:
        if self.compiled or self.recompute:
            restore_blocks(self._towers())
            self.model.length_multiple = 1  # type: ignore[assignment]

    def _towers(self) -> list[nn.Module]:
        model: Any = self.model
        encoder = getattr(model, "image_encoder", None)
        return [*model.decoder_parts()[0], *([encoder] if isinstance(encoder, nn.Module) else [])]

    @abstractmethod
    def validation_sums(self, batch: CaptionBatch, samples: Samples) -> dict[str, tuple[Tensor, Tensor]]:
        """Numbers of a validation batch and its greedy captions, each as (sum, count)."""

    def on_validation_epoch_start(self) -> None:
        self._validation = []

    def validation_step(self, batch: CaptionBatch, batch_idx: int) -> None:
        with as_they_are():
            self._validation += self.map_in_chunks(batch, self._validate)

    def _validate(self, batch: CaptionBatch) -> dict[str, Any]:
        samples = self.generate_captions(batch)
        sums = self.validation_sums(batch, samples)
        return {"sums": sums, "rows": rows_of(batch, samples)}

    def on_validation_epoch_end(self) -> None:
        """Log `val/NAME`: sums over all batches and ranks, and metrics over all captions; the same on every rank."""
        sums: Sums = {}
        for part in self._validation:
            add_sums(sums, part["sums"])
        numbers = means_over_ranks(sums)
        rows = gather_rows([row for part in self._validation for row in part["rows"]])
        numbers |= score_rows(rows, self.metrics, self.image_reader, self.is_stopping)
        was_cut = self.is_stopping()
        self.safe_point()
        if was_cut:  # asked to stop, and not at a safe point (validation before training): the numbers are partial
            return
        self.log_dict(
            {f"val/{name}": value for name, value in numbers.items()},
            batch_size=max(1, len(rows)),
            sync_dist=False,
            logger=False,
        )
        self._validation = []

    def predict_step(self, batch: CaptionBatch, batch_idx: int, dataloader_idx: int = 0) -> list[dict[str, Any]]:
        parts = self.map_in_chunks(batch, self._rows)
        return [row for rows in parts for row in rows]

    def _rows(self, batch: CaptionBatch) -> list[dict[str, Any]]:
        samples = self.generate_captions(batch)
        rows = rows_of(batch, samples)
        model: Any = self.model
        if isinstance(model, Modular) and samples.tokens is not None and len(rows) == len(batch):
            of_words = word_modules(model, model.encode(self.requested(batch)), samples)
            rows = [row | {"modules": words} for row, words in zip(rows, of_words, strict=True)]
        return rows

    def generate_captions(self, batch: CaptionBatch) -> Samples:
        """Generate one caption per image with `self.decoding`, or one for each condition of its captions."""
        return best_captions(self.model, batch, self.decoding, self.reranker, self.requested)


def best_captions(
    model: Any,
    batch: CaptionBatch,
    decoding: Decoding,
    reranker: Callable[[CaptionBatch, Samples], Samples] | None = None,
    requested: Requested = UNCONDITIONED,
) -> Samples:
    """One caption of each image: the one that the captioner writes, or that the reranker picks from its candidates.

    Where `requested` takes conditions of each caption from the data, one caption for each of them.
    """
    context = model.encode(requested(batch))
    candidates = model.generate(context, decoding, num_samples=decoding.num_candidates or 1)
    return candidates if reranker is None else reranker(batch, candidates)


def rows_of(batch: CaptionBatch, samples: Samples) -> list[dict[str, Any]]:
    """One row per image: key, caption, references and the record's metadata; `captions` where it has several.

    Where captions are of regions, one row per region, with the caption at its place, or the only one of its image: its
    key is `KEY#NUMBER`, its reference the region's text, and its metadata have `region`: {"image": the image's key,
    "number", "box", "text"}, and the caption's `confidence` if its log-probabilities are known.
    """
    metadata = batch.metadata or [{} for _ in batch.keys]
    if batch.regions:
        images = zip(batch.keys, samples.texts, _confidences(samples), batch.regions, metadata, strict=True)
        return [row for image in images for row in _region_rows(*image)]
    references = batch.references or [[] for _ in batch.keys]
    return [
        {"key": key, "caption": caption[0], "references": refs, "metadata": data}
        | ({"captions": caption} if len(caption) > 1 else {})
        for key, caption, refs, data in zip(batch.keys, samples.texts, references, metadata, strict=True)
    ]


def _confidences(samples: Samples) -> list[list[dict[str, float]]]:
    """`confidence` of each caption: the mean log-probability of its tokens, EOS included, in nats; {} where unknown.

    Given words count as tokens of log-probability 0.
    """
    if samples.logprobs is None or samples.mask is None:
        return [[{}] * len(texts) for texts in samples.texts]
    means = samples.logprobs.sum(-1) / samples.mask[..., 1:].sum(-1).clamp(min=1)
    return [[{"confidence": value} for value in of_image] for of_image in means.tolist()]


def _region_rows(
    key: str,
    texts: list[str],
    confidences: list[dict[str, float]],
    regions: list[dict[str, Any]],
    metadata: dict[str, Any],
) -> list[dict[str, Any]]:
    captions = list(zip(texts, confidences, strict=True))
    of_region = captions if len(captions) > 1 else captions * len(regions)
    return [
        {
            "key": f"{key}#{region['number']}",
            "caption": caption,
            "references": [region["text"]],
            "metadata": {**metadata, "region": {"image": key, **region, **confidence}},
        }
        # another image of the batch may have more regions
        for (caption, confidence), region in zip(of_region, regions, strict=False)
    ]
