"""Captions of regions: which are learned, with which box, and what becomes of the others; when pictures are flipped."""

from functools import partial

import numpy as np
import pytest
import torch
from test_dataset import Source, dataset, decode

from capkit.data.conditions.box import RegionBox
from capkit.data.conditions.length import CaptionLength
from capkit.data.datamodule import CaptionDataModule
from capkit.data.dataset import Request
from capkit.data.features import FeatureStore, FeatureWriter
from capkit.data.records import Caption, Record, Region
from capkit.data.targets import placed, targets_of
from capkit.data.transforms import ImageTransform
from capkit.errors import UsageError
from capkit.text.tokenizers import encode_captions, word_tokenizer
from capkit.train.captioner_module import rows_of
from capkit.types import Samples

WHOLE = (0.0, 0.0, 1.0, 1.0)


def regions(count, of=""):
    """Regions one beside the other, from left to right: "r0" is the first."""
    return [Region((k / count, 0.0, (k + 1) / count, 1.0), f"r{k}{of}") for k in range(count)]


class Boxed(Source):
    """Image i has `counts[i]` regions and a caption; its pixels are a ramp from black to white."""

    def __init__(self, counts, **options):
        super().__init__(size=len(counts), **options)
        self.counts = counts

    def record(self, index):
        return Record(f"k{index}", None, [Caption("whole")], regions(self.counts[index], f" of {index}"))

    def image(self, index):
        return np.tile(np.linspace(0, 255, 32, dtype=np.uint8)[None, :, None], (8, 1, 3))


def of_regions(counts, split="train", **options):
    return dataset(Boxed(counts), split, captions_of="regions", **options)


def texts(batch, row):
    return [text for text, real in zip(decode(batch.tokens[row]), batch.mask[row].any(-1), strict=True) if real]


def test_each_region_of_an_image_is_a_caption_and_all_share_the_image():
    batch = of_regions([2, 4], "val")[Request(0, [0, 1])].batch
    assert batch.pixels.shape[0] == 2 and batch.tokens.shape[:2] == (2, 4)
    assert texts(batch, 0) == ["r0 of 0", "r1 of 0"] and texts(batch, 1) == [f"r{k} of 1" for k in range(4)]
    assert batch.references == [["r0 of 0", "r1 of 0"], [f"r{k} of 1" for k in range(4)]]
    assert batch.regions[0][1] == {"number": 1, "box": [0.5, 0.0, 1.0, 1.0], "text": "r1 of 0"}


def test_what_an_image_has_not_is_masked_though_the_tokenizer_begins_and_ends_an_empty_text():
    encode = partial(encode_captions, word_tokenizer(["r0 r1 r2 r3 of 0 1"]), prompt="", max_length=8)
    batch = of_regions([2, 4], "val", encode=encode)[Request(0, [0, 1])].batch
    assert batch.mask.any(-1).tolist() == [[True, True, False, False], [True] * 4]
    assert (batch.mask.sum(-1)[1] == 5).all()  # BOS, three words, EOS


def test_training_takes_at_most_so_many_regions_drawn_by_key_and_evaluation_all():
    data = of_regions([20], regions_per_image=8)
    drawn = {epoch: texts(data[Request(epoch, [0])].batch, 0) for epoch in range(40)}
    assert all(len(set(names)) == 8 for names in drawn.values())
    assert len({name for names in drawn.values() for name in names}) == 20 and drawn[0] != drawn[1]
    again = of_regions([20, 3], regions_per_image=8)
    assert texts(again[Request(7, [1, 0])].batch, 1) == drawn[7], "whatever else is in the batch"
    assert len(texts(of_regions([20], "val")[Request(0, [0])].batch, 0)) == 20


def test_a_region_without_text_or_area_is_listed_and_an_image_without_any_is_skipped():
    source = Boxed([3, 1, 2])
    bad = [Region((0.5, 0.0, 0.5, 1.0), "thin"), Region(WHOLE, " \n"), Region(WHOLE, " two  words ")]
    source.record = lambda index: Record("k", None, [Caption("c")], bad if index == 0 else [bad[0]])
    batch, skipped, *_ = dataset(source, "val", captions_of="regions")[Request(0, [0, 1])]
    assert len(batch) == 1 and texts(batch, 0) == ["two words"] and batch.regions[0][0]["number"] == 2
    assert [(row.what, row.reason) for row in skipped] == [
        ("region", "region 0 has no area"),
        ("region", "region 1 has no text"),
        ("example", "no region with an area and a text"),
    ]


def cropped(count, epoch, **options):
    """Of a picture of 8 x 32 with `count` regions, what a random window of half of its width leaves."""
    transform = ImageTransform(4, resize="squash", crop_from=8, augment="crop")
    return of_regions([count], transform=transform, **options)[Request(epoch, [0])]


def test_what_a_crop_removes_is_dropped_and_counted_and_does_not_change_what_else_is_drawn():
    uncropped = of_regions([8], regions_per_image=8, transform=ImageTransform(4))
    removed = []
    for epoch in range(12):
        found = cropped(8, epoch, min_visible=0.5)
        order = texts(uncropped[Request(epoch, [0])].batch, 0)
        kept = texts(found.batch, 0)
        assert kept == [name for name in order if name in kept] and found.removed_regions == 8 - len(kept)
        # Pixels say which part of the ramp is seen: a region is kept if at least half of it is.
        transform = ImageTransform(4, resize="squash", crop_from=8, augment="crop")
        left = -transform.placement(8, 32, (0, epoch, 0)).right / 8
        visible = [max(0, min((k + 1) / 8, left + 0.5) - max(k / 8, left)) * 8 for k in range(8)]
        assert {name.split()[0] for name in kept} == {f"r{k}" for k in range(8) if visible[k] >= 0.5}
        removed.append(found.removed_regions)
    assert min(removed) > 0 and not found.skipped, "too many to list: another crop comes with each epoch"


def test_an_image_that_a_crop_leaves_without_regions_is_replaced_and_may_come_again():
    source = Boxed([1, 1])
    corner = Region((0.0, 0.0, 0.2, 0.2), "corner")
    source.record = lambda index: Record(f"k{index}", None, [], [Region(WHOLE, "all"), corner][1 - index :][:1])
    transform = ImageTransform(4, crop_from=8, augment="crop")
    data = dataset(source, captions_of="regions", transform=transform)
    batches = [data[Request(epoch, [0])] for epoch in range(40)]
    names = [texts(found.batch, 0)[0] for found in batches]
    assert set(names) == {"corner", "all"}, "seen in some epochs, replaced in others"
    replaced = next(found for found, name in zip(batches, names, strict=True) if name == "all")
    assert {row.what for row in replaced.skipped} == {"region"} and replaced.removed_regions >= 1
    bags = [data[Request(epoch, [0], [7])].batch.bag.item() for epoch in range(40)]
    assert bags == [7 if name == "corner" else -1 for name in names], "a replacement has no part in the bag"


def test_the_box_of_a_target_lies_where_the_model_sees_its_region():
    """The ramp tells columns apart: the mean of the pixels in the box is that of the region in the picture."""
    source = Boxed([4])
    for number in range(20):
        transform = ImageTransform(16, augment=["crop", "flip"])
        placement = transform.placement(8, 32, (0, number, 0))
        pixels = transform(source.image(0), (0, number, 0)).float()
        targets, _ = targets_of(source.record(0), "regions")
        for target in placed(targets, placement, min_visible=0.99):
            x0, _, x1, _ = (round(edge * 16) for edge in target.box)
            middle = (target.region.box[0] + target.region.box[2]) / 2
            assert abs(pixels[0, :, x0:x1].mean() / 255 - middle) < 0.08
        other = next(t for t in targets if t.number == 0), next(t for t in targets if t.number == 3)
        assert other[0].region.box != other[1].region.box


def test_conditions_are_those_of_the_chosen_regions_as_the_model_sees_them():
    """Under crop and flip, by the transform's own placement; where an image has fewer regions they are not given."""
    transform = ImageTransform(16, augment=["crop", "flip"])
    data = of_regions(
        [9, 2], transform=transform, regions_per_image=4, conditions={"box": RegionBox(), "length": CaptionLength()}
    )
    mirrored = set()
    for epoch in range(10):
        batch = data[Request(epoch, [0, 1])].batch
        assert batch.conditions["box"].shape == (2, batch.tokens.shape[1], 4)
        for row, key in enumerate(batch.keys):
            placement = transform.placement(8, 32, (0, epoch, int(key[1:])))
            mirrored.add(placement.mirrored)
            wanted = [placement.box(tuple(region["box"])) for region in batch.regions[row]]
            torch.testing.assert_close(batch.conditions["box"][row, : len(wanted)], torch.tensor(wanted))
            assert (batch.conditions["length"][row, : len(wanted)] == 3).all()  # "r0 of 1"
            assert all(value[row, len(wanted) :].isnan().all() for value in batch.conditions.values())
    assert mirrored == {False, True}


# flips ---------------------------------------------------------------------------------------------------------------


def flipped(record, source=None, epochs=40):
    """In how many of so many epochs the picture is mirrored, and the captions of those."""
    source = source or Boxed([1])
    source.record = lambda index: record
    data = dataset(source, transform=ImageTransform(8, augment="flip"))
    plain = dataset(source, transform=ImageTransform(8))[Request(0, [0])].batch.pixels
    batches = [data[Request(epoch, [0])].batch for epoch in range(epochs)]
    mirrored = [batch for batch in batches if not torch.equal(batch.pixels, plain)]
    assert all(torch.equal(batch.pixels, plain.flip(-1)) for batch in mirrored)
    return len(mirrored), {text for batch in mirrored for text in batch.references[0]}


@pytest.mark.parametrize(
    "text", ["a dog left of a cat", "Right: a dog", "a leftmost dog", "um cão à esquerda", "o gato da direita"]
)
def test_a_picture_whose_captions_say_left_or_right_is_never_mirrored(text):
    assert flipped(Record("k", None, [Caption("a dog"), Caption(text)]))[0] == 0
    assert flipped(Record("k", None, [Caption("a dog")], [Region(WHOLE, text)]))[0] == 0


@pytest.mark.parametrize("text", ["a dog", "a bright copyright of an upright dog"])
def test_other_pictures_are_mirrored_half_of_the_time(text):
    assert 8 <= flipped(Record("k", None, [Caption(text)]))[0] <= 32


def test_a_source_that_knows_the_mirror_image_gives_its_captions():
    class Mirrored(Boxed):
        def mirrored(self, record):
            if record.captions[0].text == "the letter b":
                return None
            return Record(record.key, None, [Caption(record.captions[0].text.replace("left", "RIGHT"))])

    count, said = flipped(Record("k", None, [Caption("left one")]), Mirrored([1]))
    assert count >= 8 and said == {"RIGHT one"}
    assert flipped(Record("k", None, [Caption("the letter b")]), Mirrored([1]))[0] == 0


# rows ---------------------------------------------------------------------------------------------------------------


def test_an_evaluation_has_one_row_for_each_region_with_its_own_caption():
    batch = of_regions([1, 3], "val")[Request(0, [0, 1])].batch
    written = Samples.from_texts([["a0", "beyond", "beyond"], ["b0", "b1", "b2"]])
    rows = rows_of(batch, written)
    assert [(row["key"], row["caption"], row["references"]) for row in rows] == [
        *(("k0#0", "a0", ["r0 of 0"]), ("k1#0", "b0", ["r0 of 1"])),
        *(("k1#1", "b1", ["r1 of 1"]), ("k1#2", "b2", ["r2 of 1"])),
    ]
    assert rows[2]["metadata"]["region"] == {
        "image": "k1", "number": 1, "box": [1 / 3, 0.0, 2 / 3, 1.0], "text": "r1 of 1",
    }  # fmt: skip
    one_each = rows_of(batch, Samples.from_texts([["a"], ["b"]]))
    assert [row["caption"] for row in one_each] == ["a", "b", "b", "b"], "a captioner without conditions of regions"


# the data module -----------------------------------------------------------------------------------------------------


def module(**options):
    settings = {"transform": ImageTransform(4), "captions_of": "regions", "batch_size": 2}
    return CaptionDataModule(train=Boxed([3, 2]), val=Boxed([3, 2]), **(settings | options))


def test_the_vocabulary_is_that_of_the_regions():
    assert list(module().captions("train")) == ["r0 of 0", "r1 of 0", "r2 of 0", "r0 of 1", "r1 of 1"]
    assert list(module(captions_of="images").captions("train")) == ["whole", "whole"]


def test_removed_regions_are_counted_over_the_batches_of_a_loader():
    # Middle half of width and height: half of the middle one of three regions, an eighth of the others; a quarter of
    # each of two.
    data = module(transform=ImageTransform(4, crop_from=8), min_visible=0.2)
    batches = list(data.eval_dataloader("val"))
    assert [len(row) for batch in batches for row in batch.regions] == [1, 2] and data.removed_regions("val") == 2


def test_the_picture_of_a_regions_row_is_that_of_its_image():
    data = module()
    assert np.array_equal(data.image_reader("val")("k1#0"), Boxed([3, 2]).image(1))


def test_boxes_of_cached_features_lie_as_in_the_pictures_that_they_are_of(tmp_path):
    with FeatureWriter(tmp_path / "f", ["k0", "k1"], (1, 3), "float32") as writer:
        writer.write(["k0", "k1"], np.zeros((2, 1, 3), np.float32))
    with pytest.raises(UsageError, match=r"set data\.transform"):
        module(transform=None, features=str(tmp_path / "f"))
    source = Boxed([1])
    for transform in (ImageTransform(8, resize="pad"), ImageTransform(8)):
        data = dataset(source, "val", captions_of="regions", transform=transform, features=FeatureStore(tmp_path / "f"))
        assert data._placement_of_features(0).box(WHOLE) == transform.placement(8, 32).box(WHOLE)


@pytest.mark.parametrize("wrong", [{"captions_per_image": 5}, {"regions_per_image": 0}, {"min_visible": 2.0}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        module(**wrong)
