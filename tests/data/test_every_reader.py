"""What every reader of users' files refuses, one after the other: each in one message that names the file."""

import json

import pytest

from capkit.data.curricula.bag_files import BagFolder
from capkit.data.prediction_files import read_captions as read_scored
from capkit.data.sources.caption_files import read_captions
from capkit.data.sources.concadia import Concadia
from capkit.data.sources.conceptual_captions import ConceptualCaptions
from capkit.data.sources.imagecode import ImageCodeSets
from capkit.data.sources.karpathy import Karpathy
from capkit.data.sources.manifest import Manifest
from capkit.data.sources.mmvp import MMVP
from capkit.data.sources.nocaps import Nocaps
from capkit.data.sources.sentence_pairs import read_pairs
from capkit.data.sources.synthetic_pairs import SyntheticPairs
from capkit.data.sources.triplets import Triplets
from capkit.data.sources.visual_genome import VisualGenome
from capkit.data.sources.winoground import Winoground
from capkit.errors import UsageError
from capkit.methods.memes.source import Memes
from capkit.metrics.bags import read_bags
from capkit.metrics.chair import ObjectLexicon, read_instances
from capkit.metrics.finecapeval import read_finecapeval
from capkit.metrics.imagecode import read_targets
from capkit.scorers.neighbors import read_neighbors


def bag_folder(path):
    path.rename(path.with_name("bags.json"))
    return BagFolder(path.parent)


def winoground(path):
    path.rename(path.with_name("examples.jsonl"))
    return Winoground(str(path.parent))


def mmvp(path):
    path.rename(path.with_name("Questions.csv"))
    return MMVP(str(path.parent))


def synthetic_images(path):
    (path.parent / "meta_gt_captions.json").write_text('{"a.jpg": "a dog"}')
    path.rename(path.with_name("meta_images.json"))
    return len(SyntheticPairs(str(path.parent), str(path.parent)))


def synthetic_captions(path):
    (path.parent / "meta_images.json").write_text('["a.jpg"]')
    path.rename(path.with_name("meta_gt_captions.json"))
    return len(SyntheticPairs(str(path.parent), str(path.parent)))


PICTURES = [{"image_id": 1, "url": "https://x/VG_100K/1.jpg", "width": 4, "height": 4}]
REGION_ROW = {"x": 0, "y": 1, "width": 2, "height": 2.5, "phrase": "a dog", "region_id": 3}


def visual_genome(path):
    (path.parent / "image_data.json").write_text(json.dumps(PICTURES))
    return len(VisualGenome(str(path.parent), str(path), str(path.parent / "image_data.json"), "train", None, 0.0, 0.0))


def image_data(path):
    (path.parent / "regions.json").write_text(json.dumps([{"id": 1, "regions": [REGION_ROW]}]))
    return len(VisualGenome(str(path.parent), str(path.parent / "regions.json"), str(path), "train", None, 0.0, 0.0))


def instances(path):
    (path.parent / "synonyms.txt").write_text("dog, puppy\n")
    return read_instances(str(path), ObjectLexicon(str(path.parent / "synonyms.txt")))


JSON_READERS = {
    "captions": read_captions,
    "karpathy": lambda path: len(Karpathy(str(path.parent), str(path), "train")),
    "manifest": lambda path: len(Manifest(str(path))),
    "nocaps": lambda path: len(Nocaps(str(path.parent), str(path))),
    "concadia": lambda path: len(Concadia(str(path.parent), str(path), "train")),
    "memes": lambda path: len(Memes(str(path.parent), str(path), "train", ["c"])),
    "scored": lambda path: read_scored(path, "references"),
    "bag folder": bag_folder,
    "bags": lambda path: read_bags(str(path)),
    "imagecode sets": lambda path: ImageCodeSets(str(path.parent), str(path)),
    "imagecode targets": lambda path: read_targets(str(path), 10),
    "instances": instances,
    "neighbors": lambda path: read_neighbors(str(path), 1),
    "winoground": winoground,
    "visual genome": visual_genome,
    "visual genome's pictures": image_data,
    "triplets": lambda path: len(Triplets(str(path.parent), str(path))),
    "synthetic pairs' pictures": synthetic_images,
    "synthetic pairs' captions": synthetic_captions,
}
TEXT_READERS = JSON_READERS | {
    "table": lambda path: read_captions(path.rename(path.with_suffix(".csv"))),
    "conceptual captions": lambda path: len(ConceptualCaptions(str(path.parent), str(path))),
    "sentence pairs": lambda path: read_pairs(str(path)),
    "finecapeval": lambda path: read_finecapeval(str(path)),
    "synonyms": lambda path: ObjectLexicon(str(path)),
    "mmvp": mmvp,
}
UNREADABLE = {
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "long number": b'{"a": 1' + b"0" * 5000 + b"}",
    "key twice": b'{"a": 1, "a": 2}',
    "not JSON": b"{'a': 1}",
    "empty": b"",
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("read", JSON_READERS.values(), ids=JSON_READERS)
def test_json_that_cannot_be_read_faithfully_ends_in_one_message(tmp_path, read, content):
    (tmp_path / "f.json").write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read(tmp_path / "f.json")
    assert ".json" in str(caught.value) or "captions" in str(caught.value) or "neighbors" in str(caught.value)


@pytest.mark.parametrize("read", TEXT_READERS.values(), ids=TEXT_READERS)
def test_text_that_is_not_utf8_is_told_with_its_line(tmp_path, read):
    (tmp_path / "f.json").write_bytes(b"\n\n{caf\xe9}\n")
    with pytest.raises(UsageError, match="line 3: not UTF-8"):
        read(tmp_path / "f.json")


def values_of_other_types(content):
    """The same JSON with each value in turn of another type."""
    places = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for place, value in places:
        for wrong in (None, 3, 2.5, True, "x", [], [[1]], {}, {"a": 1}):
            copy = dict(content) if isinstance(content, dict) else list(content)
            copy[place] = wrong
            yield copy
        for inner in values_of_other_types(value):
            copy = dict(content) if isinstance(content, dict) else list(content)
            copy[place] = inner
            yield copy


CAPTIONED = {"file": "a.jpg", "captions": ["a dog", {"text": "one dog"}], "split": "train"}
COCO = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "caption": "a dog"}]}
WINOGROUND = {
    "id": 0, "caption_0": "x y", "caption_1": "y x", "image_0": "a", "image_1": "b", "collapsed_tag": "Object",
}  # fmt: skip
KARPATHY = [
    {"filename": f"{n}.jpg", "filepath": "x", "cocoid": n, "split": "train", "sentences": [{"raw": "a dog"}]}
    for n in range(3)
]
MANIFEST = {
    "key": "k", "image": "a.jpg", "captions": ["a dog", {"text": "x y", "source": "s", "language": "en"}],
    "regions": [{"box": [0, 0, 1, 1], "text": "t"}], "bag": "b", "metadata": {"m": 1},
}  # fmt: skip
RIGHT = [
    ("captions", [CAPTIONED]),
    ("captions", {"a.jpg": ["a dog"]}),
    ("captions", COCO),
    ("captions", [MANIFEST]),
    ("manifest", MANIFEST),
    ("karpathy", {"images": KARPATHY}),
    ("memes", [{"img": "a.png", "id": 1, "label": 1, "split": "train", "text": "t", "c": "a dog"}]),
    ("scored", [{"image_id": 1, "caption": "a dog"}]),
    ("scored", {"1": ["a dog", {"caption": "one dog"}]}),
    ("scored", COCO),
    ("scored", {"images": KARPATHY}),
    ("bags", [["a", "b"], ["c", 4]]),
    ("imagecode targets", {"set": {"1": "x"}}),
    ("instances", {"categories": [{"id": 1, "name": "dog"}], "annotations": [{"image_id": 1, "category_id": 1}]}),
    ("neighbors", {"key": "a", "neighbors": ["b"]}),
    ("winoground", WINOGROUND),
    ("visual genome", [{"id": 1, "regions": [REGION_ROW]}]),
    ("visual genome's pictures", PICTURES),
    ("triplets", {"image": "a.jpg", "box": [0, 0, 0.5, 1], "caption": "a dog"}),
    ("synthetic pairs' pictures", ["a.jpg"]),
    ("synthetic pairs' captions", {"a.jpg": "a dog"}),
    ("bag folder", {"split": "val", "keys_hash": "0", "lists": {}}),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "content"), RIGHT, ids=[name for name, _ in RIGHT])
def test_values_of_any_other_type_are_read_or_told_and_never_a_traceback(tmp_path, name, content):
    def attempt(value):
        (tmp_path / "f.json").write_text(json.dumps(value))
        JSON_READERS[name](tmp_path / "f.json")

    attempt(content)
    for wrong in values_of_other_types(content):
        try:
            attempt(wrong)
        except UsageError as error:
            assert str(error)


def test_two_lines_of_one_image_are_an_error_where_one_would_be_lost(tmp_path):
    (tmp_path / "n.jsonl").write_text('{"key": "a", "neighbors": ["b"]}\n{"key": "a", "neighbors": ["c"]}\n')
    with pytest.raises(UsageError, match=r"n\.jsonl, line 2: two lines have the key 'a'"):
        read_neighbors(str(tmp_path / "n.jsonl"), 1)
