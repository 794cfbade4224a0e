import numpy as np
import pytest

from capkit.errors import UsageError
from capkit.evaluators.composed import Composed
from capkit.sceneworld.sources.recolored import RecoloredScenes
from capkit.sceneworld.world.scene import Scene, split_of

# Axes: red, blue, green, scene 1, scene 2. Three recolourings of scene 1; one picture of scene 2.
IMAGES = [[1.0, 0, 0, 2, 0], [0, 1.0, 0, 2, 0], [0, 0, 1.0, 2, 0], [0, 1.0, 0, 0, 2]]
TEXTS = {"red": [1.0, 0, 0, 0, 0], "blue": [0, 1.0, 0, 0, 0], "green": [0, 0, 1.0, 0, 0]}


def rows(*queries):
    return [("a", [], {"queries": list(queries)}), ("b", [], {}), ("c", [], {}), ("d", [], {})]


def test_words_choose_among_what_the_image_cannot_tell_apart(table, listed, data_of, tmp_path, rows_in):
    queries = [{"target": "b", "plus": "blue", "minus": "red"}, {"target": "c", "plus": "green", "minus": "red"}]
    numbers = Composed()(table(IMAGES, TEXTS), data_of(test=listed(rows(*queries))), tmp_path)
    assert numbers["composed_r1"] == 1
    assert numbers["composed_image_only_r1"] == pytest.approx(1 / 2)  # b and c are equally near
    # blue - red is as near to b as to d (1 / sqrt(10)); green - red finds c
    assert numbers["composed_text_only_r1"] == pytest.approx((1 / 2 + 1) / 2)
    assert rows_in(tmp_path / "composed.jsonl")[0] == {
        "key": "a",
        "target": "b",
        "plus": "blue",
        "minus": "red",
        "rank": 1.0,
        "image_only_rank": 1.5,
        "text_only_rank": 1.5,
    }


def test_minus_may_be_left_out(table, listed, data_of, tmp_path):
    numbers = Composed()(table(IMAGES, TEXTS), data_of(test=listed(rows({"target": "b", "plus": "blue"}))), tmp_path)
    assert numbers["composed_r1"] == 1


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        ([], "no image has queries"),
        ([{"target": "z", "plus": "blue"}], "to have target"),
        ([{"target": "a", "plus": "blue"}], "another image"),
        ([{"target": "b"}], "plus or minus"),
        ([{"target": "b", "plus": "blue"}, {"target": "b", "minus": "red"}], "in all queries or in none"),
    ],
)
def test_wrong_queries_are_named(table, listed, data_of, tmp_path, queries, message):
    with pytest.raises(UsageError, match=message):
        Composed()(table(IMAGES, TEXTS), data_of(test=listed(rows(*queries))), tmp_path)


def test_recoloured_scenes_differ_in_the_colour_that_the_query_says():
    source = RecoloredScenes(num_groups=10, group_size=3, size=32)
    assert len(source) == 30 and source.image(4).shape == (32, 32, 3)
    records = {source.record(i).key: source.record(i) for i in range(30)}
    scenes = {key: Scene.from_dict(record.metadata["scene"]) for key, record in records.items()}
    queries = [(key, query) for key, record in records.items() for query in record.metadata.get("queries", [])]
    assert len(queries) == 20
    for key, query in queries:
        before, after = set(scenes[key].objects), set(scenes[query["target"]].objects)
        (old,), (new,) = before - after, after - before
        assert query["minus"].split()[1:] == [old.color, old.shape]
        assert query["plus"].split()[1:] == [new.color, new.shape] and old.shape == new.shape
        assert records[key].bag == records[query["target"]].bag
    assert {split_of(scene) for scene in scenes.values()} == {"test"}
    np.testing.assert_array_equal(source.image(7), RecoloredScenes(num_groups=10, group_size=3, size=32).image(7))


def test_wrong_arguments_say_what_is_wanted():
    with pytest.raises(UsageError, match="weight"):
        Composed(weight=0.0)
    with pytest.raises(UsageError, match="did you mean 'test'"):
        RecoloredScenes(split="tset")
    with pytest.raises(UsageError, match="group_size: expected an integer of at least 2"):
        RecoloredScenes(group_size=1)
