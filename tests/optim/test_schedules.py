import math

import pytest

from capkit.errors import UsageError
from capkit.optim.schedules import Constant, Cosine, CyclicCosine, Linear, Noam, Steps


def test_linear_goes_from_start_to_end_after_its_warmup():
    schedule = Linear(start=2.0, end=1.0, warmup=2)
    assert [schedule(step, 6) for step in range(7)] == [1.0, 2.0, 2.0, 1.75, 1.5, 1.25, 1.0]


def test_cosine_is_half_way_in_the_middle():
    assert math.isclose(Cosine()(50, 100), 0.5)
    assert math.isclose(Cosine(start=1.0, end=0.2)(100, 100), 0.2)


def test_warmup_as_a_share_equals_the_same_number_of_steps():
    assert [Constant(warmup=0.1)(s, 100) for s in range(20)] == [Constant(warmup=10)(s, 100) for s in range(20)]


def test_cyclic_cosine_starts_anew_in_each_cycle():
    schedule = CyclicCosine(cycles=3, end=0.2)
    # half a cosine over four steps: (1 + cos(pi k / 4)) / 2 of the way from .2 to 1
    cycle = [1.0, 0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2, 0.6, 0.2 + 0.8 * (1 - math.sqrt(0.5)) / 2]
    assert [schedule(step, 12) for step in range(12)] == pytest.approx(3 * cycle)


def test_noam_peaks_at_the_end_of_its_warmup_and_decays_with_the_root():
    schedule = Noam(warmup=4)
    assert max(range(100), key=lambda step: schedule(step, 100)) == 3
    assert math.isclose(schedule(15, 100), 0.5)


def test_steps_takes_the_value_of_the_interval():
    schedule = Steps(boundaries=(0.5, 0.75), values=(1.0, 0.1, 0.01))
    assert [schedule(step, 8) for step in range(8)] == [1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Constant(warmup=1.5),
        lambda: Noam(warmup=0),
        lambda: Steps(boundaries=(0.5,), values=(1.0,)),
        lambda: CyclicCosine(cycles=0),
        lambda: CyclicCosine(cycles=2, end=1.5),
    ],
)
def test_impossible_schedules_are_refused(make):
    with pytest.raises(UsageError):
        make()
