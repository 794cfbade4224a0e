"""capkit.train within a Hydra application that trains by Lightning itself, before and after, in one process."""

import json
import os
import subprocess
import sys

import lightning.pytorch as pl
import pytest
import within_program

from capkit.utils.guest import as_guest


@pytest.mark.integration
@pytest.mark.unchecked
def test_the_program_goes_on_as_if_nothing_had_been_called(tmp_path):
    folder = os.path.dirname(within_program.__file__)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(folder), folder])}
    words = ["+trainers=[cpu,ddp_cpu]", "+planted=logging", f"+out={tmp_path / 'out.json'}", "hydra.run.dir=app"]
    done = subprocess.run(
        [sys.executable, within_program.__file__, *words],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["steps"] == [1, 1] and found["folder"]
    assert found["changed"] == [[], [], ["logging"]]  # the last is planted: it would have been seen
    assert done.stderr.count("`Trainer.fit` stopped: `max_epochs=2` reached") == 2  # Lightning still talks
    with as_guest():
        pl.seed_everything(3)
        assert found["losses"] == [within_program.trained(tmp_path) for _ in range(2)]
