"""`capkit frontier` on captioners of the tree: what each of its folders was decoded by."""

import json

import pytest

from benchmarks.starts import folder_of
from capkit.cli import main

SMALL = ["data=sceneworld_generic", "data.test.source.count=8", "metric=[cider]", "trainer=cpu", "trainer.devices=1"]


def captions(folder):
    return [row["caption"] for row in json.loads((folder / "predictions/test.json").read_text())]


@pytest.mark.integration
def test_scales_are_guided_and_other_runs_are_not_whatever_decoding_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ckpt, other = (folder_of(name, 0) for name in ("generic", "weak"))
    words = ["frontier", f"ckpt={ckpt}", "scales=[1,3]", f"runs=[{other}]", "decoding=guided", "decoding.guide.scale=3"]
    assert main([*words, *SMALL, "run_dir=frontier"]) == 0
    for run in (ckpt, other):
        assert main(["evaluate", f"ckpt={run}", *SMALL, "decoding=greedy", f"run_dir=plain-{run.name}"]) == 0
    assert captions(tmp_path / "frontier/scale-1") == captions(tmp_path / "plain-generic-0")
    assert captions(tmp_path / "frontier/scale-3") != captions(tmp_path / "plain-generic-0")
    assert captions(tmp_path / "frontier/run-weak-0") == captions(tmp_path / "plain-weak-0")
    rows = json.loads((tmp_path / "frontier/frontier.json").read_text())
    assert [(row["label"], row["scale"]) for row in rows] == [("1", 1), ("3", 3), ("weak-0", None)]
