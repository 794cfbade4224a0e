"""`data.languages`: captions by language, in manifests, folders, shards and stamps."""

import json

import numpy as np
import pytest
from PIL import Image

from capkit.data.datamodule import CaptionDataModule
from capkit.data.fingerprint import fingerprint
from capkit.data.sources.folder import Folder
from capkit.data.sources.in_languages import InLanguages
from capkit.data.sources.manifest import Manifest
from capkit.data.transforms import ImageTransform
from capkit.errors import UsageError

ROWS = {
    "a.png": [("a dog", "en"), ("um cão", "pt-BR"), ("um cachorro", "pt-BR")],
    "b.png": [("a cat", "en")],
    "c.png": [("ein Haus", "de"), ("uma casa d'água", "pt-BR")],
}
PORTUGUESE = {"a.png": ["um cão", "um cachorro"], "c.png": ["uma casa d'água"]}


def objects(captions):
    return [{"text": text, "language": language} for text, language in captions]


def manifest(folder):
    lines = [json.dumps({"image": name, "captions": objects(captions)}) for name, captions in ROWS.items()]
    (folder / "m.jsonl").write_text("\n".join(lines))
    return Manifest(str(folder / "m.jsonl"))


def table(folder):
    lines = [f"{name}\t{text}\t{language}" for name, captions in ROWS.items() for text, language in captions]
    (folder / "t.tsv").write_text("\n".join(["file\tcaption\tlanguage", *lines]), encoding="utf-8")
    return Folder(str(folder), str(folder / "t.tsv"))


def rows(folder):
    entries = [
        {"file": name, "caption": text, "language": language}
        for name, captions in ROWS.items()
        for text, language in captions
    ]
    (folder / "r.json").write_text(json.dumps(entries))
    return Folder(str(folder), str(folder / "r.json"))


def by_file(folder):
    content = {name: objects(captions) for name, captions in ROWS.items()}
    (folder / "f.json").write_text(json.dumps(content))
    return Folder(str(folder), str(folder / "f.json"))


@pytest.fixture
def folder(tmp_path):
    for shade, name in enumerate(ROWS):
        Image.fromarray(np.full((4, 4, 3), 10 * shade, np.uint8)).save(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("source", [manifest, table, rows, by_file])
def test_captions_of_the_language_are_kept_and_images_without_one_left_out(folder, source):
    data = CaptionDataModule(train=source(folder), transform=ImageTransform(size=4), languages=["pt-BR"])
    kept = data.source("train")
    records = [kept.record(index) for index in range(len(kept))]
    assert {r.image: [caption.text for caption in r.captions] for r in records} == PORTUGUESE
    assert {caption.language for r in records for caption in r.captions} == {"pt-BR"}
    assert [int(kept.image(index)[0, 0, 0]) for index in range(2)] == [0, 20]  # the pictures of a and c
    assert list(data.captions("train")) == [text for texts in PORTUGUESE.values() for text in texts]


def test_a_batch_has_the_pictures_and_references_of_the_kept_records(folder):
    data = CaptionDataModule(
        val=manifest(folder), transform=ImageTransform(size=4, mean=[0] * 3, std=[1] * 3), languages=["pt-BR"]
    )
    (batch,) = data.val_dataloader()
    assert batch.keys == ["a.png", "c.png"] and batch.references == list(PORTUGUESE.values())
    assert (batch.pixels[:, 0, 0, 0] * 255).round().tolist() == [0, 20]


def test_the_fingerprint_is_of_the_captions_that_are_learned(folder):
    whole, kept = manifest(folder), InLanguages(manifest(folder), ["pt-BR"], "train")
    assert fingerprint(kept) != fingerprint(whole)
    (folder / "of_portuguese.jsonl").write_text(
        "\n".join(
            json.dumps({"image": name, "captions": [c for c in objects(ROWS[name]) if c["language"] == "pt-BR"]})
            for name in PORTUGUESE
        )
    )
    assert fingerprint(kept) == fingerprint(Manifest(str(folder / "of_portuguese.jsonl")))


@pytest.mark.parametrize(("languages", "missing"), [(["fr"], "fr"), (["pt-BR", "pt"], "pt")])
def test_a_language_that_no_caption_has_is_told_with_those_that_there_are(folder, languages, missing):
    data = CaptionDataModule(train=manifest(folder), transform=ImageTransform(size=4), languages=languages)
    with pytest.raises(
        UsageError, match=rf"train is in {missing}; its captions are in pt-BR \(3\), en \(2\), de \(1\)"
    ):
        data.num_images("train")


def test_no_language_at_all_is_refused(folder):
    with pytest.raises(UsageError, match=r"at least one tag, such as \[pt-BR\]"):
        CaptionDataModule(train=manifest(folder), transform=ImageTransform(size=4), languages=[])


def test_a_language_that_is_no_text_is_told_with_its_place(folder):
    (folder / "r.json").write_text(json.dumps([{"file": "a.png", "caption": "x", "language": 3}]))
    with pytest.raises(UsageError, match=r"r\.json item 0: expected text as 'language', got 3"):
        len(Folder(str(folder), str(folder / "r.json")))
