"""BLEU, repetition, bad endings, length and facts as rewards: hand-worked, and equal to the metrics of one name."""

import math

import pytest
import torch

from capkit.errors import UsageError
from capkit.metrics.coco.bleu import bleu_scores
from capkit.metrics.diversity import Diversity
from capkit.sceneworld.language.captions import caption, reference_captions
from capkit.sceneworld.metrics.facts import fact_scores
from capkit.sceneworld.scorers import Facts
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.scene import Scene, SceneObject, make_scene
from capkit.scorers.base import Scorer
from capkit.scorers.text_rules import BadEndings, Bleu, Length, Repetition
from capkit.types import CaptionBatch, Samples

TEXTS = [
    ["a man riding a", "A dog, a dog. A dog!"],
    ["", "two cats on the grass"],
    ["a red circle left of a square", "of"],
]
REFERENCES = [["a man rides a horse"], ["cats", "two cats sit on the grass ."], ["a red circle left of a blue square"]]
SCORERS = [Bleu(), Repetition(), BadEndings(), Length(4, 6, 2), Facts()]


def batch(references=REFERENCES, metadata=()):
    return CaptionBatch([str(i) for i in range(len(references))], references=references, metadata=list(metadata))


def scenes(count=4):
    made = [make_scene(WorldOptions(), 0, "train", i) for i in range(count)]
    metadata = [{"scene": s.to_dict(), "stated_facts": list(reference_captions(s)[0].facts)} for s in made]
    return made, batch([[item.text for item in reference_captions(s)] for s in made], metadata)


def test_bleu_by_hand():
    # 7 words, all of them in the reference, which has 8: 5 of 6 bigrams, 4 of 5 trigrams, 3 of 4 4-grams.
    score = Bleu()(batch(), Samples.from_texts(TEXTS))[2, 0]
    assert float(score) == pytest.approx((5 / 6 * 4 / 5 * 3 / 4) ** (1 / 4) * math.exp(1 - 8 / 7), abs=1e-6)


def test_bleu_is_the_metrics_number_of_each_image_alone():
    scores = Bleu()(batch(), Samples.from_texts(TEXTS))
    for row, references in enumerate(REFERENCES):
        for column in range(2):
            wanted = bleu_scores([TEXTS[row][column]], [references])[0, 3]
            assert float(scores[row, column]) == pytest.approx(wanted, abs=1e-6)


def test_bleu_of_a_copy_is_1_and_of_nothing_0():
    scores = Bleu()(batch(REFERENCES[:1]), Samples.from_texts([["A man rides a horse.", ""]]))
    assert scores.tolist() == [[pytest.approx(1, abs=1e-6), pytest.approx(0, abs=1e-4)]]


def test_bleu_without_references_is_refused():
    with pytest.raises(UsageError, match="at least one reference"):
        Bleu()(batch([["a"], []]), Samples.from_texts([["a"], ["b"]]))


def test_repetition_is_minus_the_share_of_ngrams_said_before():
    # "a dog a dog a dog": a-dog dog-a a-dog dog-a a-dog, 2 different of 5; of single words 2 of 6.
    assert Repetition()(batch(), Samples.from_texts(TEXTS))[0].tolist() == pytest.approx([0, -(1 - 2 / 5)])
    assert float(Repetition(1)(batch(), Samples.from_texts(TEXTS))[0, 1]) == pytest.approx(-(1 - 2 / 6))
    assert Repetition()(batch(), Samples.from_texts(TEXTS))[1, 0] == 0


def test_bad_endings_cost_1():
    assert BadEndings()(batch(), Samples.from_texts(TEXTS)).tolist() == [[-1, 0], [0, 0], [0, -1]]


def test_rewards_and_the_metric_of_a_set_of_captions_agree():
    samples = Samples.from_texts([[text] for image in TEXTS for text in image])
    texts = [image[0] for image in samples.texts]
    metric = Diversity().score(texts, [["x"]] * len(texts), [{} for _ in texts])
    several = batch([["x"]] * len(texts))
    assert float(-Repetition()(several, samples).mean()) == pytest.approx(metric["repetition"])
    assert float(-BadEndings()(several, samples).mean()) == pytest.approx(metric["bad_endings"])


def test_length_is_full_inside_its_range_and_falls_on_both_sides():
    texts = [" ".join(["dog"] * count) + "." for count in range(10)]
    scores = Length(4, 6, 2)(batch([["x"]]), Samples.from_texts([texts]))
    assert scores.tolist() == [[0, 0, 0, 0.5, 1, 1, 1, 0.5, 0, 0]]


def test_caprls_length_reward():
    # 2000, 2560 and 3072 tokens, and then the prompt's two and EOS, which do not count.
    lengths = torch.tensor([[2000, 2560, 3072]])
    mask = torch.arange(3080) < lengths[..., None] + 3
    samples = Samples([["x"] * 3], tokens=mask.long(), mask=mask, ended=torch.ones(1, 3, dtype=torch.bool))
    scores = Length(0, 2048, 1024, units="token")(CaptionBatch(["0"], prompt_length=2), samples)
    assert scores.tolist() == [[1, 0.5, 0]]


def test_eos_is_no_token_of_a_caption_and_a_cut_caption_has_none():
    mask = torch.ones(1, 2, 5, dtype=torch.bool)  # BOS and four tokens, the last of the second caption EOS
    samples = Samples([["x", "x"]], tokens=mask.long(), mask=mask, ended=torch.tensor([[False, True]]))
    assert Length(4, 4, 4, units="token")(CaptionBatch(["0"]), samples).tolist() == [[1, 0.75]]


def test_token_lengths_want_tokens():
    with pytest.raises(UsageError, match="units=word"):
        Length(0, 4, 4, units="token")(batch([["x"]]), Samples.from_texts([["x"]]))


def test_facts_by_hand():
    objects = (SceneObject("circle", "blue", "large", 1 / 6, 0.5), SceneObject("square", "red", "small", 5 / 6, 0.5))
    scene = Scene(objects, "white")
    metadata = [{"scene": scene.to_dict(), "stated_facts": list(caption(scene, "human").facts)}]  # 7 facts
    samples = Samples.from_texts([["a blue circle and a blue square", "hello", ""]])
    # circle, blue, square are true of the four facts; the other blue is not.
    precision, recall = 3 / 4, 3 / 7
    for measure, wanted in (("precision", precision), ("recall", recall), ("f1", 2 / (1 / precision + 1 / recall))):
        scores = Facts(measure)(batch([["x"]], metadata), samples)
        assert scores.tolist() == [[pytest.approx(wanted), 0, 0]]


def test_facts_are_the_metrics_numbers():
    made, ours = scenes()
    texts = [caption(made[(i + 1) % len(made)], "human", i).text for i in range(len(made))]
    metric = fact_scores(texts, ours.metadata)
    for measure in ("f1", "precision", "recall"):
        scores = Facts(measure)(ours, Samples.from_texts([[text] for text in texts]))
        assert float(scores.mean()) == pytest.approx(metric[f"fact_{measure}"], abs=1e-6)


def test_facts_need_sceneworld():
    for metadata in ([], [{"image_id": 1}]):
        with pytest.raises(UsageError, match="SceneWorld"):
            Facts()(batch([["a"]], metadata), Samples.from_texts([["a"]]))


@pytest.mark.parametrize("scorer", SCORERS, ids=lambda scorer: type(scorer).__name__)
def test_a_score_does_not_depend_on_what_stands_next_to_it(scorer):
    made, ours = scenes()
    texts = [[caption(scene, "human", v).text[:-v] for v in (1, 2)] for scene in made]
    together = scorer(ours, Samples.from_texts(texts))
    assert together.shape == (4, 2) and together.dtype == torch.float32
    for row in range(4):
        for column in range(2):
            alone = scorer(ours.select([row]), Samples.from_texts([[texts[row][column]]]))
            assert float(alone) == float(together[row, column])


@pytest.mark.parametrize("scorer", SCORERS, ids=lambda scorer: type(scorer).__name__)
def test_text_rewards_are_scorers_that_say_what_they_are_quoted_with(scorer):
    assert isinstance(scorer, Scorer) and scorer.provenance()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Repetition(0), "ngram: expected an integer of at least 1"),
        (lambda: Length(5, 4, 1), "shortest <= longest"),
        (lambda: Length(0, 4, 0), "fall_off: expected an integer of at least 1"),
        (lambda: Length(0, 4, 1, units="letter"), "units=word"),
        (lambda: Facts("accuracy"), "f1, precision, recall"),
    ],
)
def test_values_that_cannot_be_are_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()
