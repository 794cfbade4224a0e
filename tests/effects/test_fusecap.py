"""FuseCap's captioner (Rotstein et al. 2024, arXiv 2305.17718): trained on fused captions, it says more that is true.

By the commands of the experiment captions of one object without its colour are fused with what experts find, one
finding of ten wrong. Captioners are trained alike on the captions as they were, on the fused ones, and, the control, on
captions fused with what was found in the next picture. What is true is read from the scenes of the test pictures.
"""

import json
from dataclasses import replace

import pytest

from capkit.cli import main
from capkit.curation.steps.fuse_findings import FuseFindings
from capkit.data.records import read_manifest, write_manifest
from capkit.sceneworld.language.facts import scene_facts
from capkit.sceneworld.language.oracles import score_caption
from capkit.sceneworld.llm import SceneLM
from capkit.sceneworld.world.scene import Scene

pytestmark = [pytest.mark.effect, pytest.mark.study, pytest.mark.xdist_group("fusecap")]

ONE_CORE = ["trainer=cpu", "trainer.devices=1"]
COUNT, STEPS = 1200, 500
COLORS = "data.train.options.colors=[red,green,blue,yellow]"
GAIN = 0.2


@pytest.fixture(scope="module")
def manifests(tmp_path_factory, seed):
    """The folder of val.jsonl, test.jsonl, and of train.jsonl as it was, fused, and fused with other findings."""
    folder = tmp_path_factory.mktemp("fusecap")
    words = ["curate", "experiment=fusecap_sceneworld", f"seed={seed}", f"data.train.seed={seed}", COLORS]
    words += [f"data.train.count={COUNT}", "data.val.count=20", "data.test.count=200"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        as_it_was = ["step=[]", "expert=[]", "splits=[train,val,test]"]
        assert main([*words, *as_it_was, f"out={folder / 'original'}"]) == 0
        assert main([*words, f"out={folder / 'fused'}"]) == 0
    originals = {record.key: record for record in read_manifest(folder / "original" / "train.jsonl")}
    found = [record.metadata["findings"] for record in read_manifest(folder / "fused" / "train.jsonl")]
    given = [originals[record.key] for record in read_manifest(folder / "fused" / "train.jsonl")]
    moved = [
        replace(record, metadata={**record.metadata, "findings": others})
        for record, others in zip(given, found[1:] + found[:1], strict=True)
    ]
    step = FuseFindings(SceneLM(), cache_dir=str(folder / "dealt" / "answers"))
    write_manifest(folder / "dealt" / "train.jsonl", step(lambda: moved))
    (folder / "dealt" / "images").symlink_to(folder / "original" / "images")  # paths are relative to the manifest
    return folder


@pytest.fixture(scope="module")
def told(manifests, run_once, seed):
    """By training captions: the recall of all facts of the test scenes, and the share of stated facts that hold."""
    found = {}
    for name in ("original", "fused", "dealt"):
        paths = [f"data.train.path={manifests / name / 'train.jsonl'}"]
        paths += [f"data.{split}.path={manifests / 'original' / f'{split}.jsonl'}" for split in ("val", "test")]
        settings = [f"max_steps={STEPS}", f"val_every={STEPS}", "controls=0", "metric=[facts]", f"seed={seed}"]
        settings += ["data.max_length=40", "decoding.max_length=40"]
        run = run_once(f"fusecap_{name}_{seed}", ["experiment=ndlb_mle_sceneworld", *paths, *settings, *ONE_CORE])
        said = {row["image_id"]: row["caption"] for row in json.loads((run / "predictions/test.json").read_text())}
        scores = []
        for record in read_manifest(manifests / "original" / "test.jsonl"):
            scene = Scene.from_dict(record.metadata["scene"])
            scores.append(score_caption(scene, said[record.key], scene_facts(scene)))
        found[name] = (
            sum(score.recall for score in scores) / len(scores),
            sum(score.num_correct for score in scores) / sum(score.num_facts for score in scores),
        )
    return found


def test_a_captioner_of_fused_captions_states_more_of_the_scene(told, measured):
    (before, _), (after, precision), (dealt, dealt_precision) = told.values()
    assert measured("fact recall, captions as they were", before, "<", 0.1)
    assert measured("gain in fact recall", after - before, ">=", GAIN)
    assert measured("fact precision above that of the control", precision - dealt_precision, ">", 0.2)
    assert not measured("gain in fact recall", dealt - before, ">=", GAIN, "findings of the next picture")
