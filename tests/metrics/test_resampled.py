"""Metrics whose images can be resampled: their sums give the numbers that `score` gives, of any part of the images."""

import numpy as np
import pytest

from capkit.metrics.base import Resampled
from capkit.metrics.bootstrap import bootstrap_intervals
from capkit.metrics.coco.collected import Bleu, Cider, RougeL
from capkit.metrics.coco.document_frequencies import DocumentFrequencies
from capkit.metrics.diversity import Diversity
from capkit.metrics.scoring import resample_rows, score_rows
from capkit.metrics.text_retrieval import TextRetrieval
from capkit.sceneworld.language.captions import references
from capkit.sceneworld.metrics.fact_kinds import FactKinds
from capkit.sceneworld.metrics.facts import Facts
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.scene import make_scene
from capkit.scorers.as_metric import ScorerMetric
from capkit.scorers.text_rules import Length

NUM_IMAGES = 24


@pytest.fixture(scope="module")
def rows():
    """Captions of scenes, every third of another scene, one empty."""
    scenes = [make_scene(WorldOptions(), 0, "val", index) for index in range(NUM_IMAGES)]
    texts = [references(scene, "short") for scene in scenes]
    facts = Facts()  # facts that references state are those of the first one's words
    assert "stated_facts" in facts.needs
    rows = []
    for index, scene in enumerate(scenes):
        caption = texts[index - (index % 3 == 0)][0] if index else ""
        metadata = {"scene": scene.to_dict(), "stated_facts": ["shape:0=circle"], "key": str(index)}
        rows.append({"key": str(index), "caption": caption, "references": texts[index][1:], "metadata": metadata})
    return rows


@pytest.fixture(scope="module")
def frequencies(rows, tmp_path_factory):
    """CIDEr's, from a file: those of the images at hand would change with them."""
    path = tmp_path_factory.mktemp("frequencies") / "df.safetensors"
    DocumentFrequencies.from_references([row["references"] for row in rows]).save(path)
    return path


METRICS = {
    "bleu": lambda path: Bleu(),
    "rouge": lambda path: RougeL(),
    "cider": lambda path: Cider(document_frequencies=path),
    "facts": lambda path: Facts(),
    "fact_kinds": lambda path: FactKinds(("shape", "color", "background")),
    "diversity": lambda path: Diversity(),
    "scorer": lambda path: ScorerMetric(Length(4, 5, 4), "words"),
}


def columns(rows):
    return [row["caption"] for row in rows], [row["references"] for row in rows], [row["metadata"] for row in rows]


@pytest.mark.parametrize("name", METRICS)
def test_the_sums_of_some_images_are_the_score_of_these_images(name, rows, frequencies):
    metric = METRICS[name](frequencies)
    assert isinstance(metric, Resampled)
    images = metric.image_sums(*columns(rows))
    random = np.random.default_rng(0)
    for _ in range(4):
        drawn = random.integers(0, NUM_IMAGES, NUM_IMAGES)
        found = images.numbers(images.values[drawn].sum(0, keepdims=True))
        scored = metric.score(*columns([rows[i] for i in drawn]))
        assert found
        for key, value in found.items():
            assert value[0] == pytest.approx(scored[key], abs=1e-9, nan_ok=True), key


def test_intervals_are_of_the_rows_that_the_metric_scores(rows):
    """An image without references counts for the length and not for ROUGE-L."""
    more = [*rows, {"key": "x", "caption": "a " * 100, "references": [], "metadata": {"key": "x"}}]
    metrics = {"rouge": RougeL(), "words": ScorerMetric(Length(4, 5, 4), "words")}
    numbers, found = score_rows(more, metrics), resample_rows(more, metrics, None, 0.9, 3)
    assert found["rouge_l"] == bootstrap_intervals(RougeL().image_sums(*columns(rows)), 0.9, seed=3)["rouge_l"]
    assert found["rouge_l"][0] < numbers["rouge_l"] < found["rouge_l"][1]
    assert found == resample_rows(more, metrics, None, 0.9, 3)
    wide = resample_rows(more, metrics, None, 0.99, 3)["rouge_l"]
    assert wide[0] < found["rouge_l"][0] and found["rouge_l"][1] < wide[1]


def test_metrics_of_a_whole_set_have_no_interval(rows):
    assert not isinstance(TextRetrieval, Resampled)
    assert "vocabulary_size" not in resample_rows(rows, {"diversity": Diversity()}, None, 0.95, 0)
