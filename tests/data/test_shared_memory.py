import errno
from itertools import islice

import pytest
import torch

from capkit.data import shared_memory
from capkit.data.curricula.shuffle import Shuffle
from capkit.data.dataset import CaptionDataset, Collated
from capkit.data.loader import CaptionLoader, InOrder
from capkit.data.shared_memory import NoRoom, check_room, shared_bytes
from capkit.data.skipped import SkipLog
from capkit.data.transforms import ImageTransform
from capkit.errors import RunFailure, known_error
from capkit.types import CaptionBatch
from tests.data.test_loader import Numbers

PICTURE = 3 * 2 * 2 * 4  # bytes of 2x2 float32 pixels; a batch of 4 has 192


class Unsendable:
    """Raises where it is pickled, as a tensor does that finds no room."""

    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        raise self.error


class Lost(CaptionDataset):
    """Of which a worker loses all batches."""

    def __getitem__(self, request):
        collated = super().__getitem__(request)
        collated.batch.metadata.append({"lost": Unsendable(self.error)})
        return collated


def loader(split, kind=CaptionDataset, error=None, num_workers=2):
    dataset = kind(Numbers(40), split, ImageTransform(2), None, None, 1, 0, split == "train")
    dataset.error = error
    batches = Shuffle(4, 0, 0, 1, 40) if split == "train" else InOrder(40, 4, 0, 1)
    made = CaptionLoader(dataset, batches, SkipLog(None), 0.05, num_workers)
    made._loader.timeout = 30  # where a loss is not told, the test fails
    return made


def test_bytes_of_a_batch_are_those_of_all_its_tensors():
    batch = CaptionBatch(
        ["a", "b"],
        pixels=torch.zeros(2, 3, 4, 4),  # 384
        tokens=torch.zeros(2, 1, 5, dtype=torch.long),  # 80
        mask=torch.zeros(2, 1, 5, dtype=torch.bool),  # 10
        conditions={"length": torch.zeros(2, 1)},  # 8
        metadata=[{"text": "no tensor"}, {}],
    )
    raw = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)  # 96
    assert shared_bytes(Collated(batch, [], raw)) == 384 + 80 + 10 + 8 + 96


def test_room_is_for_the_batches_of_all_processes_of_the_machine(monkeypatch):
    batch = [torch.zeros(100, dtype=torch.uint8)]
    check_room(batch, 1000, 4, 2, 99)  # 4 x 2 ahead and 2 in use
    with pytest.raises(NoRoom, match=r"for 0\.0 MB \(10 batches of 0\.0 MB, in each of 1 ") as caught:
        check_room(batch, 999, 4, 2, 99)
    assert caught.value.fit == 3 and str(caught.value).endswith("data.num_workers=3")
    check_room(batch, 999, 4, 2, 9)  # there are not more
    for name, value in {"WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(name, value)
    check_room(batch, 3000, 4, 2, 99)
    with pytest.raises(NoRoom, match="in each of 3 processes") as caught:
        check_room(batch, 2999, 4, 2, 99)
    assert caught.value.fit == 3
    with pytest.raises(NoRoom) as caught:
        check_room(batch, 300, 4, 2, 99)
    assert caught.value.fit == 0


def test_training_ends_at_its_first_batch_where_those_ahead_have_no_room(monkeypatch):
    batches = loader("train")
    monkeypatch.setattr(shared_memory, "free_bytes", lambda: 6 * 4 * PICTURE - 1)
    with pytest.raises(NoRoom, match=r"^data\.num_workers=2: expected room .*; allow more .*data\.num_workers=1$"):
        next(iter(batches))
    assert batches._iterator is None
    monkeypatch.setattr(shared_memory, "free_bytes", lambda: 6 * 4 * PICTURE)
    assert len(list(batches)) == 10
    batches.close()


@pytest.mark.parametrize(("free", "workers"), [(6 * 4 * PICTURE, 2), (4 * 4 * PICTURE, 1), (4 * PICTURE, 0)])
def test_evaluation_takes_the_workers_that_have_room_and_says_so(monkeypatch, capsys, free, workers):
    batches = loader("test")
    monkeypatch.setattr(shared_memory, "free_bytes", lambda: free)
    assert [key for batch in batches for key in batch.keys] == [f"k{i}" for i in range(40)]
    batches.close()
    told = capsys.readouterr().out
    assert f"warning: test is read by {workers} workers; data.num_workers=2: " in told if workers < 2 else not told


NO_ROOM = "unable to allocate shared memory(shm) for file </torch_1_2_0>: No space left on device (28)"


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (RuntimeError(NO_ROOM), NoRoom, "^a data worker's batch finds no room in .* data.num_workers=0 for none$"),
        (OSError(errno.ENOSPC, "No space left on device"), NoRoom, "^a data worker's batch finds no room in "),
        (OSError(errno.EMFILE, "Too many open files"), RunFailure, r"cannot be opened: .*\(ulimit -n 65536\)"),
        (RuntimeError("unable to open shared memory: Too many open files (24)"), RunFailure, "ulimit -n 65536"),
    ],
)
def test_a_batch_that_a_worker_loses_ends_training_at_once(error, kind, told):
    with pytest.raises(kind) as caught:
        list(loader("train", Lost, error))
    known = known_error(caught.value)
    assert isinstance(known, kind)
    with pytest.raises(kind, match=told):
        raise known


def test_an_unexpected_loss_comes_with_the_workers_traceback():
    with pytest.raises(ZeroDivisionError, match=r"(?s)in a data worker.*__reduce__"):
        list(loader("train", Lost, ZeroDivisionError("0")))


def test_evaluation_without_room_for_one_batch_goes_on_without_workers(capsys):
    class Full(Lost):
        def __getitem__(self, request):
            in_worker = torch.utils.data.get_worker_info() is not None
            return super().__getitem__(request) if in_worker else CaptionDataset.__getitem__(self, request)

    batches = loader("val", Full, RuntimeError(NO_ROOM))
    assert [len(batch) for batch in batches] == [4] * 10
    assert "warning: val is read by 0 workers; a data worker's batch finds no room" in capsys.readouterr().out


def test_training_that_has_begun_ends_by_a_later_loss():
    class LostLater(Lost):
        def __getitem__(self, request):
            late = "k9" in {f"k{index}" for index in request.indices}
            return super().__getitem__(request) if late else CaptionDataset.__getitem__(self, request)

    later = loader("test", LostLater, RuntimeError(NO_ROOM))
    batches = iter(later)
    assert [batch.keys[0] for batch in islice(batches, 2)] == ["k0", "k4"]
    with pytest.raises(NoRoom, match=r"^a data worker's batch"):  # nothing is yielded twice
        next(batches)
