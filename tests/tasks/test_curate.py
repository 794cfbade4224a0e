"""task=curate as the command line composes it, on SceneWorld and on image files."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from hydra.errors import InstantiationException
from killed import run_and_kill
from omegaconf import OmegaConf
from PIL import Image

from capkit.config.arguments import parse
from capkit.config.compose import compose_config
from capkit.data.records import read_manifest
from capkit.data.sources.base import picture_size
from capkit.data.sources.manifest import Manifest
from capkit.errors import UsageError
from capkit.llm.base import Answer
from capkit.sceneworld.language.oracles import score_caption
from capkit.sceneworld.llm import SceneLM
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.scene import Scene
from capkit.tasks.curate import own_shard, run

BOTH = "step=[blend_captions,holistic_caption]"


class LoggingLM(SceneLM):
    """A SceneLM that writes down each question it is asked, takes its time, and gives up on `bad` words."""

    def __init__(self, log_file: str, delay_s: float = 0.0, bad: str = "") -> None:
        self.log_file, self.delay_s, self.bad = log_file, delay_s, bad

    def ask(self, questions):
        prompts = [question.text for question in questions]
        time.sleep(self.delay_s)
        with open(self.log_file, "a") as file:
            file.writelines(f"{prompt!r}\n" for prompt in prompts)
        answers = super().ask(questions)
        return [
            Answer(None, "it gave up") if self.bad and self.bad in prompt else answer
            for prompt, answer in zip(prompts, answers, strict=True)
        ]


def curated(*words, lm=None):
    """Runs the task; `lm` replaces the language model of the steps."""
    count = [] if any("data.train.count=" in word for word in words) else ["data.train.count=12"]
    config = compose_config(parse(["curate", *count, *words])).config
    OmegaConf.set_struct(config, False)
    if lm is not None:
        target = f"{LoggingLM.__module__}.{LoggingLM.__name__}"
        config.text_lm = {"_target_": target, **lm}
    return run(config)


def asked(file):
    return len(file.read_text().splitlines()) if file.exists() else 0


def test_the_manifest_holds_the_new_captions_and_the_same_pictures(work):
    counts = curated(BOTH, "out=vcb")
    assert (counts["records"], counts["kept"], counts["failed"]) == (12, 12, 0)
    source, manifest = SceneWorld("train", 12), Manifest("vcb/train.jsonl")
    assert len(manifest) == 12
    for index in range(12):
        old, new = source.record(index), manifest.record(index)
        assert (new.key, new.metadata) == (old.key, old.metadata)
        assert np.array_equal(manifest.image(index), source.image(index))
        assert [caption.source for caption in new.captions] == ["holisticcap/holistic_v1/scene_lm/scene_vision"]
        score = score_caption(
            Scene.from_dict(old.metadata["scene"]), new.captions[0].text, old.metadata["stated_facts"]
        )
        assert (score.precision, score.recall) == (1.0, 1.0)


def test_two_shards_are_one(work):
    curated(BOTH, "out=one", "vision_chat.wrong=0.3")
    for shard in (1, 0):  # in whatever order they finish
        assert not (work / "two/train.jsonl").exists()
        curated(BOTH, "out=two", "vision_chat.wrong=0.3", f"shard={shard}", "num_shards=2")
    for name in ("train.jsonl", "train.failures.jsonl"):
        assert (work / "one" / name).read_bytes() == (work / "two" / name).read_bytes()
    first, second = (list(read_manifest(work / f"two/train-0000{i}-of-00002.jsonl")) for i in range(2))
    assert [record.key for record in first + second] == [f"train-{i}" for i in range(12)]
    reports = [json.loads((work / name / "train.report.json").read_text()) for name in ("one", "two")]
    assert reports[0]["counts"]["kept"] == reports[1]["counts"]["kept"] == 12


def test_captions_are_filtered_by_a_reward_in_shards_as_in_one(work):
    words = ["step=[score_filter]", "reward=[length]", "step.score_filter.best=1"]
    counts = curated(*words, "out=one")
    captions = [len(SceneWorld("train", 12).record(i).captions) for i in range(12)]
    kept, dropped = (counts[f"score_filter/{name}"] for name in ("kept", "dropped"))
    assert (kept, dropped) == (12, sum(captions) - 12)
    for shard in range(2):
        curated(*words, "out=two", f"shard={shard}", "num_shards=2")
    assert (work / "one/train.jsonl").read_bytes() == (work / "two/train.jsonl").read_bytes()
    record = Manifest("one/train.jsonl").record(0)
    assert len(record.captions) == len(record.metadata["score"]) == 1
    with pytest.raises(UsageError, match="cannot work on a shard"):
        quantile = ["step=[score_filter]", "reward=[length]", "step.score_filter.quantile=0.5"]
        curated(*quantile, "out=three", "shard=0", "num_shards=2")
    with pytest.raises(InstantiationException, match="expected a scorer to choose captions by, got none"):
        curated("step=[score_filter]", "step.score_filter.best=1", "out=four")


def test_a_second_run_asks_nothing_and_writes_the_same(work):
    log = work / "asked.txt"
    curated("out=vcb", lm={"log_file": str(log)})
    before, number = (work / "vcb/train.jsonl").read_bytes(), asked(log)
    counts = curated("out=vcb", lm={"log_file": str(log)})
    assert number == asked(log) > 0
    assert counts["blend_captions/text_cached"] == 12 and counts["blend_captions/text_asked"] == 0
    assert (work / "vcb/train.jsonl").read_bytes() == before


def test_failures_are_listed_and_skipped_and_asked_again(work):
    log = work / "asked.txt"
    bad = SceneWorld("train", 12).record(3).captions[0].text
    counts = curated("out=vcb", lm={"log_file": str(log), "bad": bad})
    failures = [json.loads(line) for line in (work / "vcb/train.failures.jsonl").read_text().splitlines()]
    failed = {row["key"] for row in failures}
    assert "train-3" in failed and {row["reason"] for row in failures} == {"it gave up"}
    kept = {record.key for record in read_manifest(work / "vcb/train.jsonl")}
    assert kept == {f"train-{i}" for i in range(12)} - failed
    assert counts["failed"] == len(failed)
    before = asked(log)
    assert curated("out=vcb", lm={"log_file": str(log)})["kept"] == 12
    assert asked(log) - before == len(failed)
    assert (work / "vcb/train.failures.jsonl").read_text() == ""


SCRIPT = """
import sys
from tests_curate_helper import curated
curated("out=vcb", "step.blend_captions.batch_size=2", lm={"log_file": "asked.txt", "delay_s": 0.3})
"""


@pytest.mark.integration
def test_a_killed_run_goes_on_and_loses_only_the_answers_in_flight(work):
    """Killed (SIGKILL) in the middle of six batches of two; the questions of one batch at most are asked twice."""
    (work / "tests_curate_helper.py").write_text(Path(__file__).read_text())
    log = work / "asked.txt"
    run_and_kill(SCRIPT, work, lambda: asked(log) >= 6)
    before = asked(log)
    assert 6 <= before < 12 and not (work / "vcb/train.jsonl").exists()
    counts = curated("out=vcb", "step.blend_captions.batch_size=2", lm={"log_file": str(log)})
    assert counts["kept"] == 12
    assert asked(log) <= 12 + 2
    curated("out=whole", lm={"log_file": str(work / "other.txt")})
    assert (work / "vcb/train.jsonl").read_bytes() == (work / "whole/train.jsonl").read_bytes()


def test_image_files_are_named_where_they_are(work):
    (work / "photos").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (4, 4), (9, 9, 9)).save(work / f"photos/{name}.png")
    rows = [{"image": f"{name}.png", "captions": ["a red circle", "a large circle"]} for name in ("a", "b")]
    (work / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [f"data.{split}.path=in.jsonl" for split in ("train", "val", "test")]
    config = compose_config(parse(["curate", "data=manifest", *words, "data.train.root=photos", "out=vcb"])).config
    assert run(config)["kept"] == 2
    manifest = Manifest("vcb/train.jsonl")
    assert manifest.record(0).image == str(work / "photos/a.png")
    assert [caption.text for caption in manifest.record(1).captions] == ["there is a large red circle."]
    assert manifest.image(0).shape == (4, 4, 3)
    assert not (work / "vcb/images").exists()


def test_without_steps_records_are_carried_over_as_they_are(work):
    curated("step=[]", "splits=[val]", "data.val.count=3", "out=plain")
    source, found = SceneWorld("val", 3), list(read_manifest(work / "plain/val.jsonl"))
    assert [record.captions for record in found] == [source.record(i).captions for i in range(3)]


def test_a_folder_of_other_work_is_not_mixed_with(work):
    curated("out=vcb")
    with pytest.raises(UsageError, match=r"other settings:\n  steps.blend_captions.keep: False -> True"):
        curated("out=vcb", "step.blend_captions.keep=true")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["shard=0"], "expected both shard and num_shards"),
        (["shard=2", "num_shards=2"], "expected shard from 0 to num_shards - 1"),
        (["splits=[predict]"], "no predict source"),
        (["step.blend_captions.text_lm=null"], "needs a language model"),
        (["step=[holistic_caption]"], r"source blendcap/.*: step=\[blend_captions,holistic_caption\]"),
        (["step=[blend_captions,judge_candidates]"], r"step=\[blend_captions,write_candidates,judge_candidates\]"),
        (["step=[holistic_caption,blend_captions]"], r"step=\[blend_captions,holistic_caption\]"),
    ],
)
def test_what_cannot_run_is_told(work, words, reason):
    with pytest.raises(UsageError, match=reason) as raised:
        try:
            curated("out=vcb", *words)
        except Exception as error:  # Hydra wraps what constructors raise
            raise error.__cause__ or error from None
    assert raised.value and not Path("vcb").exists()


def test_shards_are_ranks_where_a_launcher_started_several(work, monkeypatch):
    assert own_shard(None, None) == (0, 1)
    monkeypatch.setenv("SLURM_PROCID", "3")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    assert own_shard(None, None) == (3, 8)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert own_shard(None, None) == (1, 2)
    assert own_shard(5, 9) == (5, 9)


def test_aligns_filter_needs_sizes_and_an_unreadable_picture_is_reported_once(work):
    """The filter goes over the records twice, and so twice past each failure of the step before it."""
    (work / "photos").mkdir()
    for name, size in (("wide", (400, 300)), ("long", (900, 250)), ("torn", None)):
        if size is None:
            (work / f"photos/{name}.png").write_bytes(b"")
        else:
            Image.new("RGB", size).save(work / f"photos/{name}.png")
    rows = [{"image": f"{name}.png", "captions": ["a web text", "one"]} for name in ("wide", "torn", "long")]
    (work / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [f"data.{split}.path=in.jsonl" for split in ("train", "val", "test")]
    words = ["curate", "data=manifest", *words, "data.train.root=photos"]
    counts = run(compose_config(parse([*words, "step=[image_size,align_filter]", "out=clean"])).config)
    assert (counts["kept"], counts["failed"], counts["align_filter/aspect"], counts["align_filter/words"]) == (
        1,
        2,
        1,
        1,
    )
    (record,) = read_manifest(work / "clean/train.jsonl")
    assert record.metadata == {"width": 400, "height": 300} and [c.text for c in record.captions] == ["a web text"]
    lines = (work / "clean/train.failures.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["key"] for line in lines) == ["long.png", "torn.png"]
    with pytest.raises(UsageError, match=r"got width=None, height=None; fill them in first: step=\[image_size"):
        run(compose_config(parse([*words, "step=[align_filter]", "out=unmeasured"])).config)


def test_pictures_without_files_are_measured_by_their_pixels(work):
    class Wide(SceneWorld):
        def image(self, index):
            return np.zeros((3, 5 + index, 3), np.uint8)

    assert [picture_size(Wide("train", 2), index) for index in range(2)] == [(5, 3), (6, 3)]
    curated("step=[image_size]", "data.train.size=48", "out=sized")
    sizes = {(row.metadata["width"], row.metadata["height"]) for row in read_manifest(work / "sized/train.jsonl")}
    assert sizes == {(48, 48)}


def test_a_step_that_needs_all_records_refuses_shards(work):
    from capkit.tasks.curate import build_steps

    group = {"align": {"_target_": "capkit.curation.steps.align_filter.AlignFilter"}}
    assert list(build_steps(group, 1)) == ["align"]
    with pytest.raises(UsageError, match="num_shards=1"):
        build_steps(group, 2)


def test_memes_get_candidate_captions_from_tags_boxes_and_a_model_that_sees(work):
    words = ["data=scene_memes", "data.train.count=16", "data.train.size=32", "step=[locate_scene,meme_caption]"]
    counts = curated(*words, "vision_chat=scene", "out=first")
    assert (counts["records"], counts["kept"], counts["failed"]) == (16, 16, 0)
    manifest = Manifest("first/train.jsonl")
    old, wrote = ["informative", "generic"], "memecaption/meme_v1/scene_vision"
    for index in range(16):
        record = manifest.record(index)
        scene = Scene.from_dict(record.metadata["scene"])
        assert [(region.box, region.text) for region in record.regions] == [(o.box, o.shape) for o in scene.objects]
        assert sorted(record.metadata["candidates"][:2]) == sorted(old) and record.metadata["candidates"][2] == wrote
        score = score_caption(scene, record.captions[2].text, [])
        assert score.precision == 1.0 and scene.objects[0].color in record.captions[2].text
    again = ["data=curated_memes", "data.train.path=first/train.jsonl", "step=[meme_caption]", "vision_chat=scene"]
    config = compose_config(parse(["curate", *again, "vision_chat.wrong=1", "out=second"])).config
    run(config)
    second = Manifest("second/train.jsonl")
    assert all(second.record(i).metadata["candidates"][2:] == [wrote, wrote] for i in range(16))
    assert all(second.record(i).captions[2] != second.record(i).captions[3] for i in range(16))


def test_findings_of_experts_are_gathered_in_shards_as_in_one_and_idle_experts_are_refused(work):
    words = ["step=[gather_findings]", "expert=[scene_detector,scene_ocr]", "expert.scene_detector.wrong=0.2"]
    counts = curated(*words, "out=one")
    objects = sum(len(SceneWorld("train", 12).record(i).metadata["scene"]["objects"]) for i in range(12))
    assert counts["gather_findings/objects"] + counts["gather_findings/below_score"] // 3 == objects
    for shard in range(2):
        curated(*words, "out=two", f"shard={shard}", "num_shards=2")
    assert (work / "one/train.jsonl").read_bytes() == (work / "two/train.jsonl").read_bytes()
    found = Manifest("one/train.jsonl").record(0).metadata["findings"]
    assert found and all(set(item) == {"kind", "text", "box", "score", "expert"} for item in found)
    with pytest.raises(UsageError, match=r"expert=\[scene_ocr\]: expected a step that lets experts look"):
        curated("step=[blend_captions]", "expert=[scene_ocr]", "out=idle")


def test_experts_without_a_step_look(work):
    """`capkit curate data=stamps expert=[ocr,tagger]`: the default step would not ask them."""
    curated("expert=[scene_detector]", "out=one", "step.gather_findings.min_score=0.5")
    curated("step=[gather_findings]", "step.gather_findings.min_score=0.5", "expert=[scene_detector]", "out=two")
    assert (work / "one/train.jsonl").read_bytes() == (work / "two/train.jsonl").read_bytes()
    chosen = [compose_config(parse(["curate", *words])).config.step for words in ([], ["expert=[]"], ["expert=null"])]
    assert [list(step) for step in chosen] == [["blend_captions"]] * 3
    of_experiment = compose_config(parse(["curate", "experiment=fusecap_sceneworld", "expert=[scene_ocr]"])).config.step
    assert list(of_experiment) == ["gather_findings", "fuse_findings"]
