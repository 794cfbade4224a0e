"""Conceptual Captions, nocaps and Concadia as they were released, at the size of a few pictures."""

import functools
import json
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from capkit.data.datamodule import CaptionDataModule
from capkit.data.sources.concadia import Concadia
from capkit.data.sources.conceptual_captions import ConceptualCaptions, picture_name
from capkit.data.sources.nocaps import Nocaps
from capkit.data.transforms import ImageTransform
from capkit.errors import UsageError


def picture(path, grey):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 30, 3), grey, np.uint8)).save(path, "PNG")


def texts(source):
    return {source.record(i).key: [caption.text for caption in source.record(i).captions] for i in range(len(source))}


# Conceptual Captions --------------------------------------------------------------------------------------------------

# CRC-32 by the definition's own check value: that of "123456789" is 0xcbf43926 = 3421780262.
CHECK = "3421780262"
URLS = [f"http://example.org/{number}.jpg?s=1&t=ü" for number in range(8)]


def conceptual(folder, urls=URLS, dead=(3,), lines=()):
    """A table of eight addresses, one of which is dead, and the downloader's folder of pictures without endings."""
    (folder / "training").mkdir(parents=True)
    for number, url in enumerate(urls):
        if number not in dead:
            picture(folder / "training" / str(zlib.crc32(url.encode())), 10 * number)
    rows = [*(f"picture number {number}\t{url}" for number, url in enumerate(urls)), *lines]
    (folder / "Train_GCC-training.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return str(folder / "training"), str(folder / "Train_GCC-training.tsv")


def test_a_picture_is_found_by_the_crc_of_its_address(tmp_path):
    assert picture_name("123456789") == CHECK
    source = ConceptualCaptions(*conceptual(tmp_path))
    assert [caption for row in texts(source).values() for caption in row] == [
        f"picture number {number}" for number in range(8) if number != 3
    ]
    assert [int(source.image(i)[0, 0, 0]) for i in range(7)] == [0, 10, 20, 40, 50, 60, 70]
    assert source.record(0).metadata == {"url": URLS[0]}


def test_two_lines_of_an_address_are_two_captions_of_a_picture_and_endings_are_allowed(tmp_path):
    images, captions = conceptual(tmp_path, lines=[f"another caption\t{URLS[5]}"])
    for file in (tmp_path / "training").iterdir():
        file.rename(file.with_suffix(".png"))
    source = ConceptualCaptions(images, captions)
    assert texts(source)[str(zlib.crc32(URLS[5].encode()))] == ["picture number 5", "another caption"]
    assert int(source.image(4)[0, 0, 0]) == 50


def test_addresses_whose_names_collide_are_left_out(tmp_path):
    """Two words of the same CRC-32 keep it behind the same beginning."""
    urls = [*URLS, "x://plumless", "x://buckeroo"]
    assert zlib.crc32(urls[-1].encode()) == zlib.crc32(urls[-2].encode())
    source = ConceptualCaptions(*conceptual(tmp_path, urls))
    assert len(source) == 7 and not any("number 8" in row[0] or "number 9" in row[0] for row in texts(source).values())


def test_what_is_left_out_is_counted_and_too_much_of_it_is_an_error(tmp_path):
    """Of ten addresses three are dead, and two of the others share a CRC-32."""
    paths = conceptual(tmp_path, [*URLS, "x://plumless", "x://buckeroo"], dead=(0, 3, 7))
    counts = "5 of 10 addresses are left out: 3 have no picture in .*, 2 share a CRC-32"
    with pytest.warns(UserWarning, match=counts):
        assert len(ConceptualCaptions(*paths)) == 5
    with pytest.raises(UsageError, match=f"{counts}.*expected a share of at most 0.4.*raise max_missing"):
        len(ConceptualCaptions(*paths, max_missing=0.4))
    with pytest.warns(UserWarning, match=counts):
        assert len(ConceptualCaptions(*paths, max_missing=0.6)) == 5


def test_nothing_is_said_where_nothing_is_left_out(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(ConceptualCaptions(*conceptual(tmp_path, dead=()))) == 8


def test_train_and_val_of_a_table_do_not_overlap(tmp_path):
    paths = conceptual(tmp_path)
    train, val = (texts(ConceptualCaptions(*paths, split, val=0.3)) for split in ("train", "val"))
    assert len(train) == 4 and len(val) == 3 and not train.keys() & val.keys()


@pytest.mark.parametrize(
    "line", ["a caption", "a\tcaption\thttp://x", "a caption\tno address", " \thttp://x", "http://x\ta caption"]
)
def test_a_line_of_another_form_is_told_with_its_number(tmp_path, line):
    paths = conceptual(tmp_path, lines=[line])
    with pytest.raises(UsageError, match="line 9: expected a caption, a tab and an address"):
        len(ConceptualCaptions(*paths))


def test_what_is_wrong_with_conceptual_captions_is_named(tmp_path):
    images, captions = conceptual(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "empty.tsv").write_text("\n")
    for arguments, words in (
        ((str(tmp_path / "other"), captions), r"expected pictures named like '\d+', the CRC-32.*got none of 8"),
        ((images, str(tmp_path / "empty.tsv")), "got an empty file"),
        ((images, None), "captions: none given"),
        ((None, captions), "images: none given"),
        ((images, captions, "dev"), "split must be"),
        ((images, captions, "test"), "no pictures in split 'test'; set test=0.01"),
    ):
        with pytest.raises(UsageError, match=words):
            len(ConceptualCaptions(*arguments))


# nocaps ---------------------------------------------------------------------------------------------------------------

PLACES = ["in-domain", "near-domain", "near-domain", "out-domain"]


def nocaps(folder):
    images = [
        {
            **{"id": number, "open_images_id": f"{number:016x}", "height": 20, "width": 30, "license": 0},
            **{"coco_url": "https://x", "file_name": f"{number:016x}.jpg", "date_captured": "", "domain": domain},
        }
        for number, domain in enumerate(PLACES)
    ]
    captions = [
        {"image_id": number, "id": 10 * number + k, "caption": f"Picture {number}, told {k}."}
        for number in range(4)
        for k in range(10)
    ]
    for number, image in enumerate(images):
        picture(folder / "validation" / image["file_name"], 20 * number)
    return {"licenses": [], "info": {}, "images": images, "annotations": captions}


def nocaps_of(folder, content, **settings):
    file = folder / "nocaps_val_4500_captions.json"
    file.write_text(json.dumps(content))
    return Nocaps(str(folder / "validation"), str(file), **settings)


@pytest.mark.parametrize(("domain", "keys"), [("near-domain", "12"), ("out-domain", "3"), (None, "0123")])
def test_nocaps_gives_ten_captions_of_the_pictures_of_a_domain(tmp_path, domain, keys):
    source = nocaps_of(tmp_path, nocaps(tmp_path), domain=domain)
    assert texts(source) == {key: [f"Picture {key}, told {k}." for k in range(10)] for key in keys}
    assert source.record(0).metadata == {"image_id": int(keys[0]), "domain": domain or "in-domain"}
    assert int(source.image(0)[0, 0, 0]) == 20 * int(keys[0])


def test_what_is_wrong_with_nocaps_is_named(tmp_path):
    content = nocaps(tmp_path)
    without = [{k: v for k, v in image.items() if k != "domain"} for image in content["images"]]
    elsewhere = [image | {"domain": "far"} for image in content["images"]]
    only_in = [image | {"domain": "in-domain"} for image in content["images"]]
    for changed, settings, words in (
        ({"images": content["images"]}, {}, "expected an object with images and annotations"),
        (content | {"images": without}, {}, "item 0: no 'domain'"),
        (content | {"images": elsewhere}, {}, "expected a domain of in-domain"),
        (content | {"images": only_in}, {"domain": "out-domain"}, "no pictures of domain 'out-domain'"),
        (content, {"domain": "out"}, "domain: expected in-domain"),
    ):
        with pytest.raises(UsageError, match=words):
            len(nocaps_of(tmp_path, changed, **settings))


# Concadia -------------------------------------------------------------------------------------------------------------


def concadia(folder):
    rows = []
    for number, split in enumerate(["train", "train", "val", "test"]):
        picture(folder / "images" / f"{7 * number}.jpg", 30 * number)
        said = {
            kind: {"raw": f"{kind} {number}", "tokens": [kind, str(number)]}
            for kind in ("caption", "description", "context")
        }
        name = {"filename": f"{7 * number}.jpg", "orig_filename": "File:X.jpg", "article_id": f"A{number}"}
        rows.append({**name, **said, "split": split})
    return {"images": rows}


def concadia_of(folder, content, split="train", **settings):
    (folder / "wiki_split.json").write_text(json.dumps(content))
    return Concadia(str(folder / "images"), str(folder / "wiki_split.json"), split, **settings)


@pytest.mark.parametrize("text", ["caption", "description"])
def test_concadia_gives_a_split_with_the_text_that_is_asked_for(tmp_path, text):
    of = functools.partial(concadia_of, tmp_path, concadia(tmp_path), text=text)
    assert texts(of("train")) == {"0": [f"{text} 0"], "7": [f"{text} 1"]}
    assert texts(of("val")) == {"14": [f"{text} 2"]}
    test = of("test")
    assert texts(test) == {"21": [f"{text} 3"]} and int(test.image(0)[0, 0, 0]) == 90


def test_what_is_wrong_with_concadia_is_named(tmp_path):
    content = concadia(tmp_path)
    first, *rest = content["images"]
    for images, settings, words in (
        ([first | {"caption": "bare"}, *rest], {}, "image 0: expected an object as 'caption'"),
        ([first | {"split": "holdout"}, *rest], {}, "split 'holdout' is unknown"),
        ([first, first, *rest], {}, "two records"),
        ([{k: v for k, v in first.items() if k != "filename"}, *rest], {}, "image 0: no 'filename'"),
        (rest[:1], {"split": "val"}, "no pictures in split 'val'"),
        ([first, *rest], {"text": "context"}, "text: expected caption, description"),
        ([first, *rest], {"split": "dev"}, "split: expected train, val, test"),
    ):
        with pytest.raises(UsageError, match=words):
            len(concadia_of(tmp_path, {"images": images}, **settings))
    with pytest.raises(UsageError, match="expected an object with a list 'images'"):
        len(concadia_of(tmp_path, []))


# all three ------------------------------------------------------------------------------------------------------------


def test_their_captions_and_pictures_make_batches(tmp_path):
    sources = {
        "train": ConceptualCaptions(*conceptual(tmp_path / "cc")),
        "val": concadia_of(tmp_path, concadia(tmp_path)),
        "test": nocaps_of(tmp_path, nocaps(tmp_path), domain="near-domain"),
    }
    module = CaptionDataModule(**sources, transform=ImageTransform(size=16), batch_size=2)
    (batch,) = module.eval_dataloader("test")
    assert batch.keys == ["1", "2"] and len(batch.references[0]) == 10
    assert batch.pixels.shape == (2, 3, 16, 16)
    assert module.num_images("train") == 7 and module.num_images("val") == 2
