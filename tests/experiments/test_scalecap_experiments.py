"""ScaleCap's experiments by their commands: on SceneWorld whole, at paper size as far as the model that is not here."""

import importlib.util
import json

import pytest

from benchmarks.starts import folder_of
from capkit.cli import main
from capkit.run.folder import RunFolder

pytestmark = pytest.mark.integration


def test_scalecap_on_sceneworld_writes_captions_with_their_ratings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["curate", "experiment=scalecap_sceneworld", "splits=[test]", "data.test.source.count=12"]
    words += [f"out={tmp_path / 'out'}"]
    assert main([*words, f"step.scale_caption.describer.ckpt={folder_of('habit', 0)}"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "out" / "test.jsonl").read_text().splitlines()]
    counts = json.loads((tmp_path / "out" / "test.report.json").read_text())["counts"]
    assert len(rows) == 12 and counts["scale_caption/units"] >= 12
    asked = sum(len(row["metadata"]["scalecap"]["objects"]) for row in rows)
    assert counts["scale_caption/vision_questions"] == 12 + 2 * asked
    assert {row["captions"][0]["source"] for row in rows} == {"scalecap/scalecap_merge_v1/scene_lm/habit-0"}


def test_its_captioner_trains_two_steps_with_missing_pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    counts = [f"data.{split}.source.count=12" for split in ("train", "val", "test")]
    assert main(["experiment=habit_mle_sceneworld", "debug=tiny", "trainer=cpu", "run_dir=run", *counts]) == 0
    numbers = RunFolder("run").metrics()
    assert numbers["train/steps"] == 2 and 0 <= numbers["test/fact_recall"] <= 1


@pytest.mark.parametrize("missing", ["the model", "spaCy"])
def test_scalecap_at_paper_size_names_what_is_not_here(missing, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "data.jsonl").write_text('{"key": "0", "image": "a.png", "captions": ["a dog"]}\n')
    words = ["curate", "experiment=scalecap", f"data.train.path={tmp_path / 'data.jsonl'}", f"out={tmp_path / 'out'}"]
    words += ["text_lm.url=http://127.0.0.1:9/v1"]
    if missing == "the model":
        words += ["step.scale_caption.tagger._target_=capkit.sceneworld.language.tagging.SceneTagger"]
    else:
        found = importlib.util.find_spec
        monkeypatch.setattr("importlib.util.find_spec", lambda name, *of: None if "spacy" in name else found(name, *of))
    assert main(words) == 2
    told = capsys.readouterr().err
    assert ("'Qwen/Qwen2-VL-7B-Instruct' could not be loaded" if missing == "the model" else "capkit[tagger]") in told
