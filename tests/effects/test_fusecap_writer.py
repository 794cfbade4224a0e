"""FuseCap's fuser, distilled (Rotstein et al. 2024, arXiv 2305.17718): a tiny writer learns from the exact fuser.

By the commands of experiment=fusecap_writer_sceneworld: the exact fuser's answers about training pictures are kept,
learned and exported; the writer fuses findings into captions of the same kind of test pictures, as `text_lm=hf` of the
same step. (Of captions in full, with words that no training prompt has, it stated half of the teacher's facts.) What is
true is read from the scenes. The numbers stand in docs/text_writer.md.
"""

import json

import pytest

from capkit.cli import main
from capkit.data.records import read_manifest
from capkit.sceneworld.language.facts import scene_facts
from capkit.sceneworld.language.oracles import score_caption
from capkit.sceneworld.world.scene import Scene

pytestmark = [pytest.mark.effect, pytest.mark.nightly, pytest.mark.xdist_group("fusecap_writer")]

ONE_CORE = ["trainer=cpu", "trainer.devices=1"]
COUNT, NUM_ASKED = 2000, 60
FUSE = ["curate", "experiment=fusecap_sceneworld", f"data.train.count={COUNT}", f"data.test.count={NUM_ASKED}"]
FUSE += ["step.fuse_findings.prompt=fuse_bare_v1", "step.fuse_findings.reply=text"]
FUSE += ["data.test.detail=${data.train.detail}"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of all runs: scenes are drawn once."""
    return tmp_path_factory.mktemp("fusecap_writer")


@pytest.fixture(scope="module")
def kept(folder, seed):
    """The answers of the exact fuser about training pictures."""
    return fused(folder, "taught", seed, "step.fuse_findings.cache_dir=answers").parent.parent / "answers"


def fused(folder, name, seed, *words):
    """The manifest of fused captions, of the training pictures unless the words name a split."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main([*FUSE, f"seed={seed}", f"data.train.seed={seed}", f"out={name}", *words]) == 0
    return folder / name / ("test.jsonl" if "splits=[test]" in words else "train.jsonl")


def trained(folder, kept, name, seed, *words):
    """The folder of an exported writer that has learned these answers."""
    run = [
        "experiment=fusecap_writer_sceneworld",
        f"data.train.path={kept}",
        f"seed={seed}",
        "eval_limit=1",
        "controls=0",
    ]
    run += ["data.train.val=.002", "data.train.test=.002", f"run_dir={folder / name}", *ONE_CORE]
    assert main([*run, *words]) == 0
    assert main(["export", f"ckpt={folder / name}", f"out={folder / name}-exported"]) == 0
    return folder / f"{name}-exported"


def asked(folder, name, seed, *words):
    """The records of test pictures with fused captions, and how many captions there were to fuse."""
    path = fused(folder, name, seed, "splits=[test]", f"step.fuse_findings.cache_dir={name}-answers", *words)
    counts = json.loads(path.with_name("test.report.json").read_text())["counts"]
    return list(read_manifest(path)), counts["fuse_findings/text_asked"] + counts["fuse_findings/text_cached"]


def by_writer(folder, name, seed, writer):
    return asked(folder, name, seed, "text_lm=hf", f"text_lm.name={writer}", "text_lm.max_tokens=64", "max_failed=1")


def recall(records, num_asked, shift=0):
    """Mean share of a scene's facts in the captions that were asked for, 0 without one.

    With `shift` those of the picture so many places on.
    """
    told = zip(records, [*records[shift:], *records[:shift]], strict=True)
    scenes = [
        (Scene.from_dict(own.metadata["scene"]), caption.text) for own, other in told for caption in other.captions
    ]
    return sum(score_caption(scene, text, scene_facts(scene)).recall for scene, text in scenes) / num_asked


def test_a_distilled_fuser_states_what_its_teacher_does_of_unseen_pictures(folder, kept, seed, measured):
    teacher = recall(*asked(folder, "by-teacher", seed))
    records, num_asked = by_writer(folder, "by-writer", seed, trained(folder, kept, "run", seed))
    assert measured("fact recall of the teacher", teacher, ">=", 0.3)
    assert measured("fact recall", recall(records, num_asked), ">=", 0.9 * teacher)
    assert not measured(
        "fact recall", recall(records, num_asked, 1), ">=", 0.9 * teacher, "the next picture's captions"
    )


def test_before_training_it_states_under_a_fifth(folder, kept, seed, measured):
    untrained = trained(folder, kept, "untrained", seed, "max_steps=1", "val_every=1", "optimizer.lr=1e-9")
    assert measured(
        "fact recall before training", recall(*by_writer(folder, "by-untrained", seed, untrained)), "<", 0.1
    )
