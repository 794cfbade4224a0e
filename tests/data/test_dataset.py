import json

import numpy as np
import pytest
import torch
from PIL import Image

from capkit.data.dataset import CaptionDataset, Request
from capkit.data.features import FeatureStore, FeatureWriter
from capkit.data.images import BadImage
from capkit.data.records import Caption, Record
from capkit.data.transforms import ImageTransform
from capkit.utils.rng import stable_hash


class Source:
    """Image i is filled with i; captions "i one" ... are numbered; indices in `bad` cannot be read."""

    def __init__(self, size=20, bad=(), num_captions=5, records=None):
        self.size, self.bad, self.num_captions, self.records = size, set(bad), num_captions, records or {}

    def __len__(self):
        return self.size

    def record(self, index):
        if index in self.records:
            return self.records[index]
        captions = [Caption(f"caption {index} {k}") for k in range(self.num_captions)]
        return Record(f"k{index}", f"{index}.png", captions, metadata={"index": index})

    def image(self, index):
        if index in self.bad:
            raise BadImage("broken")
        return np.full((4, 4, 3), index, np.uint8)


def encode(captions):
    """Each character's code, padded: rows of a text can be read back."""
    longest = max(len(text) for row in captions for text in row)
    tokens = torch.zeros(len(captions), len(captions[0]), longest, dtype=torch.int64)
    for b, row in enumerate(captions):
        for k, text in enumerate(row):
            tokens[b, k, : len(text)] = torch.tensor([ord(c) for c in text])
    return tokens, tokens > 0, 1


def decode(tokens):
    return ["".join(chr(t) for t in row if t) for row in tokens.tolist()]


def dataset(source, split="train", captions_per_image=1, **changes):
    options = dict(transform=ImageTransform(4), features=None, encode=encode, seed=0, is_training=split == "train")
    return CaptionDataset(source, split, captions_per_image=captions_per_image, **(options | changes))


def test_batch_holds_pixels_tokens_references_and_metadata():
    batch, skipped, *_ = dataset(Source(), "val", captions_per_image=2)[Request(0, [3, 7])]
    assert skipped == [] and batch.keys == ["k3", "k7"] and batch.metadata == [{"index": 3}, {"index": 7}]
    wanted = torch.tensor([3.0, 7.0]).view(2, 1, 1, 1).expand(2, 3, 4, 4) / 127.5 - 1
    torch.testing.assert_close(batch.pixels, wanted)
    assert decode(batch.tokens[1]) == ["caption 7 0", "caption 7 1"] and batch.mask.all()
    assert batch.references[0] == [f"caption 3 {k}" for k in range(5)] and batch.bag is None


def test_training_captions_are_drawn_by_epoch_and_index_without_repeats():
    data = dataset(Source(), captions_per_image=3)
    chosen = {epoch: decode(data[Request(epoch, [4])].batch.tokens[0]) for epoch in range(20)}
    assert all(len(set(texts)) == 3 for texts in chosen.values())
    assert len({text for texts in chosen.values() for text in texts}) == 5
    again = dataset(Source(), captions_per_image=3)
    for epoch in (9, 0):
        assert decode(again[Request(epoch, [1, 4])].batch.tokens[1]) == chosen[epoch]


def test_image_with_too_few_captions_repeats_them():
    batch = dataset(Source(num_captions=2), "val", captions_per_image=5)[Request(0, [1])].batch
    assert decode(batch.tokens[0]) == [f"caption 1 {k}" for k in (0, 1, 0, 1, 0)]
    assert batch.references == [["caption 1 0", "caption 1 1"]]


def test_augmentation_does_not_depend_on_the_batch():
    source = Source()
    source.image = lambda index: np.random.default_rng(index).integers(0, 256, (9, 9, 3), np.uint8)
    data = dataset(source, transform=ImageTransform(4, augment="crop"))
    together = data[Request(2, [5, 6, 7])].batch.pixels
    alone = dataset(source, transform=ImageTransform(4, augment="crop"))[Request(2, [6])].batch.pixels
    assert torch.equal(together[1:2], alone)
    assert not torch.equal(alone, data[Request(3, [6])].batch.pixels)


def test_training_replaces_what_cannot_be_used_and_says_so():
    data = dataset(Source(bad=range(0, 20, 2)))
    batch, skipped, *_ = data[Request(0, list(range(20)))]
    assert len(batch) == 20 and all(int(key[1:]) % 2 for key in batch.keys)
    assert [batch.keys[i] for i in range(1, 20, 2)] == [f"k{i}" for i in range(1, 20, 2)]
    assert {row.key for row in skipped} == {f"k{i}" for i in range(0, 20, 2)}
    assert skipped[0] == type(skipped[0])("train", "k0", "0.png", "broken")
    assert len(set(batch.keys[::2])) > 2  # not all by one neighbour


def test_replacement_is_the_same_in_any_batch_and_changes_with_the_epoch():
    bad = range(0, 20, 2)
    together = dataset(Source(bad=bad))[Request(0, list(range(20)))].batch.keys
    for index in (0, 8, 14):
        assert dataset(Source(bad=bad))[Request(0, [index])].batch.keys == [together[index]]
    assert dataset(Source(bad=bad))[Request(1, list(range(20)))].batch.keys[::2] != together[::2]


def test_training_gives_up_when_nothing_can_be_used():
    batch, skipped, *_ = dataset(Source(bad=range(20)))[Request(0, [0])]
    assert batch is None and {row.reason for row in skipped} == {"broken"}


def test_evaluation_leaves_out_what_cannot_be_used():
    data = dataset(Source(bad=[1, 2]), "test")
    assert data[Request(0, [0, 1, 2, 3])].batch.keys == ["k0", "k3"]
    assert data[Request(0, [1, 2])].batch is None


def test_empty_captions_are_dropped_and_listed():
    captions = [Caption(""), Caption(" a \n dog\x00 "), Caption(" \t\ud83d")]
    data = dataset(Source(records={1: Record("k1", "1.png", captions)}), "val")
    batch, skipped, *_ = data[Request(0, [1])]
    assert batch.references == [["a dog"]]
    assert [(row.what, row.reason) for row in skipped] == [
        ("caption", "caption 0 is empty"),
        ("caption", "caption 2 is empty"),
    ]


def test_example_without_any_caption_is_skipped_except_in_predict():
    record = Record("k1", "1.png", [Caption(" ")])
    batch, skipped, *_ = dataset(Source(records={1: record}), "val")[Request(0, [0, 1])]
    assert batch.keys == ["k0"] and skipped[0].reason == "no caption, or only empty ones"
    batch = dataset(Source(records={1: record}), "predict")[Request(0, [0, 1])].batch
    assert batch.keys == ["k0", "k1"] and batch.tokens is None and batch.references[1] == []


def test_caption_of_10000_characters_is_kept_whole():
    text = " ".join(["word"] * 2000)
    batch = dataset(Source(records={1: Record("k1", "1.png", [Caption(text)])}), "val")[Request(0, [1])].batch
    assert batch.references == [[text]] and len(text) == 9999


def test_bags_become_ids():
    records = {i: Record(f"k{i}", None, [Caption("x")], bag="b1" if i < 2 else None) for i in range(3)}
    batch = dataset(Source(records=records))[Request(0, [0, 1, 2])].batch
    assert batch.bag.tolist() == [stable_hash("b1"), stable_hash("b1"), -1]
    assert batch.metadata == [{"bag": "b1"}, {"bag": "b1"}, {}], "where metrics look for it"


def test_features_take_the_place_of_pixels(tmp_path):
    values = np.arange(60, dtype=np.float32).reshape(20, 1, 3)
    with FeatureWriter(tmp_path / "f", [f"k{i}" for i in range(19)], (1, 3), "float32") as writer:
        writer.write([f"k{i}" for i in range(19)], values[:19])
    data = dataset(Source(bad=range(20)), "val", transform=None, features=FeatureStore(tmp_path / "f"))
    batch, skipped, *_ = data[Request(0, [4, 19, 2])]
    assert batch.pixels is None and batch.features.tolist() == values[[4, 2]].tolist()
    assert [row.key for row in skipped] == ["k19"] and "no cached features" in skipped[0].reason


def test_without_encode_there_are_no_tokens():
    batch = dataset(Source(), encode=None)[Request(0, [0])].batch
    assert batch.tokens is None and batch.mask is None and batch.references


@pytest.mark.parametrize("num_bad", [0, 3])
def test_skipped_rows_are_plain_json(num_bad):
    skipped = dataset(Source(bad=range(num_bad)), "val")[Request(0, list(range(5)))].skipped
    assert len(json.loads(json.dumps([row.__dict__ for row in skipped]))) == num_bad


def test_real_files_of_every_size_share_a_batch(tmp_path):
    from capkit.data.sources.folder import Folder

    for number, size in enumerate([(1, 1), (50, 20), (7, 90)]):
        Image.new("RGB", size, (number, 0, 0)).save(tmp_path / f"{number}.png")
    batch = dataset(Folder(str(tmp_path)), "predict", transform=ImageTransform(8))[Request(0, [0, 1, 2])].batch
    assert batch.pixels.shape == (3, 3, 8, 8)
