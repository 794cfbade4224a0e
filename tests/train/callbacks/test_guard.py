import math

import pytest

from capkit.errors import DIVERGED_STATUS, Diverged, UsageError
from capkit.train.callbacks.guard import SkipBadSteps


def feed(guard, losses):
    """Whether each step is left out."""
    found = []
    for step, loss in enumerate(losses, start=1):
        refused = guard.refuses(step, loss, 1.0)
        guard.count(step, loss, 1.0, refused, True)
        found.append(refused)
    return found


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_or_gradient_that_is_not_finite_is_refused_and_counted(bad):
    guard = SkipBadSteps()
    assert feed(guard, [1.0, bad, 1.0]) == [False, True, False]
    assert guard.refuses(4, 1.0, abs(bad)) and "gradient" in guard.reason
    assert guard.skipped_steps == 1 and list(guard.recent) == [1.0, 1.0]


def test_the_run_ends_after_so_many_in_a_row_and_one_good_step_starts_the_count_again():
    guard = SkipBadSteps(max_in_a_row=3)
    feed(guard, [1.0, math.nan, math.nan, 1.0, math.nan, math.nan])
    with pytest.raises(Diverged, match="step 7: 3 updates in a row are unusable, the last because the loss is nan"):
        guard.count(7, math.nan, None, guard.refuses(7, math.nan, None), True)
    assert guard.skipped_steps == 5 and Diverged.status == DIVERGED_STATUS == 83


def test_updates_within_a_step_count_in_a_row_but_are_no_steps():
    guard = SkipBadSteps()
    guard.count(1, math.nan, 1.0, True, False)
    guard.count(1, math.nan, 1.0, True, True)
    assert (guard.in_a_row, guard.skipped_steps) == (2, 1)


def test_spikes_are_watched_for_only_where_a_factor_is_given():
    assert feed(SkipBadSteps(num_steps=2), [1.0, 1.0, 1e9]) == [False, False, False]


def test_a_spike_is_a_loss_above_factor_times_the_median_once_there_are_enough_losses():
    guard = SkipBadSteps(spike_factor=3, num_steps=3)
    assert feed(guard, [9.0, 1.0, 2.0, 6.01, 5.99, 1.5]) == [False, False, False, True, False, False]
    assert list(guard.recent) == [2.0, 5.99, 1.5]  # a spike that was left out is no part of the median


def test_losses_about_zero_are_held_against_their_deviation():
    guard = SkipBadSteps(spike_factor=5, num_steps=5)
    quiet = [0.1, -0.1, 0.0, 0.2, -0.2]  # median 0, median deviation 0.1: the limit is 4 x 1.4826 x 0.1 = 0.593
    assert feed(guard, [*quiet, 0.6]) == [False] * 5 + [True]
    other = SkipBadSteps(spike_factor=5, num_steps=5)
    assert feed(other, [*quiet, 0.58]) == [False] * 6


@pytest.mark.parametrize("action", ["warn", "stop"])
def test_a_spike_may_warn_or_end_the_run_instead(action):
    guard = SkipBadSteps(spike_factor=3, on_spike=action, num_steps=2)
    feed(guard, [1.0, 1.0])
    if action == "warn":
        with pytest.warns(UserWarning, match=r"step 3: the loss is 10, the median of 2 steps 1"):
            assert not guard.refuses(3, 10.0, 1.0)
    else:
        with pytest.raises(Diverged, match="on_spike=stop"):
            guard.refuses(3, 10.0, 1.0)


def test_a_resumed_guard_decides_as_one_that_was_not_interrupted():
    losses = [1.0, 2.0, math.nan, 1.5, 7.0, math.nan, 2.0, 30.0]
    once = SkipBadSteps(spike_factor=3, num_steps=3)
    expected = feed(once, losses)
    first, second = SkipBadSteps(spike_factor=3, num_steps=3), SkipBadSteps(spike_factor=3, num_steps=3)
    found = feed(first, losses[:6])
    second.load_state_dict(first.state_dict())
    assert found + feed(second, losses[6:]) == expected
    assert second.state_dict() == once.state_dict()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"max_in_a_row": 0}, "max_in_a_row: expected an integer of at least 1"),
        ({"spike_factor": 1.0}, "spike_factor: expected a finite number greater than 1 or None"),
        ({"on_spike": "halt"}, "on_spike to be warn, skip or stop"),
    ],
)
def test_impossible_settings_are_refused(settings, told):
    with pytest.raises(UsageError, match=told):
        SkipBadSteps(**settings)
