"""The loader of training and evaluation: wraps a torch DataLoader and accounts for skipped examples."""

import os
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from capkit.data import shared_memory
from capkit.data.dataset import CaptionDataset, Collated, Request
from capkit.data.skipped import SkipLog
from capkit.errors import UsageError, known_error
from capkit.fault_tolerance.stop_signal import outlive_signals_to_all
from capkit.types import CaptionBatch
from capkit.utils import console
from capkit.utils.tensors import default_device


@runtime_checkable
class Batches(Protocol):
    """An iterable of batches of indices: a Curriculum in training, `InOrder` in evaluation."""

    @property
    def epoch(self) -> int: ...

    def __iter__(self) -> Iterator[list[int]]: ...

    def __len__(self) -> int: ...


class InOrder:
    """Rank r's examples r, r + world_size, ... in order, none repeated or added; the last batch may be smaller."""

    def __init__(self, num_examples: int, batch_size: int, rank: int, world_size: int) -> None:
        self.epoch = 0
        self._indices = range(rank, num_examples, world_size)
        self._batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self._indices) // self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(0, len(self._indices), self._batch_size):
            yield list(self._indices[start : start + self._batch_size])


@runtime_checkable
class InParts(Protocol):
    """Batches in parts: the next part is known only after the training steps of the part before it."""

    def parts(self) -> Iterator[Iterator[list[int]]]: ...


class _Requests:
    """The sampler of the DataLoader: requests for the batches of the current part."""

    def __init__(
        self,
        batches: Batches,
        bag_ids: Callable[[list[int]], list[int]] | None,
        unseen: Callable[[list[int]], dict[str, list[str]]] | None,
    ) -> None:
        self._batches, self._bag_ids, self._unseen = batches, bag_ids, unseen
        self._part: Iterator[list[int]] = iter(())

    def parts(self) -> Iterator[None]:
        """Advance through the parts; `iter(self)` then yields the requests of the current one."""
        for part in self._batches.parts() if isinstance(self._batches, InParts) else [iter(self._batches)]:
            self._part = part
            yield

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Request]:
        for indices in self._part:
            bags = None if self._bag_ids is None else self._bag_ids(indices)
            pictures = None if self._unseen is None else self._unseen(indices)
            yield Request(self._batches.epoch, indices, bags, pictures)


def _unchanged(collated: Collated) -> Collated:
    return collated


def _start_worker(worker: int) -> None:
    # Tokenizers used before the fork would print a warning in every worker.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    outlive_signals_to_all()
    shared_memory.send_losses()


class CaptionLoader:
    """Yields `CaptionBatch`es. Not a DataLoader subclass, so that Lightning does not replace its sampler.

    Workers report skipped examples instead of raising; the main process logs them and checks the budget, so that its
    UsageError carries no worker traceback. In evaluation `len` is an upper bound, since a batch whose examples were all
    skipped is omitted. `bag_ids` maps the examples of a batch to their bags, if the curriculum forms batches of bags;
    `unseen` to the keys of pictures that the dataset's viewers want with it, asked when the batch is requested.

    Raw pixels (`CaptionDataset`'s `is_raw`) reach the GPU as bytes from pinned memory and are normalised there.

    Training ends where its batches have no room in shared memory. An evaluation, which may come after hours of it,
    says so and takes fewer workers.

    Workers prefetch within a part of the batches (`InParts`) but not across parts, because the next part depends on
    steps that are not done yet.
    """

    def __init__(
        self,
        dataset: CaptionDataset,
        batches: Batches,
        log: SkipLog,
        max_skipped: float | int,
        num_workers: int,
        bag_ids: Callable[[list[int]], list[int]] | None = None,
        unseen: Callable[[list[int]], dict[str, list[str]]] | None = None,
    ) -> None:
        self.dataset = dataset
        self.batch_sampler = batches
        self._log, self._max_skipped = log, max_skipped
        self._requests = _Requests(batches, bag_ids, unseen)
        self._loader = self._start(num_workers)

    def _start(self, num_workers: int) -> DataLoader[Collated]:
        return DataLoader(
            self.dataset,
            sampler=self._requests,  # type: ignore[arg-type]
            batch_size=None,
            collate_fn=_unchanged,  # type: ignore[arg-type]
            num_workers=num_workers,
            worker_init_fn=_start_worker,
            persistent_workers=num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # otherwise each epoch would draw from the global one
        )

    def __len__(self) -> int:
        # A rank without examples must still take part in collectives; with 0 batches Lightning would skip its loop.
        return max(1, len(self.batch_sampler))

    def __iter__(self) -> Iterator[CaptionBatch]:
        num_workers, is_first = self._loader.num_workers, True
        free = shared_memory.free_bytes() if num_workers and self._iterator is None else None
        try:
            for _ in self._requests.parts():
                for collated in self._loader:
                    if free is not None:
                        shared_memory.check_room(
                            collated, free, num_workers, self._loader.prefetch_factor or 1, len(self)
                        )
                    free, is_first = None, False
                    self._account(collated)
                    if collated.batch is not None:
                        yield self._normalized(collated.batch, collated.raw)
        except shared_memory.NoRoom as error:
            self.close()
            told = known_error(error)
            if self.dataset.is_training or not is_first:
                raise (told or error) from None
            console.tell_result(f"warning: {self.dataset.split} is read by {error.fit} workers; {told}")
            self._loader = self._start(error.fit)
            yield from self
        except Exception:
            self.close()
            raise

    def _normalized(self, batch: CaptionBatch, raw: UInt8[Tensor, "B 3 S S"] | None) -> CaptionBatch:
        """The batch with its raw pixels normalised on this process's GPU, without waiting for it."""
        if raw is not None:
            batch.pixels = self.dataset.normalize(raw.to(default_device(), non_blocking=True))
        return batch

    def _account(self, collated: Collated) -> None:
        self._log.removed_regions[self.dataset.split] += collated.removed_regions
        if collated.skipped:
            self._log.add(collated.skipped)
            self._log.check_budget(self.dataset.split, self._max_skipped, len(self.dataset))
        if collated.batch is None and self.dataset.is_training:
            raise UsageError(
                f"hardly any train example is usable, first reason: {collated.skipped[0].reason}; "
                "see skipped.jsonl in the run's folder"
            )

    def close(self) -> None:
        """Shut the workers down now. On garbage collection, torch would wait 5 s for each of them."""
        if isinstance(self._iterator, _MultiProcessingDataLoaderIter):
            self._iterator._shutdown_workers()
        self._iterator = None

    @property
    def _iterator(self) -> Any:
        """The DataLoader's iterator, under the name by which Lightning shuts down workers after a run."""
        return self._loader._iterator

    @_iterator.setter
    def _iterator(self, value: None) -> None:
        self._loader._iterator = value
