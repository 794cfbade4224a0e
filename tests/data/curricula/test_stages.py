import pytest

from capkit.data.curricula.stages import Stages
from capkit.errors import UsageError

LENGTHS = {"hard-2": 5, "hard-3": 3, "hard-5": 2}


def stages(bounds, by="epoch"):
    return Stages(bounds, by, LENGTHS.__getitem__)


def test_epochs_of_the_published_form_bounds_exclusive_the_last_list_stays():
    found = stages({3: "hard-2", 4: "hard-3", 6: "hard-5"})
    assert [found.epoch(number).name for number in range(9)] == ["hard-2"] * 3 + ["hard-3"] + ["hard-5"] * 5
    # 5 + 5 + 5 + 3 + 2 ... batches
    assert [found.epoch(number).start for number in range(6)] == [0, 5, 10, 15, 18, 20]


def test_by_steps_an_epoch_ends_with_its_stage():
    found = stages({7: "hard-2", 11: "hard-3", 12: "hard-5"}, "step")
    epochs = [(e.name, e.start, e.num_batches) for e in map(found.epoch, range(6))]
    assert epochs == [
        ("hard-2", 0, 5), ("hard-2", 5, 2), ("hard-3", 7, 3), ("hard-3", 10, 1), ("hard-5", 11, 1), ("hard-5", 12, 2),
    ]  # fmt: skip


@pytest.mark.parametrize("by", ["epoch", "step"])
def test_places_count_through_epochs_of_unequal_length(by):
    found = stages({1: "hard-3", 3: "hard-2", 9: "hard-5"}, by)
    counted = [(number, done) for number in range(12) for done in range(found.epoch(number).num_batches)]
    assert [stages({1: "hard-3", 3: "hard-2", 9: "hard-5"}, by).place(step) for step in range(20)] == counted[:20]
    assert [found.num_steps(epochs) for epochs in range(5)] == [found.epoch(epochs).start for epochs in range(5)]


def test_part_of_an_epoch_is_that_part_of_its_own_batches():
    found = stages({1: "hard-2", 2: "hard-3"})
    assert (found.num_steps(0.4), found.num_steps(1), found.num_steps(1.34), found.num_steps(2)) == (2, 5, 6, 8)


def test_bounds_may_be_text_as_a_command_line_gives_them():
    assert stages({"3": "hard-2", 12: "hard-3"}).epoch(2).name == "hard-2"


@pytest.mark.parametrize(
    "bounds", [{}, {0: "hard-2"}, {-1: "hard-2"}, {"soon": "hard-2"}, {3: "hard-2", "3": "hard-3"}]
)
def test_bounds_that_are_no_counts_are_refused(bounds):
    with pytest.raises(UsageError, match="stages"):
        stages(bounds)


def test_another_clock_is_refused():
    with pytest.raises(UsageError, match="by epoch, step or level; got by='hour'"):
        stages({1: "hard-2"}, "hour")
