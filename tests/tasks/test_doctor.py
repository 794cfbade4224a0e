"""`capkit doctor`: each complaint is made where there is reason, and not without; what is bad ends with status 2."""

import shutil
from collections import namedtuple
from importlib import metadata

import pytest
import torch

from capkit.cli import main
from capkit.tasks import doctor

Usage = namedtuple("Usage", ["total", "used", "free"])


def levels(look):
    return {finding.what: finding.level for finding in look()}


def test_a_machine_as_this_one_is_looked_at_without_a_complaint_that_ends_it(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "_said", lambda *command: "")
    assert main(["doctor"]) == 0
    page = capsys.readouterr().out
    for what in ("packages", "GPU", "compiler", "SLURM", "runs", "shared memory", "limits", "model hub", "wandb"):
        assert what in page
    assert all(finding.fix for look in doctor.LOOKS for finding in look() if finding.level != "ok")


def test_other_versions_are_noted_and_missing_and_forbidden_ones_are_bad(monkeypatch, capsys):
    real = metadata.version
    faked = {"peft": "0.1.0", "safetensors": "99.0", "hydra": "2.5"}

    def version(name):
        if name == "wandb":
            raise metadata.PackageNotFoundError
        return faked.get(name) or real(name)

    monkeypatch.setattr(metadata, "version", version)
    found = {finding.what: finding for finding in doctor.versions()}
    assert (found["peft"].level, found["wandb"].level) == ("bad", "bad")
    assert "0.1.0, needed: <0.23,>=0.21" in found["peft"].found and "pip install -c" in found["wandb"].fix
    assert found["packages"].level == "note" and "safetensors 99.0 (" in found["packages"].found
    assert found["hydra"].level == "note" and "pip uninstall hydra" in found["hydra"].fix
    monkeypatch.setattr(doctor, "LOOKS", (doctor.versions,))
    assert main(["doctor"]) == 2
    assert "problems with" in (told := capsys.readouterr().err) and "peft" in told and "wandb" in told


def test_a_gpu_that_torch_does_not_see_is_bad_and_none_at_all_is_not(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(doctor, "_said", lambda *command: "GPU 0: NVIDIA H200 (UUID: GPU-1)")
    (finding,) = doctor.gpu()
    assert finding.level == "bad" and "H200" in finding.found and "trainer=cpu" in finding.fix
    monkeypatch.setattr(doctor, "_said", lambda *command: "")
    assert levels(doctor.gpu) == {"GPU": "note"}


@pytest.mark.parametrize("free, level", [(1, "bad"), (10, "note"), (100, "ok")])
def test_room_on_the_disk(monkeypatch, free, level):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, free * doctor.GIB))
    assert levels(doctor.disk) == {"runs": level, "HF_HOME": level, "TMPDIR": level}


def test_a_folder_that_cannot_be_written_is_bad(monkeypatch):
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    found = {finding.what: finding for finding in doctor.disk()}
    assert {finding.level for finding in found.values()} == {"bad"}
    assert "run_dir=PATH" in found["runs"].fix and "export TMPDIR=PATH" in found["TMPDIR"].fix


@pytest.mark.parametrize("free, level", [(64 / 1024, "note"), (8, "ok")], ids=["of docker", "enough"])
def test_shared_memory(monkeypatch, free, level):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, int(free * doctor.GIB)))
    assert levels(doctor.shared_memory) == {"shared memory": level}


def test_compiler_slurm_files_and_services(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert levels(doctor.compiler) == {"compiler": "note"} and levels(doctor.slurm) == {"SLURM": "ok"}
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    assert levels(doctor.compiler) == {"compiler": "ok"} and levels(doctor.slurm) == {"SLURM": "note"}
    monkeypatch.setattr(doctor.resource, "getrlimit", lambda which: (256, 4096))
    assert "ulimit -n 4096" in next(doctor.limits()).fix
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(doctor, "hub_reachable", lambda: True)
    assert levels(doctor.services) == {"model hub": "ok", "wandb": "note"}
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password x")
    monkeypatch.setattr(doctor, "hub_reachable", lambda: False)
    assert levels(doctor.services) == {"model hub": "note", "wandb": "ok"}


def test_a_program_that_fails_or_is_absent_says_nothing():
    assert doctor._said("false") == "" and doctor._said("no-such-program") == "" and doctor._said("echo", "x") == "x"
