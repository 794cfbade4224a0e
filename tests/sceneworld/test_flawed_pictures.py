import numpy as np
import pytest

from capkit.sceneworld.language.oracles import score_caption
from capkit.sceneworld.sources.flawed_pictures import FlawedPictures, flawed
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.render import render
from capkit.sceneworld.world.scene import Scene, WorldOptions, make_scene
from capkit.sceneworld.world.stream import Stream

WORLD = WorldOptions(sizes=["large"], min_objects=2, max_objects=2, inside_probability=0.0)


@pytest.fixture
def scenes(tmp_path):
    return SceneWorld("train", 200, 32, style="short", options=WORLD, cache_dir=str(tmp_path))


def test_half_of_the_captions_are_false_of_their_pictures_and_the_others_true(scenes):
    source = FlawedPictures(scenes, WORLD)
    flaws = []
    for index in range(len(source)):
        record = source.record(index)
        (caption,) = record.captions
        shown = Scene.from_dict(record.metadata["scene"])
        assert caption in scenes.record(index).captions
        assert np.array_equal(source.image(index), render(shown, 32))
        is_true = score_caption(shown, caption.text, []).precision == 1
        assert is_true == (record.metadata["flaw"] == "")
        assert is_true == np.array_equal(source.image(index), scenes.image(index))
        flaws.append(record.metadata["flaw"])
    shares = [flaws.count(kind) / len(flaws) for kind in ("", "object", "color")]
    assert shares == pytest.approx([0.5, 0.25, 0.25], abs=0.1)


@pytest.mark.parametrize(("share", "number"), [(0.0, 0), (1.0, 200)])
def test_the_share_of_flaws_is_what_was_asked_for(scenes, share, number):
    source = FlawedPictures(scenes, WORLD, share)
    assert sum(source.record(index).metadata["flaw"] != "" for index in range(200)) == number


def test_draws_depend_on_the_seed_and_the_key_alone(scenes):
    one, again, other = (
        FlawedPictures(scenes, WORLD),
        FlawedPictures(scenes, WORLD),
        FlawedPictures(scenes, WORLD, seed=1),
    )
    records = [[source.record(index) for index in range(30)] for source in (one, again, other)]
    assert records[0] == records[1] != records[2]
    fingerprints = {source.fingerprint() for source in (one, other, FlawedPictures(scenes, WORLD, 0.4))}
    assert len(fingerprints) == 3 and again.fingerprint() == one.fingerprint()


def test_an_object_with_another_inside_is_not_lost_and_places_move_up():
    options = WorldOptions(min_objects=1, max_objects=4, inside_probability=1.0)
    lost = 0
    for index in range(120):
        scene = make_scene(options, 0, "train", index)
        kind, shown = flawed(scene, options.colors, Stream("test", index))
        if kind == "object":
            lost += 1
            assert len(shown.objects) == len(scene.objects) - 1
            inner = [(item, scene.objects[item.inside]) for item in scene.objects if item.inside is not None]
            for item in shown.objects:
                if item.inside is not None:
                    host = shown.objects[item.inside]
                    assert [host] == [
                        outer for old, outer in inner if (old.x, old.y, old.size) == (item.x, item.y, item.size)
                    ]
        else:
            assert sum(a != b for a, b in zip(scene.objects, shown.objects, strict=True)) == 1
    assert lost > 20
