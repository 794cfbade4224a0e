import json

import numpy as np
import pytest

from capkit.data.datamodule import CaptionDataModule
from capkit.data.features import FeatureStore, FeatureWriter
from capkit.data.sources.manifest import Manifest
from capkit.data.transforms import ImageTransform
from capkit.errors import UsageError

VALUES = np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)
KEYS = [f"k{i}" for i in range(5)]


def write(folder, dtype="float32", keys=KEYS, rows=5):
    with FeatureWriter(folder, keys, (2, 3), dtype, about={"encoder": "tiny"}) as writer:
        writer.write(keys[3:rows], VALUES[3:rows])
        writer.write(keys[:3], VALUES[:3])


def test_features_come_back_by_key(tmp_path):
    write(tmp_path / "f")
    store = FeatureStore(tmp_path / "f")
    np.testing.assert_array_equal(store[["k4", "k0", "k4"]], VALUES[[4, 0, 4]])
    assert len(store) == 5 and store.shape == (2, 3) and "k1" in store and "k9" not in store
    assert store.about == {"encoder": "tiny"}


def test_features_of_another_encoder_are_refused(tmp_path):
    write(tmp_path / "f")
    store = FeatureStore(tmp_path / "f")
    store.check(encoder="tiny")
    with pytest.raises(UsageError, match="encoder is 'tiny', wanted 'large'; use the encoder they were made with"):
        store.check(encoder="large")
    with pytest.raises(UsageError, match=r"weights is '\(absent\)', wanted 'abc'"):
        store.check(encoder="tiny", weights="abc")


def test_half_precision_on_disk_is_float32_in_hand(tmp_path):
    write(tmp_path / "f", "float16")
    values = FeatureStore(tmp_path / "f")[KEYS]
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, VALUES.astype(np.float16).astype(np.float32))


def test_unfinished_writing_leaves_what_was_there(tmp_path):
    write(tmp_path / "f")
    with pytest.raises(UsageError, match=r"features of 1 images are missing, e\.g\. 'k4'"):
        write(tmp_path / "f", rows=4)
    with pytest.raises(KeyError), FeatureWriter(tmp_path / "f", KEYS, (2, 3)) as writer:
        writer.write(["none"], VALUES[:1])
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    np.testing.assert_array_equal(FeatureStore(tmp_path / "f")[["k4"]], VALUES[4:])


def test_finished_writing_replaces_what_was_there(tmp_path):
    write(tmp_path / "f")
    write(tmp_path / "f", keys=["a", "b", "c", "d", "e"])
    assert "a" in FeatureStore(tmp_path / "f") and "k0" not in FeatureStore(tmp_path / "f")


def test_overflow_of_half_precision_is_refused(tmp_path):
    with pytest.raises(UsageError, match="float32"), FeatureWriter(tmp_path / "f", ["a"], (1, 1)) as writer:
        writer.write(["a"], np.full((1, 1, 1), 1e6, np.float32))


def test_missing_and_damaged_caches_are_usage_errors(tmp_path):
    with pytest.raises(UsageError, match="no feature cache"):
        FeatureStore(tmp_path / "none")
    write(tmp_path / "f")
    np.save(tmp_path / "f" / "features.npy", VALUES[:4])
    with pytest.raises(UsageError, match="4 features for 5 keys"):
        FeatureStore(tmp_path / "f")
    np.save(tmp_path / "f" / "features.npy", VALUES[:, 0])
    with pytest.raises(UsageError, match=r"got shape \(5, 3\)"):
        FeatureStore(tmp_path / "f")
    with pytest.raises(UsageError, match="no key twice"):
        FeatureWriter(tmp_path / "g", ["a", "a"], (1, 1))


@pytest.mark.parametrize("file", ["keys.json", "features.npy"])
@pytest.mark.parametrize("content", [b"", b"garbage \xff\xfe", b"[1, 2]", "a half", "its end lost"])
def test_a_damaged_file_is_named_with_the_command_that_makes_it_anew(tmp_path, file, content):
    write(tmp_path / "f")
    whole = (tmp_path / "f" / file).read_bytes()
    (tmp_path / "f" / file).write_bytes(
        {"a half": whole[: len(whole) // 2], "its end lost": whole[:-1]}.get(content, content)
    )
    with pytest.raises(UsageError, match=f"f/{file} is damaged: .*make the features again with `capkit prepare`"):
        FeatureStore(tmp_path / "f")


def test_vectors_of_different_number_come_back_with_their_mask(tmp_path):
    vectors = np.arange(12, dtype=np.float32).reshape(6, 2)
    with FeatureWriter(tmp_path / "f", ["a", "b", "c"], (0, 2), "float32", counts=[1, 3, 2]) as writer:
        writer.write(["c", "a"], vectors[:3])
        writer.write(["b"], vectors[3:])
    values, mask = FeatureStore(tmp_path / "f").padded(["b", "c", "a"])
    assert mask is not None and mask.sum(1).tolist() == [3, 2, 1]
    np.testing.assert_array_equal(values[mask], np.concatenate([vectors[3:], vectors[:2], vectors[2:3]]))


def regions(folder, width, **counts):
    """A folder of region features, so many of each image, drawn by its width."""
    with FeatureWriter(folder, list(counts), (0, width), "float32", counts=list(counts.values())) as writer:
        drawn = np.random.default_rng(width).normal(size=(sum(counts.values()), width))
        writer.write(list(counts), drawn.astype(np.float32))
    return str(folder)


def test_attributes_of_the_same_regions_come_beside_them(tmp_path):
    rows = [json.dumps({"key": key, "captions": ["a dog"]}) for key in "abc"]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows) + "\n")
    features = regions(tmp_path / "f", 3, a=1, b=3, c=2)
    others = regions(tmp_path / "g", 2, c=2, a=1, b=3)  # in another order
    data = CaptionDataModule(test=Manifest(str(tmp_path / "rows.jsonl")), features=features, attribute_features=others)
    (batch,) = data.test_dataloader()
    assert batch.keys == ["a", "b", "c"] and batch.features_mask.sum(1).tolist() == [1, 3, 2]
    values, mask = FeatureStore(others).padded(batch.keys)
    np.testing.assert_array_equal(mask, batch.features_mask)
    np.testing.assert_array_equal(values, batch.attribute_features)
    assert batch[1:2].attribute_features.tolist() == values[1:2].tolist() and (values[0, 1:] == 0).all()


def test_attributes_of_other_regions_or_of_none_are_refused(tmp_path):
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"key": "{key}", "captions": ["a dog"]}}\n' for key in "ab"))
    source, features = Manifest(str(tmp_path / "rows.jsonl")), regions(tmp_path / "f", 3, a=1, b=3)
    with pytest.raises(UsageError, match=r"of the regions that .*f has, 3 of 'b', got 2 in .*g; make both"):
        CaptionDataModule(test=source, features=features, attribute_features=regions(tmp_path / "g", 2, a=1, b=2))
    with pytest.raises(UsageError, match=r"expected data\.features too, of the same regions, got null"):
        CaptionDataModule(test=source, transform=ImageTransform(8), attribute_features=features)
    lacking = regions(tmp_path / "h", 2, a=1)
    data = CaptionDataModule(
        test=source, features=features, attribute_features=lacking, max_skipped=1, eval_batch_size=2
    )
    data.attach(run_dir=tmp_path)
    (batch,) = data.test_dataloader()
    assert batch.keys == ["a"]
    assert f"no cached features in {lacking}" in (tmp_path / "skipped.jsonl").read_text()
