"""System 11: sentence embeddings from characters, learned from pictures alone, that know what sentences mean."""

import copy
import random

import pytest
import torch
from grid_pairs import Pairs, grid_features, scenes, train, two_towers
from jaxtyping import Float
from torch import Tensor, nn

from capkit.metrics.correlation import pearson
from capkit.metrics.retrieval import retrieval
from capkit.models.dual_encoders.ensemble import Ensemble
from capkit.models.dual_encoders.text_towers.char_gru import CharGRU
from capkit.objectives.contrastive.ranking_hinge import RankingHinge
from capkit.optim.schedules import CyclicCosine
from capkit.sceneworld.language.captions import caption
from capkit.sceneworld.language.similarity import caption_pairs, fact_similarity
from capkit.sceneworld.world.bags import look_alikes
from capkit.sceneworld.world.scene import WorldOptions

pytestmark = pytest.mark.effect

CYCLES, STEPS = 3, 900
# Three objects in each: how long a caption is says little about what it says.
THREE_OBJECTS = WorldOptions(min_objects=3, max_objects=3, inside_probability=0.0)
ScoredPair = tuple[str, str, float]


def _untrained(seed: int = 0):
    torch.manual_seed(seed)
    return two_towers(CharGRU(hidden=64, attention_hidden=64, max_length=160)).eval()


def _pairs(model, count: int, style: str) -> Pairs:
    known = scenes(WorldOptions(), "train", count)
    return Pairs(model, known, [[caption(scene, style, variant).text for variant in range(5)] for scene in known])


def test_after_150_steps_short_captions_and_pictures_find_each_other():
    model = _untrained()
    train(model, RankingHinge(margin=0.2), _pairs(model, 2000, "short"), 150, batch_size=64, lr=4e-3, seed=0)
    assert finds_pairs(_retrieval(model, 2, "short"))
    assert not finds_pairs(_retrieval(_untrained(), 2, "short"))


@pytest.fixture(scope="module")
def snapshots():
    """The model at the end of each learning-rate cycle."""
    model = _untrained()
    pairs = _pairs(model, 4000, "human")
    kept: list = []

    def keep(step: int) -> None:
        if (step + 1) % (STEPS // CYCLES) == 0:
            kept.append(copy.deepcopy(model).eval())

    schedule = CyclicCosine(CYCLES, end=1e-3)
    train(model, RankingHinge(margin=0.2), pairs, STEPS, batch_size=64, lr=2e-3, seed=0, schedule=schedule, after=keep)
    assert len(kept) == CYCLES
    return kept


def _retrieval(encoder, folds: int = 5, style: str = "human") -> dict[str, float]:
    """Mean over folds of 100 held-out images, each with one caption."""
    held_out = scenes(WorldOptions(), "test", 100 * folds)
    numbers = []
    for start in range(0, len(held_out), 100):
        fold = held_out[start : start + 100]
        texts = encoder.encode_text([caption(scene, style, i % 5).text for i, scene in enumerate(fold)])
        numbers.append(retrieval(encoder.encode_features(grid_features(fold)), texts, torch.arange(100)))
    return {name: sum(found[name] for found in numbers) / folds for name in numbers[0]}


def finds_pairs(numbers: dict[str, float]) -> bool:
    return all(numbers[f"{search}_r10"] > 0.6 and numbers[f"{search}_median_rank"] <= 5 for search in ("i2t", "t2i"))


@pytest.mark.nightly
def test_held_out_captions_and_pictures_find_each_other(snapshots):
    numbers, untrained = _retrieval(snapshots[-1]), _retrieval(_untrained())
    print(numbers, untrained)
    assert finds_pairs(numbers)
    for search in ("i2t", "t2i"):
        assert untrained[f"{search}_r10"] < 0.2
        assert untrained[f"{search}_median_rank"] > 25


def edited_pairs(count: int) -> list[ScoredPair]:
    """A caption of a scene, one of the same scene after 0 to 3 changes of an attribute, and the facts they share."""
    draw, found = random.Random(0), []
    for scene in scenes(THREE_OBJECTS, "test", count):
        other = scene
        for _ in range(draw.randrange(4)):
            other = look_alikes(other, 2, seed=draw.randrange(2**32), options=THREE_OBJECTS)[1]
        first, second = (caption(s, "human", draw.randrange(5)).text for s in (scene, other))
        found.append((first, second, fact_similarity(first, second)))
    return found


def _agreement(embed, pairs: list[ScoredPair]) -> float:
    """Pearson's correlation of cosine and shared facts."""
    first, second, scores = zip(*pairs, strict=True)
    cosines = nn.functional.cosine_similarity(embed(list(first)), embed(list(second)))
    return pearson(cosines.tolist(), list(scores))


def bag_of_characters(texts: list[str]) -> Float[Tensor, "M C"]:
    tokens, mask = CharGRU(hidden=1).tokenize(texts)
    return (nn.functional.one_hot(tokens, 101) * mask[..., None]).sum(1).float()


@pytest.mark.nightly
def test_cosines_agree_with_shared_facts_and_spelling_alone_does_not(snapshots):
    pairs = edited_pairs(1000)
    trained = _agreement(snapshots[-1].encode_text, pairs)
    untrained = [_agreement(_untrained(seed).encode_text, pairs) for seed in range(3)]
    characters = _agreement(bag_of_characters, pairs)
    print(f"trained {trained:.3f}, untrained {untrained}, characters {characters:.3f}")
    assert trained >= 0.6
    assert max(untrained) <= 0.3
    assert characters <= 0.3


@pytest.mark.nightly
def test_sentences_about_unrelated_scenes_are_told_apart_too(snapshots):
    """Where spelling alone says a part of it, meaning says more."""
    pairs = [(pair.first, pair.second, pair.similarity) for pair in caption_pairs("test", 1000)]
    trained = _agreement(snapshots[-1].encode_text, pairs)
    spelling = [_agreement(_untrained().encode_text, pairs), _agreement(bag_of_characters, pairs)]
    print(f"trained {trained:.3f}, untrained and characters {spelling}")
    assert trained >= 0.6
    assert max(spelling) <= trained - 0.15


@pytest.mark.nightly
def test_an_ensemble_of_snapshots_is_no_worse_than_the_best_of_them(snapshots):
    singles = [_retrieval(snapshot) for snapshot in snapshots]
    together = _retrieval(Ensemble(snapshots))
    print(singles, together)
    for search in ("i2t_r1", "t2i_r1"):
        assert together[search] >= max(single[search] for single in singles) - 0.01
