"""The fact metric over a set of captions."""

import json

import pytest

from capkit.errors import UsageError
from capkit.sceneworld.language.captions import caption, references
from capkit.sceneworld.metrics.facts import Facts, fact_scores
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.scene import Scene, SceneObject, make_scene

HAND = Scene((SceneObject("circle", "blue", "large", 0.5, 0.5),), "white")


def row(scene: Scene) -> dict:
    return json.loads(json.dumps({"scene": scene.to_dict(), "stated_facts": list(caption(scene, "human").facts)}))


def test_means_over_captions_by_hand() -> None:
    # stated: circle, blue, large. first: all right. second: circle right, red wrong. third: nothing said, two odd words
    found = fact_scores(["a large blue circle", "a red circle", "hello world"], [row(HAND)] * 3)
    second_f1 = 2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3)
    assert found == pytest.approx(
        {
            "fact_precision": (1 + 1 / 2 + 0) / 3,
            "fact_recall": (1 + 1 / 3 + 0) / 3,
            "fact_f1": (1 + second_f1 + 0) / 3,
            "unparsed_words": 2 / 3,
        }
    )


def test_true_references_score_one_and_shuffled_ones_do_not() -> None:
    scenes = [make_scene(WorldOptions(), 0, "test", i) for i in range(60)]
    texts = [references(scene)[i % 5] for i, scene in enumerate(scenes)]
    rows = [row(scene) for scene in scenes]
    assert fact_scores(texts, rows) == {
        "fact_precision": 1.0, "fact_recall": 1.0, "fact_f1": 1.0, "unparsed_words": 0.0,
    }  # fmt: skip
    assert fact_scores(texts[1:] + texts[:1], rows)["fact_f1"] < 0.5


def test_the_metric_equals_the_function_whatever_the_batches() -> None:
    scenes = [make_scene(WorldOptions(), 0, "val", i) for i in range(7)]
    texts = [references(scene, "short")[0] for scene in scenes[1:] + scenes[:1]]
    rows = [row(scene) for scene in scenes]
    metric = Facts()
    for start in range(0, 7, 3):
        part = slice(start, start + 3)
        metric.update(texts[part], [[""] for _ in texts[part]], rows[part])
    assert metric.compute() == pytest.approx(fact_scores(texts, rows))


def test_metadata_of_other_data_is_refused() -> None:
    with pytest.raises(UsageError, match="SceneWorld"):
        fact_scores(["a circle"], [{}])
    with pytest.raises(UsageError, match="1 predictions and 0 dicts"):
        fact_scores(["a circle"], [])
