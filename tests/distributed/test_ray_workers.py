"""Pieces of work on a local Ray of two workers, one of which is killed; errors as what they are. Without torch."""

import os
import signal
from functools import partial
from pathlib import Path

import pytest
from local_ray import local_ray

from capkit.distributed import ray_workers
from capkit.distributed.ray_workers import NUM_RETRIES, RayWorkers
from capkit.errors import BudgetSpent, NoAnswers, RunFailure, UsageError


def squares(folder, deaths):
    """Pieces that give squares; number 2 kills its worker as often as `deaths` says."""
    (Path(folder) / f"made-{os.getpid()}").touch()

    def piece(number):
        died = len(list(Path(folder).glob("died-*")))
        if number == 2 and died < deaths:
            (Path(folder) / f"died-{died}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return {"square": number**2}

    return piece


def refuses():
    raise NoAnswers("none of 50")


@pytest.fixture(scope="module")
def cluster():
    with local_ray():
        yield


def found(workers, folder, deaths, count=6):
    return sorted(row["square"] for row in workers.map(partial(squares, str(folder), deaths), count))


@pytest.mark.integration
def test_the_piece_of_a_lost_worker_is_done_again_by_a_new_one(cluster, tmp_path):
    workers = RayWorkers(num_workers=2)
    assert found(workers, tmp_path, deaths=1) == [0, 1, 4, 9, 16, 25]
    assert len(list(tmp_path.glob("made-*"))) == 3, "two workers and the one in place of the lost one"


@pytest.mark.integration
def test_a_piece_that_always_kills_its_worker_ends_the_run(cluster, tmp_path):
    with pytest.raises(RunFailure, match=f"shard 2 lost its worker {NUM_RETRIES + 1} times: .*; look into its memory"):
        found(RayWorkers(), tmp_path, deaths=100)
    (tmp_path / "b").mkdir()
    with pytest.raises(RunFailure, match=r"lost its worker 1 times \(with a budget it is not tried again"):
        found(RayWorkers(retries=False), tmp_path / "b", deaths=1)


@pytest.mark.integration
def test_an_error_of_a_worker_ends_the_others_and_more_than_there_is_room_for_is_refused(cluster, tmp_path):
    with pytest.raises(NoAnswers, match="none of 50"):
        list(RayWorkers().map(refuses, 4))
    with pytest.raises(UsageError, match="room for 3 workers of 1 CPUs and 0 GPUs, got 2 CPUs"):
        RayWorkers(num_workers=3)
    with pytest.raises(UsageError, match="room for 1 workers of 1 CPUs and 1 GPUs, got 2 CPUs and 0 GPUs"):
        RayWorkers(num_gpus=1)


def test_errors_of_a_worker_come_back_as_what_they_are():
    def fails(error):
        def piece(number):
            raise error

        return ray_workers._Worker(lambda: piece).told(3)

    for error in (UsageError("wrong key"), BudgetSpent("spent"), NoAnswers("50 of 50")):
        raised = ray_workers._raised(fails(error))
        assert type(raised) is type(error) and str(raised) == str(error)
    with pytest.raises(KeyError):
        fails(KeyError("a mistake of ours"))


def test_a_worker_prepares_once_and_answers_each_piece():
    made = []

    def make():
        made.append(1)
        return lambda number: {"square": number**2}

    worker = ray_workers._Worker(make)
    told = [worker.told(number) for number in (2, 5)]
    assert told == [{"found": {"square": 4}}, {"found": {"square": 25}}] and made == [1]


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(ray_workers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'capkit\[scale\]'"):
        RayWorkers()
