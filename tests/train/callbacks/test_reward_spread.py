import math
import warnings

import pytest
from rl_steps import OBJECTIVES, loader, module_of, trainer_of
from scripted import Killed, Scripted, fit

from capkit.checkpoint.files import check_integrity
from capkit.errors import NOTHING_TO_LEARN_STATUS, NothingToLearn, UsageError
from capkit.scorers.reward import Reward, RewardTerm
from capkit.train.callbacks.checkpoints import Checkpoints
from capkit.train.callbacks.reward_spread import RewardSpread

NONE = {
    "reward/total": 0.0, "reward/std": 0.0, "reward/zero_spread": 1.0, "reward/greedy": 0.0, "rl/entropy": 2.0,
    "skipped": 0.0,
}  # fmt: skip
SOME = {**NONE, "reward/zero_spread": 0.75}


def told(steps, *callbacks, **settings):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(Scripted(steps, **settings), callbacks, max_steps=len(steps))
    return [str(w.message) for w in caught if "nothing is learned" in str(w.message)]


def test_a_warning_names_the_cause_and_the_key_and_is_not_repeated():
    (message,) = told([NONE] * 9, RewardSpread(3, 20))
    assert message.startswith("step 3: for 3 steps no image had captions with different rewards: nothing is learned")
    assert "the reward is 0 for every caption" in message and "reward=[...]" in message
    assert "callback.reward_spread.stop_after=20" in message


@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        ({"rl/entropy": 0.01}, "the samples of an image are all the same caption (rl/entropy is 0.010"),
        ({"reward/total": math.nan, "reward/greedy": math.nan, "reward/std": math.nan}, "no caption can be scored"),
    ],
)
def test_other_causes_are_told_apart(changed, cause):
    (message,) = told([NONE | changed] * 3, RewardSpread(2, None))
    assert cause in message and "stop_after" not in message


def test_a_trial_too_short_for_a_warning_says_at_its_end_that_nothing_was_learned():
    (message,) = told([NONE] * 2, RewardSpread(3, 20))
    assert message.startswith("for 2 steps no image had captions with different rewards: nothing is learned")
    assert told([SOME, NONE], RewardSpread(3, 20)) == []  # one step taught something


@pytest.mark.parametrize(
    "teaches",
    [
        {"reward/zero_spread": 0.99},
        {"reward/greedy": 0.5},  # the samples are all alike, and worse than the greedy caption
    ],
)
def test_one_step_with_spread_starts_the_count_again(teaches):
    steps = [NONE, NONE, NONE | teaches, NONE, NONE]
    assert told(steps, RewardSpread(3, 4)) == []
    assert len(told([*steps, NONE], RewardSpread(3, 4))) == 1


def test_without_samples_to_compare_the_batch_and_the_last_step_are_compared():
    one = {"reward/total": 0.5, "reward/std": 0.0, "rl/entropy": 2.0, "skipped": 0.0}
    assert len(told([one] * 4, RewardSpread(3, None))) == 1
    assert told([one | {"reward/std": 0.1}] * 4, RewardSpread(3, None)) == []
    assert told([one | {"reward/total": step / 8} for step in range(4)], RewardSpread(3, None)) == []


def test_the_run_ends_after_so_many_steps_and_its_last_step_is_saved(tmp_path):
    checkpoints = Checkpoints(every_steps=100)
    checkpoints.attach(tmp_path)
    with pytest.warns(UserWarning), pytest.raises(NothingToLearn, match="step 6: for 4 steps") as caught:
        fit(Scripted([SOME, SOME, *[NONE] * 8]), [RewardSpread(2, 4), checkpoints], max_steps=10)
    assert str(checkpoints.path(6)) in str(caught.value) and check_integrity(checkpoints.path(6)) is None
    assert caught.value.status == NOTHING_TO_LEARN_STATUS == 84
    with pytest.warns(UserWarning), pytest.raises(NothingToLearn, match="its weights are not saved"):
        fit(Scripted([NONE] * 4), [RewardSpread(2, 4)], max_steps=4)


def test_a_run_that_learns_likelihood_beside_it_goes_on():
    module = Scripted([NONE] * 6)
    module.likelihood = object()
    with pytest.warns(UserWarning, match="nothing is learned"):
        assert fit(module, [RewardSpread(2, 3)], max_steps=6).global_step == 6


def test_a_resumed_run_counts_on(tmp_path):
    checkpoints = Checkpoints(every_steps=1)
    checkpoints.attach(tmp_path)
    with pytest.raises(Killed):
        fit(Scripted([NONE] * 8, dies_at=3), [RewardSpread(5, 6), checkpoints], max_steps=8)
    with pytest.warns(UserWarning), pytest.raises(NothingToLearn, match="step 6: for 6 steps"):
        fit(Scripted([NONE] * 8), [RewardSpread(5, 6), checkpoints], max_steps=8, ckpt_path=checkpoints.path(3))


def test_steps_that_were_left_out_do_not_count():
    assert told([NONE | {"skipped": 1.0}] * 4, RewardSpread(2, 3)) == []


def test_wrong_numbers_are_refused():
    with pytest.raises(UsageError, match="warn_after"):
        RewardSpread(warn_after=0)
    with pytest.raises(UsageError, match="to be warn_after steps or more, or null; got 2 with warn_after=3"):
        RewardSpread(3, 2)


class Same:
    def __call__(self, batch, samples):
        return samples.tokens.new_ones(len(batch), samples.tokens.shape[1]).float()


@pytest.mark.parametrize("objective", ["greedy", "leave_one_out", "running_mean"])
def test_a_reward_that_is_one_for_all_is_seen_in_a_real_step(objective):
    module = module_of(OBJECTIVES[objective]())
    module.reward = Reward({"same": RewardTerm(Same())})
    with pytest.warns(UserWarning, match="the reward is 1 for every caption"):
        trainer_of("auto", 2, [RewardSpread(2, None)], "32-true").fit(module, loader(2))
