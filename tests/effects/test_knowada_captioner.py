"""KnowAda's captioner: trained on captions without the colours that cannot be seen, it makes fewer up.

Pictures of SceneWorld in gray, whose captions name the colours. The captions are adapted by the commands of the step to
a student that sees no colours; captioners are trained alike on the captions as they were, on the adapted ones, and, the
control, on captions that lost as many facts of each picture at random. What is right is read from the scenes of the
test pictures. A pair of one shape keeps its colours, since no question names one of the two without them.
"""

import json
from dataclasses import replace

import pytest

from capkit.cli import main
from capkit.data.records import read_manifest, write_manifest
from capkit.sceneworld.language.facts import scene_facts
from capkit.sceneworld.language.oracles import count_matches
from capkit.sceneworld.language.parser import ParsedCaption, parse
from capkit.sceneworld.language.writing import write_facts
from capkit.sceneworld.world.scene import Scene
from capkit.utils.rng import generator

pytestmark = [pytest.mark.effect, pytest.mark.study, pytest.mark.xdist_group("knowada")]

ONE_CORE = ["trainer=cpu", "trainer.devices=1"]
STEPS, COUNT = 300, 500
KEPT = 0.98  # of the facts before: all, but for the noise of training


@pytest.fixture(scope="module")
def manifests(tmp_path_factory, seed):
    """The folder of val.jsonl, test.jsonl, and of train.jsonl as it was, adapted, and with facts dropped at random."""
    folder = tmp_path_factory.mktemp("gray")
    counts = [f"data.train.source.count={COUNT}", "data.val.source.count=20", "data.test.source.count=200"]
    words = ["curate", "data=sceneworld_gray", *counts, f"seed={seed}", f"data.train.source.seed={seed}"]
    student = ["vision_chat.blind=[color]", "step=[adapt_to_student]", "step.adapt_to_student.threshold=7"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main([*words, "step=[]", "splits=[train,val,test]", f"out={folder / 'original'}"]) == 0
        assert main([*words, *student, f"out={folder / 'adapted'}"]) == 0
    (folder / "random").mkdir()
    adapted = list(read_manifest(folder / "adapted" / "train.jsonl"))
    originals = {record.key: record for record in read_manifest(folder / "original" / "train.jsonl")}
    write_manifest(
        folder / "random" / "train.jsonl", (at_random(originals[record.key], record, seed) for record in adapted)
    )
    (folder / "random" / "images").symlink_to(folder / "original" / "images")  # paths are relative to the manifest
    return folder


def at_random(original, adapted, seed):
    """The record as it was, each caption without as many facts as the adapted one lacks, drawn: shapes and colours."""
    dropped = adapted.metadata.get("unknown_questions", [[] for _ in adapted.captions])
    captions = []
    for place, (caption, unknown) in enumerate(zip(original.captions, dropped, strict=True)):
        mentions = parse(caption.text).mentions
        facts = [(mention, kind) for mention in mentions for kind in ("shape", "color")]
        for i in generator(seed, "control", original.key, place).permutation(len(facts))[: len(unknown)]:
            mention, kind = facts[i]
            if kind == "shape":
                mention.shape = None
            else:
                mention.attributes.clear()
        left = [mention for mention in mentions if mention.facts(0)]
        captions.append(replace(caption, text=write_facts(ParsedCaption(left))) if unknown else caption)
    return replace(original, captions=captions)


@pytest.fixture(scope="module")
def told(manifests, run_once, seed):
    """By training captions: wrong colours, and right facts that are no colour, per test picture."""
    found = {}
    for name in ("original", "adapted", "random"):
        paths = [f"data.train.path={manifests / name / 'train.jsonl'}"]
        paths += [f"data.{split}.path={manifests / 'original' / f'{split}.jsonl'}" for split in ("val", "test")]
        settings = [f"max_steps={STEPS}", f"val_every={STEPS}", "controls=0", "metric=[facts]", f"seed={seed}"]
        run = run_once(f"knowada_{name}_{seed}", ["experiment=ndlb_mle_sceneworld", *paths, *settings, *ONE_CORE])
        said = {row["image_id"]: row["caption"] for row in json.loads((run / "predictions/test.json").read_text())}
        counts = [
            counted(Scene.from_dict(record.metadata["scene"]), said[record.key])
            for record in read_manifest(manifests / "original" / "test.jsonl")
        ]
        found[name] = [sum(column) / len(counts) for column in zip(*counts, strict=True)]
    return found


def counted(scene, text):
    """Wrong colours and right other facts of a caption."""
    parsed, true = parse(text), frozenset(scene_facts(scene))
    colors = frozenset(fact for fact in true if fact.startswith("color:"))
    right, right_colors = count_matches(parsed, true, colors, len(scene.objects))
    return sum(fact.startswith("color:") for fact in parsed.facts) - right_colors, right - right_colors


def test_wrong_colours_are_halved_and_other_facts_stay(told, measured):
    (wrong, others), (adapted_wrong, adapted_others), (random_wrong, random_others) = told.values()
    assert measured("wrong colours a picture, captions as they were", wrong, ">", 0.3)
    assert measured("wrong colours, as a share of those before", adapted_wrong / wrong, "<=", 0.5)
    assert measured("other facts, as a share of those before", adapted_others / others, ">=", KEPT)
    # Fewer facts of any kind also mean fewer wrong colours; what is right about the rest goes with them.
    assert measured("wrong colours, with as many facts dropped at random", random_wrong / wrong, "<", 1)
    assert not measured(
        "other facts, as a share of those before", random_others / others, ">=", KEPT, "as many facts at random"
    )
