"""Scenes: reproducible, in one split each, without accidental overlap."""

import json
from itertools import combinations

import pytest

from capkit.errors import UsageError
from capkit.sceneworld.world.options import SHAPES, SPLITS, WorldOptions
from capkit.sceneworld.world.scene import Scene, SceneObject, make_scene, max_offset, scene_hash, split_of
from capkit.sceneworld.world.stream import Stream

DEFAULT = WorldOptions()
CROWDED = WorldOptions(shapes=SHAPES, max_objects=8, text_probability=0.5, sizes=("small", "medium", "large"))


def many(options: WorldOptions, split: str, count: int, seed: int = 0) -> list[Scene]:
    return [make_scene(options, seed, split, index) for index in range(count)]


def test_a_scene_is_a_function_of_seed_split_and_index() -> None:
    assert many(DEFAULT, "train", 20) == many(DEFAULT, "train", 20)
    assert make_scene(DEFAULT, 0, "train", 5) != make_scene(DEFAULT, 1, "train", 5)
    assert make_scene(DEFAULT, 0, "train", 5) != make_scene(DEFAULT, 0, "train", 6)


def test_the_generator_has_not_changed_since_caches_were_written() -> None:
    """Raise GENERATOR_VERSION in cache.py when this number has to change."""
    assert scene_hash(make_scene(CROWDED, 3, "test", 11)) == 18170271280200261385


def test_splits_share_no_scene_over_seeds() -> None:
    hashes = {split: {scene_hash(s) for seed in (0, 1) for s in many(DEFAULT, split, 100, seed)} for split in SPLITS}
    for a, b in combinations(SPLITS, 2):
        assert not hashes[a] & hashes[b], (a, b)


def test_a_scene_keeps_its_split_when_only_offsets_inside_cells_differ() -> None:
    item = SceneObject("circle", "red", "small", 0.5, 0.5)
    moved = SceneObject("circle", "red", "small", 0.5 + 3 / 64, 0.5 - 2 / 64)
    assert scene_hash(Scene((item,), "white")) == scene_hash(Scene((moved,), "white"))


def test_split_of_agrees_with_make_scene_and_takes_half_and_two_quarters() -> None:
    for split in SPLITS:
        assert all(split_of(scene) == split for scene in many(DEFAULT, split, 50))
    stream, counts = Stream("any"), dict.fromkeys(SPLITS, 0)
    for _ in range(1000):
        x, y = (stream.below(3) / 3 + 1 / 6 for _ in range(2))
        objects = tuple(
            SceneObject(stream.choice(SHAPES), "cyan", stream.choice(("small", "large")), x, y) for _ in range(3)
        )
        counts[split_of(Scene(objects, "white"))] += 1
    assert abs(counts["train"] / 1000 - 0.5) < 0.05 and abs(counts["val"] / 1000 - 0.25) < 0.05


def test_holdout_pairs_appear_in_the_holdout_split_only() -> None:
    pairs = DEFAULT.holdout_pairs
    for split in ("train", "val", "test"):
        assert not any((o.shape, o.color) in pairs for s in many(DEFAULT, split, 80) for o in s.objects)
    assert all(any((o.shape, o.color) in pairs for o in s.objects) for s in many(DEFAULT, "holdout", 50))
    seen = {(o.shape, o.color) for s in many(DEFAULT, "train", 400) for o in s.objects}
    assert len(seen) == len(DEFAULT.shapes) * len(DEFAULT.colors) - len(pairs)


def test_numbers_of_objects_cover_the_range_evenly() -> None:
    counts = [len(scene.objects) for scene in many(DEFAULT, "train", 500)]
    assert all(abs(counts.count(n) / 500 - 0.2) < 0.07 for n in range(1, 6))


@pytest.mark.parametrize("options", [DEFAULT, CROWDED])
def test_boxes_are_apart_unless_one_object_is_inside_another(options: WorldOptions) -> None:
    for scene in many(options, "train", 200):
        for (i, a), (j, b) in combinations(enumerate(scene.objects), 2):
            apart = a.box[2] < b.box[0] or b.box[2] < a.box[0] or a.box[3] < b.box[1] or b.box[3] < a.box[1]
            assert apart != (b.inside == i) and a.inside != j
        for box in scene.boxes():
            assert all(0 <= value <= 1 for value in box)


def test_objects_stand_column_by_column_and_columns_have_clear_gaps() -> None:
    for scene in many(DEFAULT, "train", 300):
        cells = [item.cell for item in scene.objects]
        assert cells == sorted(cells)
        for a, b in combinations(scene.objects, 2):
            distance = abs(a.x - b.x) * 64
            assert distance <= 8 + 1e-9 if a.cell // 3 == b.cell // 3 else distance >= 13.3


def test_an_object_inside_another_follows_it_in_another_colour() -> None:
    nested = [(s, i, o) for s in many(DEFAULT, "train", 300) for i, o in enumerate(s.objects) if o.inside is not None]
    assert len(nested) > 20
    for scene, index, item in nested:
        assert item.inside == index - 1
        outer = scene.objects[index - 1]
        assert outer.size == "large" and outer.shape in ("circle", "square") and item.size == "small"
        assert outer.color != item.color


def test_a_scene_survives_json() -> None:
    for scene in many(CROWDED, "train", 50):
        assert Scene.from_dict(json.loads(json.dumps(scene.to_dict()))) == scene


def test_drawn_words_have_a_cell_of_their_own() -> None:
    scenes = [s for s in many(CROWDED, "train", 100) if s.text is not None]
    assert 30 < len(scenes) < 70
    assert all(s.text is not None and s.text.cell not in {o.cell for o in s.objects} for s in scenes)


def test_large_objects_leave_less_room_to_stand_off_centre() -> None:
    assert [max_offset(size) for size in ("small", "medium", "large")] == [4, 2, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shapes": ["cirle"]}, "did you mean 'circle'"),
        ({"colors": []}, "at least one"),
        ({"sizes": ["large", "large"]}, "distinct names"),
        ({"max_objects": 9}, "max_objects"),
        ({"min_objects": 3, "max_objects": 2}, "min_objects=3"),
        ({"inside_probability": 1.5}, "inside_probability"),
        ({"sizes": ["small"]}, "inside_probability=0"),
        ({"text_probability": 0.5, "words": ["toolong"]}, "1 to 3"),
        ({"text_probability": 0.5, "words": []}, "words"),
        ({"holdout": [["circle"]]}, "pairs"),
        ({"holdout": [["circle", "mauve"]]}, "mauve"),
        ({"shapes": ["circle"], "colors": ["red"], "max_objects": 1, "holdout": [["circle", "red"]]}, "leaves no pair"),
    ],
)
def test_wrong_options_are_refused_with_the_way_out(arguments: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        WorldOptions(**arguments)


def test_an_unknown_split_and_a_world_without_scenes_are_refused() -> None:
    with pytest.raises(UsageError, match="did you mean 'train'"):
        make_scene(DEFAULT, 0, "trian", 0)
    with pytest.raises(UsageError, match="got none"):
        make_scene(WorldOptions(holdout=()), 0, "holdout", 0)
    few = {"shapes": ["circle"], "colors": ["red"], "sizes": ["small"], "max_objects": 1}
    tiny = WorldOptions(**few, backgrounds=["white"], inside_probability=0.0, holdout=[["star", "red"]])
    with pytest.raises(UsageError, match="too small"):
        make_scene(tiny, 0, "holdout", 0)


def test_a_stream_draws_evenly_and_never_twice_in_a_sample() -> None:
    stream = Stream("evenly", 1)
    draws = [stream.below(10) for _ in range(5000)]
    assert all(abs(draws.count(value) - 500) < 120 for value in range(10))
    assert sorted(stream.sample(range(9), 9)) == list(range(9))
    assert abs(sum(stream.chance(0.3) for _ in range(5000)) - 1500) < 150
    assert all(2.0 <= stream.uniform(2.0, 3.0) < 3 for _ in range(100))
