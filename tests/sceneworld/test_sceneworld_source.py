import pickle

import numpy as np
import pytest

from capkit.data.datamodule import CaptionDataModule
from capkit.data.transforms import ImageTransform
from capkit.errors import UsageError
from capkit.sceneworld.language.captions import references
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.render import render
from capkit.sceneworld.world.scene import Scene, WorldOptions, make_scene


def test_records_hold_the_scene_its_references_and_stated_facts(tmp_path):
    source = SceneWorld("val", 3, size=32, seed=5, cache_dir=str(tmp_path))
    scene = make_scene(WorldOptions(), 5, "val", 2)
    record = source.record(2)
    assert record.key == "val-2" and Scene.from_dict(record.metadata["scene"]) == scene
    assert [c.text for c in record.captions] == references(scene)
    assert record.metadata["stated_facts"] and all(isinstance(f, str) for f in record.metadata["stated_facts"])
    np.testing.assert_array_equal(source.image(2), render(scene, 32))


def test_nothing_is_generated_before_it_is_needed(tmp_path):
    source = SceneWorld("train", 1_000_000, cache_dir=str(tmp_path / "cache"))
    assert len(source) == 1_000_000 and source.record(999_999).key == "train-999999"
    assert source.image(999_999).shape == (64, 64, 3) and not (tmp_path / "cache").exists()


def test_a_scene_is_the_same_before_its_split_is_built_and_after(tmp_path):
    source = SceneWorld("val", 3, size=32, seed=5, style="noisy", cache_dir=str(tmp_path))
    before = source.record(2), source.image(2)
    source.prepare()
    assert source.record(2) == before[0]
    np.testing.assert_array_equal(source.image(2), before[1])


def test_prepared_split_is_read_again_also_after_pickling(tmp_path):
    source = SceneWorld("test", 2, cache_dir=str(tmp_path))
    source.prepare()
    (folder,) = tmp_path.iterdir()
    modified = folder.stat().st_mtime_ns
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again.image(1), source.image(1))
    assert [p.stat().st_mtime_ns for p in tmp_path.iterdir()] == [modified]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_are_normalised_pictures_with_scenes(tmp_path, num_workers):
    source = SceneWorld("test", 7, cache_dir=str(tmp_path))
    module = CaptionDataModule(
        test=source, transform=ImageTransform(64), eval_batch_size=4, num_workers=num_workers, max_skipped=0
    )
    first, last = module.test_dataloader()
    assert first.pixels.shape == (4, 3, 64, 64) and last.keys == ["test-4", "test-5", "test-6"]
    wanted = source.image(5).astype(np.float64).transpose(2, 0, 1) / 127.5 - 1
    np.testing.assert_allclose(last.pixels[1].numpy(), wanted, atol=1e-6)
    assert last.metadata[1]["scene"] == source.record(5).metadata["scene"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "valid"}, "did you mean 'val'"),
        ({"style": "humans"}, "did you mean 'human'"),
        ({"count": 0}, "count: expected an integer of at least 1"),
    ],
)
def test_wrong_argument_fails_in_the_constructor(options, message):
    with pytest.raises(UsageError, match=message):
        SceneWorld(**{"split": "val", "count": 3, **options})
