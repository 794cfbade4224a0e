import pytest

from capkit.data.curricula.shuffle import Shuffle
from capkit.data.curricula.single_epoch import Steps


def epochs(count: int) -> list[tuple[int, list[int]]]:
    """(epoch, batch) of whole epochs of 5 batches, one after the other."""
    curriculum, batches = Shuffle(8, 0, 0, 1, 40), []
    for epoch in range(count):
        curriculum.set_epoch(epoch)
        batches += [(epoch, batch) for batch in curriculum]
    return batches


@pytest.mark.parametrize(("start", "total"), [(0, 12), (0, 3), (4, 12), (5, 12), (11, 12), (12, 12), (3, 10)])
def test_batches_of_any_steps_are_those_of_the_epochs_in_a_row(start, total):
    steps = Steps(Shuffle(8, 0, 0, 1, 40), start, total)
    for _ in range(2):
        assert [(steps.epoch, batch) for batch in steps] == epochs(3)[start:total]
    assert len(steps) == total
