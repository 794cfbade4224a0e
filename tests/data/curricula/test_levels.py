"""Stages by level: when they begin, what a resume knows, and that no batch is fetched before it is known."""

import json
import math
from itertools import islice

import pytest
from bag_folders import bag_folder, keys

from capkit.data.curricula.bags import Bags
from capkit.data.curricula.base import Guided
from capkit.data.curricula.levels import Levels
from capkit.data.curricula.single_epoch import Steps
from capkit.distributed.collectives import rank
from capkit.errors import UsageError
from capkit.testing.distributed import run_distributed

TOTAL = 24
# Hard-2 (3 batches an epoch) until a mean of four steps reaches .5, hard-3 (4) until one reaches .5, then hard-5.
REWARDS = [0.1, 0.2, 0.9, 0.4, 0.5, 0.6, 0.4, 0.5, 0.9, 0.1, 0.1, 0.1, 0.2, 0.2, 0.2, 0.2, *[0.7] * 8]
BEGAN = [8, 20]


def levels(values=(0.5, 0.5), window=4):
    return Levels("reward/total", values, window)


def observe(curriculum, rewards, first=1):
    return [curriculum.observe(step, value) for step, value in enumerate(rewards, first)]


def test_the_next_stage_begins_where_the_mean_of_a_window_reaches_the_level():
    found = levels()
    begins = observe(found, REWARDS)
    # means: .4, .5 (reached), .3, .2, .7 (reached), and no stage is left
    assert [step for step, begin in enumerate(begins, 1) if begin] == BEGAN == found.began


def test_a_window_sees_one_stage_only_and_a_look_begins_one_stage_at_most():
    found = levels(window=2)
    observe(found, [9.0, 9.0, 0.0, 0.0, 0.0, 0.9])
    assert found.began == [2], "the high numbers before the stage began are forgotten: 0 and .45 are its means"
    assert levels(window=2).observe(1, 9.0) is False


def test_numbers_that_are_missing_are_left_out_of_the_mean():
    found = levels(window=3)
    observe(found, [math.nan, 0.5, 0.5, *[math.nan] * 3])
    assert found.began == [3]


def test_stages_are_known_until_the_next_look_and_for_good_in_the_last_stage():
    found = levels()
    assert [found.known_until(0)] == [4]
    observe(found, REWARDS[:5])
    assert found.known_until(5) == 8
    observe(found, REWARDS[5:], first=6)
    assert found.known_until(24) == math.inf


def test_a_loop_that_does_not_tell_is_told_so():
    with pytest.raises(UsageError, match=r"needs reward/total of every step; expected 4 observed steps, got 0"):
        levels().known_until(4)


@pytest.mark.parametrize(
    ("arguments", "message"), [({"values": [math.inf]}, "levels must be numbers"), ({"window": 0}, "window must be 1")]
)
def test_levels_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        levels(**arguments)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return bag_folder(tmp_path_factory.mktemp("levels") / "bags")


def bags(folder, rank=0, world_size=1, stages=("hard-2", "hard-3", "hard-5"), **options):
    settings = {"by": "level", "levels": [0.5, 0.5], "window": 4, **options}
    return Bags(folder, stages, 16, 3, rank, world_size, 60, lambda: keys(60), **settings)


def train(curriculum, start=0, total=TOTAL, rewards=REWARDS):
    """The batches of a loop that fetches each part whole before its first step, as workers may."""
    batches = []
    for part in Steps(curriculum, start, total).parts():
        batches += (fetched := list(part))
        done = start + len(batches)
        observe(curriculum, rewards[done - len(fetched) : done], first=done - len(fetched) + 1)
    return batches


def test_bags_grow_at_the_step_where_a_level_was_reached(folder):
    curriculum = bags(folder)
    sizes = [len(batch) for batch in train(curriculum)]
    assert isinstance(curriculum, Guided) and curriculum.watched == "reward/total"
    assert sizes == [16] * 8 + [15] * 16
    assert [curriculum.bag_size(step) for step in (0, 7, 8, 19, 20)] == [2, 2, 3, 3, 5]
    # epochs: three of hard-2, the last one cut at step 8, and then three of hard-3
    assert [curriculum.place(step) for step in (0, 3, 7, 8, 12, 20)] == [(0, 0), (1, 0), (2, 1), (3, 0), (4, 0), (6, 0)]


def test_without_a_reached_level_the_first_list_stays(folder):
    alone = Bags(folder, {1: "hard-2"}, 16, 3, 0, 1, 60, lambda: keys(60))
    assert train(bags(folder), rewards=[0.0] * TOTAL) == list(Steps(alone, 0, TOTAL))


@pytest.mark.parametrize("start", [1, 6, 8, 9, 15, 20, 23])
def test_a_run_that_was_stopped_anywhere_goes_on_with_the_same_batches(folder, start):
    whole = train(bags(folder))
    first = bags(folder)
    assert train(first, 0, start) == whole[:start]
    resumed = bags(folder)
    resumed.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert train(resumed, start) == whole[start:]
    assert resumed.state_dict()["levels"]["began"] == BEGAN


def test_a_resume_with_another_schedule_is_refused(folder):
    curriculum = bags(folder)
    train(curriculum)
    for other in (
        bags(folder, levels=[0.5, 0.6]), bags(folder, window=5), bags(folder, level_of="reward/clip_score"),
        bags(folder, stages=("hard-2", "hard-5", "hard-3")), bags(folder, stages={1: "hard-2"}, by="epoch", levels=[]),
    ):  # fmt: skip
        with pytest.raises(UsageError, match="stages"):
            other.load_state_dict(curriculum.state_dict())


def test_the_stages_are_described(folder):
    assert bags(folder, levels=[0.5, -1]).describe()["stages"] == [
        "until the mean of reward/total over 4 steps reaches 0.5: hard-2",
        "until the mean of reward/total over 4 steps reaches -1: hard-3",
        "then: hard-5",
    ]


def test_the_length_of_epochs_is_not_known_beforehand(folder):
    assert (bags(folder).num_steps(1), bags(folder).num_steps(0.5)) == (3, 2)
    with pytest.raises(UsageError, match="set max_steps and max_epochs=null"):
        bags(folder).num_steps(2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stages": {1: "hard-2", 2: "hard-3"}}, "two or more lists of bags in their order"),
        ({"levels": [0.5]}, "levels one number fewer"),
        ({"stages": ["hard-2"], "levels": []}, "two or more lists"),
        ({"by": "step"}, "levels are for stages by level"),
        ({"by": "epoch", "levels": []}, "stages map a bound"),
    ],
)
def test_stages_and_levels_that_do_not_fit_are_refused(folder, settings, message):
    with pytest.raises(UsageError, match=message):
        bags(folder, **settings)


def of_rank(folder, state):
    """This rank's batches, where the ranks' numbers differ: rank 0's count."""
    rewards = REWARDS if rank() == 0 else [0.0] * TOTAL
    resumed = bags(folder, rank(), 2)
    resumed.load_state_dict(state)
    return train(bags(folder, rank(), 2), rewards=rewards), train(resumed, 6, rewards=rewards)


@pytest.mark.integration
def test_two_processes_share_the_batches_of_one_and_go_on_from_its_checkpoint(folder):
    whole, first = train(bags(folder)), bags(folder)
    train(first, 0, 6)
    for number, (batches, resumed) in enumerate(run_distributed(of_rank, 2, folder, first.state_dict())):
        assert batches == [batch[number::2] for batch in whole]
        assert resumed == batches[6:]


def test_other_curricula_are_fetched_in_one_part(folder):
    by_step = Bags(folder, {4: "hard-2", 6: "hard-3"}, 16, 3, 0, 1, 60, lambda: keys(60), by="step")
    assert by_step.watched is None
    assert [len(list(part)) for part in Steps(by_step, 3, 20).parts()] == [17]
    assert [len(list(part)) for part in islice(Steps(bags(folder), 0, 20).parts(), 1)] == [4]
