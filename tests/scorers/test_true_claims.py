"""c_p and c_r: the share and the number of a caption's true claims."""

import math

import pytest
import torch

from capkit.errors import UsageError
from capkit.judges.claims import Claim, Failed
from capkit.judges.verdicts import CONTRADICTED, ENTAILED, Evidence
from capkit.sceneworld.judges import SceneDecomposer, SceneVerifier
from capkit.sceneworld.language.captions import caption
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.render import render
from capkit.sceneworld.world.scene import make_scene
from capkit.scorers.true_claims import TrueClaims
from capkit.types import CaptionBatch, Samples


class Words:
    """Each word is a claim; "?" cannot be taken apart."""

    def about(self):
        return {"decomposer": "words"}

    def decompose(self, texts):
        for item, text in texts:
            yield item, Failed("no") if text == "?" else [Claim(word) for word in text.split()]


class Said:
    """A claim is true if the reference has the word; the second of two judgements finds all true. "!" fails."""

    by, num_samples = "text", 2

    def __init__(self):
        self.cases = []

    def about(self):
        return {"verifier": "said"}

    def verify(self, cases):
        for item, (claims, evidence) in cases:
            self.cases.append((item, evidence))
            strict = [ENTAILED if claim.text in evidence.text.split() else CONTRADICTED for claim in claims]
            failed = any(claim.text == "!" for claim in claims)
            yield item, [strict, Failed("away") if failed else [ENTAILED] * len(claims)]


@pytest.mark.parametrize(
    ("measure", "wanted"),
    [
        ("share", [(1 / 2 + 1) / 2, 1.0, math.nan, math.nan, math.nan]),
        ("number", [(1 + 2) / 2, 1.0, 0.0, math.nan, math.nan]),
    ],
)
def test_a_table_by_hand(measure, wanted):
    """Of two judgements the mean; a caption without claims has no share; what failed has no score."""
    batch = CaptionBatch(["x"], references=[["red ball", "unread"]])
    verifier = Said()
    found = TrueClaims(Words(), verifier, measure)(batch, Samples.from_texts([["red cube", "ball", "", "?", "ball !"]]))
    torch.testing.assert_close(found, torch.tensor([wanted]), equal_nan=True)
    assert {evidence for _, evidence in verifier.cases} == {Evidence("red ball")}


def test_equal_captions_of_a_picture_are_judged_once_and_those_of_others_by_theirs():
    verifier = Said()
    batch = CaptionBatch(["x", "y"], references=[["red"], ["blue"]])
    found = TrueClaims(Words(), verifier)(batch, Samples.from_texts([["red", "red"], ["red", "blue"]]))
    assert found.tolist() == [[1.0, 1.0], [0.5, 1.0]] and len(verifier.cases) == 3


def test_true_captions_of_scenes_are_true_and_those_of_others_are_not():
    scenes = [make_scene(WorldOptions(), 0, "test", index) for index in range(30)]
    pictures = {str(index): render(scene, 64) for index, scene in enumerate(scenes)}
    batch = CaptionBatch(list(pictures), metadata=[{"scene": scene.to_dict()} for scene in scenes])
    own = [caption(scene, "human").text for scene in scenes]
    scorer = TrueClaims(SceneDecomposer(), SceneVerifier("picture"))
    scorer.attach_images(pictures.__getitem__)
    found = scorer(
        batch, Samples.from_texts([[text, other] for text, other in zip(own, own[1:] + own[:1], strict=True)])
    )
    assert not scorer.needs_references
    assert (found[:, 0] == 1).all() and found[:, 1].mean() < 0.6  # the control


def test_what_is_missing_is_told():
    with pytest.raises(UsageError, match="needs a decomposer and a verifier"):
        TrueClaims(Words())
    scorer = TrueClaims(SceneDecomposer(), SceneVerifier("picture"))
    with pytest.raises(UsageError, match="expected a picture of 'x'"):
        scorer(CaptionBatch(["x"]), Samples.from_texts([["a red circle"]]))
