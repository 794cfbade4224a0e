"""launch/slurm.sbatch as an array of task=curate, on a real SLURM whose nodes are this machine."""

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from test_curate_servers import a_dog, curate_words

from capkit.cli import main
from capkit.testing.stand_in_server import Reply, StandInServer

ROOT = Path(__file__).parents[2]
FILES = ("train.jsonl", "train.failures.jsonl")
NUM_RECORDS, KILLED, HANGS_AT = 12, 2, 7  # record 7 is in shard 2 of four

pytestmark = pytest.mark.nightly


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Submits the batch script, and waits until it ends; skips the test without a SLURM on this machine."""
    if shutil.which("sbatch") is None:
        pytest.skip("wants SLURM")
    shown = subprocess.run(["scontrol", "show", "node", "--oneliner"], stdout=subprocess.PIPE, text=True, check=False)
    addresses = [word for word in shown.stdout.split() if word.startswith("NodeAddr=")]
    if not addresses or set(addresses) != {"NodeAddr=127.0.0.1"}:
        pytest.skip(f"wants a SLURM whose nodes see this machine's files, got {addresses or 'none that runs'}")
    monkeypatch.chdir(tmp_path)
    environment = {
        **os.environ, "CAPKIT": f"{sys.executable} {ROOT / 'train.py'}", "no_proxy": "*",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }  # fmt: skip

    def submitted(array, *words):
        options = [f"--array={array}", "--job-name=vcb", "--output=vcb-%a.log", "--time=10"]
        command = ["sbatch", "--wait", "--parsable", *options, str(ROOT / "launch" / "slurm.sbatch"), *words]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    return submitted


def test_an_array_whose_task_is_killed_and_started_again_writes_what_one_process_does(slurm, monkeypatch):
    """Killed while a question of its shard hangs; of the twelve questions only that one is asked again."""
    monkeypatch.setenv("no_proxy", "*")
    with StandInServer(a_dog) as server:
        words = curate_words(server, "step=[blend_captions]", count=NUM_RECORDS)
        one = ["out=one", "step.blend_captions.cache_dir=answers/one", "text_lm.num_connections=1"]
        assert main([*words, *one]) == 0
        prompts = server.prompts()
        assert len(set(prompts)) == NUM_RECORDS
        hanging = prompts[HANGS_AT]
        server.plan[hanging] = [Reply("", ending="hang")]
        words += ["out=four", "step.blend_captions.cache_dir=answers/four"]
        array = slurm("0-3", *words)
        number = array.stdout.readline().strip()
        _wait_for(lambda: server.prompts().count(hanging) == 2)
        time.sleep(2)  # answers are on disk after a second
        subprocess.run(["scancel", "--signal=KILL", f"{number}_{KILLED}"], check=True)
        assert array.wait(300) != 0
        assert not Path("four/train.jsonl").exists()
        assert slurm(str(KILLED), *words, "num_shards=4").wait(300) == 0
        assert Counter(server.prompts()) == {prompt: 3 if prompt == hanging else 2 for prompt in prompts}
    assert all(Path("one", name).read_bytes() == Path("four", name).read_bytes() for name in FILES)


def _wait_for(is_so, seconds=300):
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, Path("vcb-2.log").read_text() if Path("vcb-2.log").exists() else "no log"
        time.sleep(0.1)
