from itertools import islice

import pytest

from capkit.data.sources.sentence_pairs import read_pairs
from capkit.errors import UsageError
from capkit.sceneworld.language.captions import caption
from capkit.sceneworld.language.similarity import caption_pairs, fact_similarity, pair_file
from capkit.sceneworld.world.scene import WorldOptions, make_scene


@pytest.mark.parametrize(
    ("first", "second", "similarity"),
    [
        ("a red circle", "a red circle", 1),
        ("a red circle", "a circle", 1 / 2),  # shape shared; colour stated once
        ("a red circle", "a blue circle", 1 / 3),  # shape shared; two colours
        ("a red circle", "a blue square", 0),
        ("a large red circle", "a small red circle", 2 / 4),
        ("a red circle and a blue square", "a blue square and a red circle", 1),
        # colours exchanged: two shapes shared of 2 + 4 facts
        ("a red circle and a blue square", "a blue circle and a red square", 2 / 6),
        # the relation is one fact more: shared 4 of 5
        ("a red circle left of a blue square", "a red circle and a blue square", 4 / 5),
        ("a red circle left of a blue square", "a blue square right of a red circle", 1),
        ("", "", 1),
    ],
)
def test_similarity_by_hand_both_ways(first, second, similarity):
    assert fact_similarity(first, second) == pytest.approx(similarity)
    assert fact_similarity(second, first) == pytest.approx(similarity)


def test_paraphrases_of_a_scene_say_the_same():
    for index in range(30):
        scene = make_scene(WorldOptions(), 0, "test", index)
        texts = [caption(scene, "human", variant).text for variant in range(5)]
        assert [fact_similarity(texts[0], text) for text in texts] == [1] * 5


@pytest.mark.unchecked
def test_pairs_reach_from_unrelated_to_equal_and_belong_to_their_index():
    pairs = list(caption_pairs("test", 200))
    similarities = [pair.similarity for pair in pairs]
    assert min(similarities) < 0.1 and similarities.count(1) > 30
    assert sum(0.2 < value < 0.9 for value in similarities) > 50
    assert all(pair.first != pair.second for pair in pairs)
    assert list(islice(caption_pairs("test", 1000), 200)) == pairs
    assert list(caption_pairs("test", 200, seed=1)) != pairs


def test_a_pair_file_is_written_once_and_read_by_the_evaluator(tmp_path):
    path = pair_file("val", 20, cache_dir=str(tmp_path))
    pairs = list(caption_pairs("val", 20))
    read = read_pairs(path)
    assert [(pair.first, pair.second) for pair in read] == [(pair.first, pair.second) for pair in pairs]
    assert [pair.score for pair in read] == pytest.approx([pair.similarity for pair in pairs], abs=1e-6)
    (tmp_path / path.split("/")[-1]).write_text("kept")
    assert pair_file("val", 20, cache_dir=str(tmp_path)) == path
    assert (tmp_path / path.split("/")[-1]).read_text() == "kept"
    assert pair_file("val", 20, cache_dir=str(tmp_path), options=WorldOptions(max_objects=2)) != path
    with pytest.raises(UsageError, match="count: expected an integer of at least 1"):
        pair_file("val", 0, cache_dir=str(tmp_path))
