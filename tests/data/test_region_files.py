"""Region features of a file an image become one folder, whatever the number of processes and where one was killed."""

import numpy as np
import pytest

from capkit.data.features import FeatureStore
from capkit.data.region_files import BOXES, RegionWriting
from capkit.errors import UsageError

COUNTS = {"7": 3, "8": 1, "train/9": 5, "10": 2}
KEYS = list(COUNTS)
DRAWN = np.random.default_rng(0)
VALUES = {key: DRAWN.normal(size=(count, 4)).astype(np.float32) for key, count in COUNTS.items()}
PLACES = {key: DRAWN.uniform(0, 600, (count, 4)).astype(np.float32) for key, count in COUNTS.items()}


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "files"
    for key, values in VALUES.items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(folder / f"{key}.npz", feat=values, bbox=PLACES[key])
    return folder


def write(files, out, shards=(0,), num_shards=1, max_regions=100, keys=KEYS):
    missing = None
    for shard in shards:
        writing = RegionWriting(files, out, keys, max_regions)
        list(writing.write(writing.rows_of(shard, num_shards)))
        missing = writing.complete()
    return missing


def content(out):
    return {path.name: path.read_bytes() for path in out.iterdir()}


def stored(key, count=100):
    return VALUES[key][:count].astype(np.float16).astype(np.float32)


def test_regions_are_padded_with_a_mask(files, tmp_path):
    assert write(files, tmp_path / "out") == 0
    store = FeatureStore(tmp_path / "out")
    values, mask = store.padded(["train/9", "8", "7"])
    assert values.shape == (3, 5, 4) and values.dtype == np.float32 and store.shape == (5, 4)
    assert mask.tolist() == [[True] * 5, [True] + [False] * 4, [True] * 3 + [False] * 2]
    for row, key in enumerate(["train/9", "8", "7"]):
        np.testing.assert_array_equal(values[row][mask[row]], stored(key))
    assert not values[~mask].any()
    np.testing.assert_array_equal(np.load(tmp_path / "out" / BOXES), np.concatenate([PLACES[key] for key in KEYS]))
    with pytest.raises(UsageError, match="expected one number of vectors an image, got the regions"):
        store[["7"]]


def test_the_first_regions_are_taken(files, tmp_path):
    write(files, tmp_path / "out", max_regions=2)
    store = FeatureStore(tmp_path / "out")
    values, mask = store.padded(KEYS)
    assert mask.sum(1).tolist() == [2, 1, 2, 2] and store.about["max_regions"] == 2
    np.testing.assert_array_equal(values[2], stored("train/9", 2))


def test_shards_and_a_kill_write_the_same_folder(files, tmp_path):
    write(files, tmp_path / "whole")
    assert write(files, tmp_path / "parts", [2], 3) == 3
    assert not (tmp_path / "parts").exists()
    writing = RegionWriting(files, tmp_path / "parts", KEYS, 100)
    next(writing.write(writing.rows_of(0, 3)))  # killed before its second image, 10
    assert write(files, tmp_path / "parts", [1], 3) == 1
    assert write(files, tmp_path / "parts", [0], 3) == 0
    assert content(tmp_path / "parts") == content(tmp_path / "whole")
    assert not (tmp_path / "parts.building").exists()


def test_what_is_there_is_not_read_again(files, tmp_path):
    write(files, tmp_path / "out")
    assert RegionWriting(files, tmp_path / "out", KEYS, 100).is_complete()
    with pytest.raises(UsageError, match="max_regions is 100, wanted 36"):
        RegionWriting(files, tmp_path / "out", KEYS, 36).is_complete()
    np.save(files / "new.npy", VALUES["7"])
    with pytest.raises(UsageError, match=r"has no regions of 1 images, e\.g\. 'new'"):
        RegionWriting(files, tmp_path / "out", [*KEYS, "new"], 100).is_complete()


@pytest.mark.parametrize("file", ["features.npy", BOXES])
def test_regions_that_did_not_reach_the_disk_are_written_again(files, tmp_path, file):
    assert write(files, tmp_path / "out", [0], 2) == 2
    lost = np.lib.format.open_memmap(tmp_path / "out.building" / file, mode="r+")
    lost[0] = 0
    assert write(files, tmp_path / "out", [1], 2) == 1
    assert write(files, tmp_path / "out", [0], 2) == 0
    np.testing.assert_array_equal(FeatureStore(tmp_path / "out").padded(["7"])[0][0], stored("7"))
    np.testing.assert_array_equal(np.load(tmp_path / "out" / BOXES)[:3], PLACES["7"])


@pytest.mark.parametrize(
    ("name", "arrays", "problem"),
    [
        ("8.npz", {"feat": np.ones((2, 3))}, r"expected vectors of width 4, as in 7\.npz, got 3"),
        ("8.npz", {"feat": np.ones((0, 4))}, "expected at least one region, got none"),
        ("8.npz", {"feat": np.ones((2, 4)), "bbox": np.ones((1, 4))}, r"expected bbox of shape \(2, 4\), got \(1, 4\)"),
        ("8.npz", {"x": np.ones((2, 4))}, "expected an array 'feat', got x"),
        ("8.npz", {"feat": np.ones(4)}, r"expected numbers of shape \(regions, width\), got float64 of shape \(4,\)"),
        ("8.npz", {"feat": np.array([[np.nan] * 4])}, r"8\.npz: expected finite numbers, below 65,504, got others"),
        ("8.npz", {"feat": np.array([[1e6] * 4])}, r"8\.npz: expected finite numbers, below 65,504, got others"),
    ],
)
def test_files_that_are_no_regions_are_told(files, tmp_path, name, arrays, problem):
    np.savez(files / name, **arrays)
    with pytest.raises(UsageError, match=problem):
        write(files, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_broken_file_and_a_missing_one_are_told(files, tmp_path):
    (files / "8.npz").write_bytes(b"PK broken")
    with pytest.raises(UsageError, match=r"8\.npz: expected an array of numpy, got a file that cannot be read"):
        write(files, tmp_path / "out")
    (files / "8.npz").unlink()
    with pytest.raises(UsageError, match=r"of each of 4 images in .*, got none of 1: 8; add them, or leave"):
        write(files, tmp_path / "out")
