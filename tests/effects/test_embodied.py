"""One caption for all views of an object, and a captioner that learns it (Galliena et al. 2025, arXiv 2504.08531).

Six views of each object, with a caption each; in 30 % of the views, each by itself, its colour is wrong. Nothing else
is planted: with a second attribute of two values wrong as often, a plurality of six is right about both in .84 only.
What is right is read from the scene. By simulation a plurality of six is right in .966 of the objects.

A small captioner learns from the views' own captions, and then goes on, for as many steps, on the captions that views
agree on, with the triplet term. Its captions are sampled: a captioner that learned from colours that are wrong in 30 %
says wrong ones as often, while its greedy captions hold the colour that is right most often.

Controls: groups of views mixed over objects; one view; as many steps on the views' own captions; picked at random.
"""

import copy
from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest
import torch

from capkit.checkpoint.loading import load_dual_encoder
from capkit.curation.steps.agree_on_views import AgreeOnViews
from capkit.curation.steps.pick_views import PickViews
from capkit.data.curricula.shuffle import Shuffle
from capkit.data.curricula.views import Views
from capkit.data.datamodule import CaptionDataModule
from capkit.data.transforms import ImageTransform
from capkit.decoding.config import Decoding
from capkit.metrics.view_agreement import ViewAgreement
from capkit.models.captioners.encoder_decoder import EncoderDecoder
from capkit.models.encoders.image import SmallCNN
from capkit.objectives.cross_entropy import CrossEntropy
from capkit.objectives.view_triplet import ViewTriplet, view_features
from capkit.optim.optimizers import AdamW
from capkit.optim.schedules import Constant
from capkit.sceneworld.language.oracles import score_caption
from capkit.sceneworld.llm import SceneLM
from capkit.sceneworld.metrics.fact_agreement import FactAgreement
from capkit.sceneworld.sources.mistaken_views import MistakenViews
from capkit.sceneworld.sources.object_views import ObjectViews
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.scene import Scene
from capkit.testing.distributed import bare_trainer
from capkit.text.tokenizers import encode_captions, word_tokenizer
from capkit.train.mle_module import MLEModule
from capkit.types import CaptionBatch

pytestmark = [pytest.mark.effect, pytest.mark.xdist_group("embodied")]

RIGHT, MORE_AGREEMENT = 0.94, 0.1
NUM_OBJECTS, NUM_VIEWS, SIZE = 600, 6, 32
NUM_SEEN, NUM_TESTED = 150, 60  # objects whose views are drawn
START_STEPS, FURTHER_STEPS = 400, 150
TOGETHER, TRIPLET_STEPS = 0.05, 300
WORLD = WorldOptions(max_objects=1, inside_probability=0.0)


def is_right(record, text):
    return score_caption(Scene.from_dict(record.metadata["scene"]), text, []).precision == 1.0


def right_share(records):
    return fmean(is_right(record, record.captions[0].text) for record in records)


def views_of(split, count, seed, world):
    return ObjectViews(SceneWorld(split, count, SIZE, seed=seed, style="short", options=world), NUM_VIEWS, SIZE, seed)


class Seen:
    """The views, what was said of each, what they agree on, and the same of groups mixed over objects."""

    def __init__(self, folder, seed, world=WORLD, count=NUM_OBJECTS):
        self.source = MistakenViews(views_of("train", count, seed, world), world, 0.3, seed)
        self.folder, self.seed = folder, seed
        self.records = [self.source.record(index) for index in range(len(self.source))]
        self.agreed = self.agree(self.records)
        order = np.random.default_rng(seed).permutation(len(self.records))
        said = [self.records[place].captions for place in order]
        mixed = [replace(record, captions=captions) for record, captions in zip(self.records, said, strict=True)]
        self.agreed_mixed = self.agree(mixed)

    def agree(self, records):
        return list(AgreeOnViews(SceneLM(), cache_dir=str(self.folder / "answers"))(lambda: iter(records)))


@pytest.fixture(scope="session")
def seen(tmp_path_factory, seed):
    return Seen(tmp_path_factory.mktemp("embodied"), seed)


@pytest.fixture(scope="session")
def pictures(seen):
    return [seen.source.image(index) for index in range(NUM_SEEN * NUM_VIEWS)]


def test_views_agree_on_the_right_caption(seen, measured):
    consensus = right_share(seen.agreed)
    assert measured("consensus right", consensus, ">=", RIGHT) and len(seen.agreed) == len(seen.records)
    one = right_share(seen.records)
    assert not measured("consensus right", one, ">=", RIGHT, control="one view")
    assert abs(one - 0.7) < 0.03
    mixed = right_share(seen.agreed_mixed)
    assert not measured("consensus right", mixed, ">=", RIGHT, control="groups mixed over objects")


def liked_best(encoder, records, pictures):
    """The share of objects of which the view whose caption fits it best, by a dual encoder, has the right one."""
    texts = [record.captions[0].text for record in records[: len(pictures)]]
    with torch.no_grad():
        images = torch.cat(
            [encoder.encode_image(encoder.preprocess(pictures[i : i + 150])) for i in range(0, len(pictures), 150)]
        )
        cosines = (images * encoder.encode_text(texts)).sum(1)
    best = cosines.view(-1, NUM_VIEWS).argmax(1) + NUM_VIEWS * torch.arange(len(pictures) // NUM_VIEWS)
    return right_share([records[place] for place in best.tolist()])


def test_it_is_right_more_often_than_the_view_that_an_encoder_from_elsewhere_likes_best(
    seen, pictures, start, measured
):
    """One that learned from memes, as the paper's CLIP did not learn from such views.

    An encoder that knows this world's colours finds a right caption wherever there is one, in 99.9 % of the objects:
    no vote comes above that, and the paper's order does not hold.
    """
    consensus, mixed = (right_share(agreed[: len(pictures)]) for agreed in (seen.agreed, seen.agreed_mixed))
    liked = liked_best(load_dual_encoder(str(start("camu_encoder", 0))), seen.records, pictures)
    assert measured("consensus right, over the view liked best", consensus - liked, ">", 0)
    assert not measured(
        "consensus right, over the view liked best", mixed - liked, ">", 0, control="groups mixed over objects"
    )
    judge = load_dual_encoder(str(start("judge", 0)))
    by_judge = consensus - liked_best(judge, seen.records, pictures)
    assert measured("the same, over that of an encoder of this world", by_judge, "<", 0)


def test_objects_that_disagree_are_those_with_mistaken_views(seen, start, measured):
    """`pick_views`: the share of mistaken views among the 30 % of objects that are picked, over that of all."""
    encoder = load_dual_encoder(str(start("judge", 0)))
    over = {}
    for by in ("disagreement", "random"):
        step = PickViews(encoder, 0.3, by, seen.seed, str(seen.folder / "picked"))
        picked = list(step(lambda: iter(seen.records)))
        assert len(picked) == int(0.3 * NUM_OBJECTS) * NUM_VIEWS
        over[by] = right_share(seen.records) - right_share(picked)
    assert measured("mistaken views of picked objects, over all", over["disagreement"], ">", 0.05)
    assert not measured(
        "mistaken views of picked objects, over all", over["random"], ">", 0.05, control="picked at random"
    )


# training -------------------------------------------------------------------------------------------------------------

SMALL_WORLD = replace(WORLD, shapes=["circle", "cross"], sizes=["large"], backgrounds=["white", "black"])
SAMPLED = Decoding(method="sample", max_length=16)
TRANSFORM = ImageTransform(size=SIZE, mean=[0.5] * 3, std=[0.25] * 3)


class Drawn:
    """Records with their pictures in memory."""

    def __init__(self, records, pictures):
        self.records, self.pictures = records, pictures

    def __len__(self):
        return len(self.records)

    def record(self, index):
        return self.records[index]

    def image(self, index):
        return self.pictures[index]


class Training:
    """A captioner of the views' own captions, further trained in several ways, and what it says of unseen views."""

    def __init__(self, folder, seed):
        seen = Seen(folder, seed, SMALL_WORLD, NUM_SEEN)
        self.seed, self.pictures = seed, [seen.source.image(index) for index in range(len(seen.source))]
        self.captions = {"own": seen.records, "agreed": seen.agreed, "mixed": seen.agreed_mixed}
        texts = [record.captions[0].text for records in self.captions.values() for record in records]
        self.tokenizer = word_tokenizer(texts)
        test = views_of("test", NUM_TESTED, seed, SMALL_WORLD)
        self.tested = [test.record(index) for index in range(len(test))]
        pixels = np.stack([test.image(index) for index in range(len(test))])
        shown = TRANSFORM.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))
        self.batch = CaptionBatch([record.key for record in self.tested], shown)
        self.start = self.trained("own", CrossEntropy(), Shuffle, START_STEPS, 4e-3, self._new())

    def _new(self):
        torch.manual_seed(self.seed)
        encoder = SmallCNN(SIZE, channels=[16, 32], blocks=[0, 0], width=48)
        return EncoderDecoder(self.tokenizer, encoder, width=48, num_layers=1, num_heads=4, feedforward=96, dropout=0.0)

    def trained(self, captions, objective, curriculum, steps=FURTHER_STEPS, lr=2e-3, model=None):
        model = copy.deepcopy(self.start).train() if model is None else model
        data = CaptionDataModule(
            Drawn(self.captions[captions], self.pictures), transform=TRANSFORM, batch_size=32, max_length=16,
            seed=self.seed, curriculum=curriculum,
        )  # fmt: skip
        data.attach(lambda texts: encode_captions(self.tokenizer, texts, "", 16))
        data.set_steps(0, steps)
        module = MLEModule(model, objective, AdamW(lr=lr), Constant(), SAMPLED, seed=self.seed)
        bare_trainer(max_steps=steps).fit(module, data.train_dataloader())
        return model

    @torch.no_grad()
    def said(self, model, decoding=SAMPLED):
        """Agreement of captions of two views (F1 of their facts), and the share of captions that are right."""
        model.eval()
        texts = [text for (text,) in model.generate(model.encode(self.batch), decoding).texts]
        rows = [{"object": record.object} for record in self.tested]
        agreement = ViewAgreement(FactAgreement()).score(texts, [[]] * len(texts), rows)["view_agreement"]
        facts = [
            score_caption(Scene.from_dict(record.metadata["scene"]), text, record.metadata["stated_facts"])
            for record, text in zip(self.tested, texts, strict=True)
        ]
        return agreement, fmean(score.num_recalled for score in facts) / 2

    @torch.no_grad()
    def spread(self, model):
        """How far views of one object lie apart, as a share of how far pictures of different ones do."""
        features = view_features(model.eval().encode(self.batch))
        distances, objects = torch.cdist(features, features), torch.arange(len(features)) // NUM_VIEWS
        same = objects[:, None] == objects[None]
        apart = distances[same & ~torch.eye(len(same), dtype=torch.bool)].mean()
        return float(apart / distances[~same].mean())


@pytest.fixture(scope="session")
def training(tmp_path_factory, seed):
    return Training(tmp_path_factory.mktemp("embodied training"), seed)


@pytest.fixture(scope="session")
def embodied(training):
    return training.trained("agreed", ViewTriplet(CrossEntropy()), Views)


@pytest.mark.nightly  # four trainings take 38 CPU seconds
def test_after_training_captions_of_two_views_agree_more_and_are_right_as_often(training, embodied, measured):
    """The control of mixed groups agrees with itself, since it learns to say the same of all: its facts are worse."""
    before, facts_before = training.said(training.start)
    after, facts = training.said(embodied)
    assert measured("agreement of two views gained", after - before, ">=", MORE_AGREEMENT)
    assert measured("recall of facts gained", facts - facts_before, ">=", 0)
    own, _ = training.said(training.trained("own", CrossEntropy(), Shuffle))
    assert not measured(
        "agreement of two views gained", own - before, ">=", MORE_AGREEMENT, control="the views' own captions"
    )
    _, mixed = training.said(training.trained("mixed", ViewTriplet(CrossEntropy()), Views))
    assert not measured("recall of facts gained", mixed - facts_before, ">=", 0, control="groups mixed over objects")


@pytest.mark.nightly
def test_the_triplet_term_brings_views_of_one_object_together(training, measured):
    """And no facts are lost by it. Without the term, on the same captions, views lie farther apart."""
    alone, together = (
        training.trained("agreed", ViewTriplet(CrossEntropy(), weight=weight), Views, TRIPLET_STEPS)
        for weight in (0.0, 0.1)
    )
    gained = training.spread(alone) - training.spread(together)
    assert measured("spread of an object's views taken away by the triplet term", gained, ">", TOGETHER)
    start = training.spread(alone) - training.spread(training.start)
    assert not measured(
        "spread of an object's views taken away by the triplet term", start, ">", TOGETHER, control="before training"
    )
