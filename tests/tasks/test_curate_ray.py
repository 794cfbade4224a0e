"""task=curate with engine=ray: a local Ray of two workers writes what one process writes, also when one is killed."""

import json
import os
import pickle
import signal
from pathlib import Path

import pytest
from local_ray import local_ray
from omegaconf import OmegaConf
from test_curate import LoggingLM, asked

from capkit.config.arguments import parse
from capkit.config.compose import compose_config
from capkit.errors import UsageError
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.tasks.curate import run

NUM_RECORDS = 12
FILES = ("train.jsonl", "train.failures.jsonl")


class KillsItsWorker:
    """Passes records on; at one of them the process that works on it dies, the first time it comes."""

    scope = "record"

    def __init__(self, key: str, marker: str) -> None:
        self.key, self.marker = key, Path(marker)

    def fingerprint_fields(self):
        return {}

    def __call__(self, records):
        for record in records():
            if record.key == self.key and not self.marker.exists():
                self.marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield record


@pytest.fixture(scope="module")
def cluster():
    with local_ray():
        yield


def curated(folder, *words, kills=None):
    """One of the twelve records fails; with `kills` the worker of that record dies once, after its questions."""
    config = compose_config(parse(["curate", f"data.train.count={NUM_RECORDS}", *words])).config
    OmegaConf.set_struct(config, False)
    bad = SceneWorld("train", NUM_RECORDS).record(3).captions[0].text
    target = f"{LoggingLM.__module__}.{LoggingLM.__name__}"
    config.text_lm = {"_target_": target, "log_file": str(folder / "asked.txt"), "bad": bad}
    config.step.kills = {"_target_": f"{__name__}.{KillsItsWorker.__name__}", "key": kills or "", "marker": "killed"}
    return run(config)


class InThisProcess:
    """The pieces one after another, the last first, as sent to a worker: pickled, and what they give as JSON."""

    def __init__(self, address, num_workers, num_cpus, num_gpus, retries):
        self.num_workers = num_workers or 2

    def map(self, make, count):
        piece = pickle.loads(pickle.dumps(make))()
        for number in reversed(range(count)):
            yield json.loads(json.dumps(piece(number)))

    def close(self):
        pass


def same_files(folder, *outs):
    return all(
        (folder / "one" / name).read_bytes() == (folder / out / name).read_bytes() for name in FILES for out in outs
    )


@pytest.fixture
def one(tmp_path, monkeypatch):
    """What one process writes, with a store of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "local").mkdir()
    curated(tmp_path / "local", "out=one", "step.blend_captions.cache_dir=local/answers")
    assert asked(tmp_path / "local/asked.txt") == NUM_RECORDS
    return tmp_path


@pytest.mark.integration
def test_shards_that_are_pieces_of_work_give_what_one_process_gives(one, monkeypatch):
    """One shard, four, and as many as there are by default: manifest and failures byte for byte."""
    monkeypatch.setattr("capkit.tasks.curate.RayWorkers", InThisProcess)
    counts = curated(one, "out=four", "num_shards=4", "engine=ray")
    assert (counts["records"], counts["kept"], counts["failed"]) == (12, 11, 1)
    curated(one, "out=single", "num_shards=1", "engine=ray")
    curated(one, "out=default", "engine=ray", "num_workers=1")
    assert len(list(one.glob("four/train-*-of-00004.jsonl"))) == len(list(one.glob("default/*-of-00004.jsonl"))) == 4
    assert same_files(one, "four", "single", "default")
    reports = [json.loads((one / out / "train.report.json").read_text()) for out in ("one", "four")]
    assert reports[0]["samples"] == reports[1]["samples"] and "11 records" in (one / "four/report.html").read_text()


@pytest.mark.nightly
def test_a_cluster_that_loses_a_worker_writes_what_one_process_does(cluster, one):
    """Four shards on two workers of a real Ray; no answer is asked twice but the one that fails, of the lost shard."""
    curated(one, "out=four", "num_shards=4", "engine=ray", kills="train-4")
    assert (one / "killed").exists() and same_files(one, "four")
    assert asked(one / "asked.txt") == NUM_RECORDS + 1


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["engine=ray", "shard=0", "num_shards=2"], "engine=ray works on all shards, got shard=0"),
        (["num_workers=4"], "workers are Ray's; add engine=ray"),
    ],
)
def test_keys_of_the_other_engine_are_refused(tmp_path, monkeypatch, words, reason):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=reason):
        run(compose_config(parse(["curate", "out=x", *words])).config)
