"""ScaleCap (Xing et al. 2025, arXiv 2506.19848): what a captioner writes from habit goes, what it sees stays.

The captioner of experiment=habit_mle_sceneworld names a cross wherever it names a circle, and has missed a share of its
pictures. Which sentences are invented, and which facts a caption states, is read from the scenes. Controls: the rating
by the picture of another scene misses both thresholds; a captioner of the same captions that never missed a picture
does not know what it would write without one. docs/scalecap.md has the numbers, and what its rating was worth even so.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch

from capkit.checkpoint.loading import load_captioner
from capkit.curation.steps.scale_caption import ScaleCaption
from capkit.decoding.config import Decoding
from capkit.models.captioners.picture_gains import picture_gains
from capkit.sceneworld.language.facts import scene_facts
from capkit.sceneworld.language.oracles import score_caption
from capkit.sceneworld.language.parser import parse
from capkit.sceneworld.language.tagging import SceneTagger
from capkit.sceneworld.llm import SceneLM, SceneVision
from capkit.sceneworld.sources.habitual import HabitualCaptions
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.scene import Scene
from capkit.text.tokenizers import encode_captions
from capkit.train.rated_captioner import RatedCaptioner

pytestmark = [pytest.mark.effect, pytest.mark.xdist_group("scalecap")]

OPTIONS = WorldOptions(  # of data=sceneworld_habit
    shapes=["circle", "square", "triangle", "cross"], sizes=["large"], backgrounds=["white", "black"],
    min_objects=4, max_objects=4, inside_probability=0.0,
)  # fmt: skip
COUNT, LONGEST = 500, 12
BUDGETS = (0, 1, 2, None)
GO, GO_TRUE = 0.5, 0.1
HABIT, NEAR = "circle. cross.", 0.1


@dataclass
class Scaled:
    """A scene with what was written of it, before and after."""

    scene: Scene
    before: str
    after: str

    def sentences(self, is_true: bool) -> set[str]:
        """The shapes that the description names, a sentence each, and that the scene has, or has not."""
        there = {item.shape for item in self.scene.objects}
        return {shape for shape in shapes(self.before) if (shape in there) == is_true}

    @property
    def recall(self) -> float:
        return score_caption(self.scene, self.after, scene_facts(self.scene)).recall


def shapes(text):
    parsed = parse(text)
    assert not parsed.unparsed
    return {mention.shape for mention in parsed.mentions}


class ByAnotherPicture(RatedCaptioner):
    """Its words are rated by the picture of the question before."""

    def _gains(self, context, tokens, mask):
        moved = replace(context, states=context.states.roll(1, 0))
        return picture_gains(self._captioner, moved, tokens, mask)


def scaled(describer, folder, num_objects=0):
    """What the step makes of the test scenes; each is in it."""
    source = SceneWorld("test", COUNT, 32, style="short", options=OPTIONS, cache_dir=str(folder / "scenes"))
    records = [source.record(index) for index in range(COUNT)]
    place, failures = {record.key: index for index, record in enumerate(records)}, []
    step = ScaleCaption(
        SceneLM(), SceneVision(), describer, SceneTagger(), num_objects=num_objects, cache_dir=str(folder / "answers")
    )
    step.attach_images(lambda key: source.image(place[key]))
    step.attach_failures(failures.append)
    after = list(step(lambda: records))
    assert not failures and len(after) == COUNT
    return [
        Scaled(Scene.from_dict(r.metadata["scene"]), r.metadata["scalecap"]["description"], r.captions[0].text)
        for r in after
    ]


def gone(rows, is_true):
    """Of the sentences that are true, or invented, the share that the caption does not have any more."""
    counts = [(len(said), len(said - shapes(row.after))) for row in rows for said in [row.sentences(is_true)]]
    num_said, num_gone = (sum(column) for column in zip(*counts, strict=True))
    assert num_said > 50
    return num_gone / num_said


@pytest.fixture(scope="module")
def describer(start, seed):
    return RatedCaptioner(str(start("habit", seed)), Decoding(max_length=LONGEST))


@pytest.fixture(scope="module")
def by_budget(describer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scalecap")
    return {budget: scaled(describer, folder, budget) for budget in BUDGETS}


def test_invented_sentences_go_and_true_ones_stay(by_budget, measured):
    rows = by_budget[0]
    assert measured("invented sentences that go", gone(rows, False), ">=", GO)
    assert measured("true sentences that go", gone(rows, True), "<=", GO_TRUE)


def test_the_picture_of_another_scene_does_not_tell_them_apart(start, seed, tmp_path, measured):
    rows = scaled(ByAnotherPicture(str(start("habit", seed)), Decoding(max_length=LONGEST)), tmp_path)
    control = "rated by another picture"
    assert not measured("invented sentences that go", gone(rows, False), ">=", GO, control)
    assert not measured("true sentences that go", gone(rows, True), "<=", GO_TRUE, control)


def test_what_it_would_write_without_a_picture_is_known_to_who_has_missed_some(start, seed, tmp_path, measured):
    """The shares of captions that begin with a circle, and of those that go on with a cross, as its texts have them."""
    scenes = SceneWorld("train", COUNT, 32, style="short", options=OPTIONS, cache_dir=str(tmp_path))
    source = HabitualCaptions(scenes)
    texts = [caption.text for index in range(COUNT) for caption in source.record(index).captions]
    circles = [text for text in texts if text.startswith("circle. ")]
    shares = [len(circles) / len(texts), sum(text.startswith(HABIT) for text in circles) / len(circles)]

    def error(name):
        said = without_picture(start(name, seed))
        return max(abs(one - share) for one, share in zip(said, shares, strict=True))

    assert measured("largest error of a share", error("habit"), "<=", NEAR)
    assert not measured("largest error of a share", error("habit_whole"), "<=", NEAR, "never missed a picture")


def without_picture(folder):
    """Its probabilities of "circle", and of "cross" behind "circle.", without a picture."""
    captioner, _ = load_captioner(str(folder))
    tokens, mask, _ = encode_captions(captioner.tokenizer, [[HABIT]], captioner.prompt, LONGEST)
    with torch.inference_mode():
        return captioner.logprobs(captioner.null_context(1, "cpu"), tokens, mask)[0, 0, [0, 2]].exp().tolist()


def test_the_more_is_asked_the_more_is_said(by_budget, measured):
    recalls = [sum(row.recall for row in rows) / COUNT for rows in by_budget.values()]
    gains = [more - fewer for fewer, more in pairwise(recalls)]
    assert measured("least gain in fact recall by more objects asked about", min(gains), ">=", 0.0)
    assert measured("fact recall of all objects above that of none", recalls[-1] - recalls[0], ">", 0.0)
