"""Batches of captions that answer prompts, with and without pictures."""

import functools
import json

import numpy as np
import pytest
from record_source import Records

from capkit.data.datamodule import CaptionDataModule
from capkit.data.fingerprint import fingerprint
from capkit.data.records import Caption, Record, read_manifest, record_from_row, row_of, write_manifest
from capkit.data.transforms import ImageTransform
from capkit.errors import UsageError
from capkit.text.prompt_encoder import PromptEncoder
from capkit.text.tokenizers import encode_captions, word_tokenizer

RECORDS = [
    Record("a", captions=[Caption("one two", prompt="x y z"), Caption("two", prompt="y")]),
    Record("b", captions=[Caption("one\n\n two ", prompt="x")]),
    Record("c", captions=[Caption("two one")]),
]
TOKENIZER = word_tokenizer(["one two x y z"])
ENCODE = functools.partial(encode_captions, TOKENIZER, prompt="", max_length=8)


class Texts(Records):
    def image(self, index):
        raise AssertionError("a source of texts was asked for a picture")


class Pictures(Texts):
    def image(self, index):
        return np.full((2, 2, 3), index, np.uint8)


def data_of(source, encode_prompt=PromptEncoder(TOKENIZER, 8), **settings):  # noqa: B008 - frozen
    settings = {"pictures": False, "batch_size": 2, "max_skipped": 0.9} | settings
    data = CaptionDataModule(train=source, val=source, **settings)
    data.attach(encode=ENCODE, encode_prompt=encode_prompt)
    return data


def texts(tokens, mask):
    images = zip(tokens, mask, strict=True)
    return [[TOKENIZER.decode(row[real]) for row, real in zip(*of_image, strict=True)] for of_image in images]


def test_captions_come_with_their_prompts_and_without_pictures():
    (batch,) = data_of(Texts(RECORDS), captions_per_image=2).val_dataloader()
    assert batch.pixels is None and batch.features is None and batch.prompt_length == 1
    prompts = [["x y z <bos>", "y <bos>"], ["x <bos>"] * 2, ["<bos>"] * 2]
    assert texts(batch.prompts, batch.prompts_mask) == prompts
    answers = [["<bos> one two <eos>", "<bos> two <eos>"], ["<bos> one two <eos>"] * 2, ["<bos> two one <eos>"] * 2]
    assert texts(batch.tokens, batch.mask) == answers
    assert batch.references[1] == ["one\n\ntwo"]  # the lines of an answer stay


def test_a_drawn_caption_keeps_its_own_prompt():
    source = Texts(RECORDS[:1] * 2)
    data = data_of(source)
    data.set_steps(0, 12)
    answer_of = {"x y z <bos>": "<bos> one two <eos>", "y <bos>": "<bos> two <eos>"}
    seen = set()
    for batch in data.train_dataloader():
        asked, said = texts(batch.prompts, batch.prompts_mask), texts(batch.tokens, batch.mask)
        for prompt, answer in zip(asked, said, strict=True):
            assert answer_of[prompt[0]] == answer[0]
            seen.add(answer[0])
    assert seen == set(answer_of.values())


def test_references_of_a_caption_answer_the_same_prompt():
    captions = [Caption("one two", prompt="x"), Caption("two", prompt="y"), Caption("two one", prompt="x")]
    data = data_of(Texts([Record("a", captions=captions)] * 2))
    (batch,) = data.val_dataloader()
    assert batch.references == [["one two", "two one"]] * 2
    data.set_steps(0, 12)
    found = {(texts(b.prompts, b.prompts_mask)[0][0], *b.references[0]) for b in data.train_dataloader()}
    assert found == {("x <bos>", "one two", "two one"), ("y <bos>", "two")}
    (both,) = data_of(Texts([Record("a", captions=captions)] * 2), captions_per_image=2).val_dataloader()
    assert both.references == [["one two", "two", "two one"]] * 2


def test_pictures_and_prompts_go_together():
    data = data_of(Pictures(RECORDS), pictures=True, transform=ImageTransform(2))
    (batch,) = data.val_dataloader()
    assert batch.pixels.shape == (3, 3, 2, 2)
    assert texts(batch.prompts, batch.prompts_mask)[0] == ["x y z <bos>"]


def test_captions_without_prompts_are_as_before():
    (batch,) = data_of(Texts(RECORDS[2:])).val_dataloader()
    assert batch.prompts is None and batch.prompts_mask is None


@pytest.mark.parametrize(
    ("encode_prompt", "reason"),
    [
        (PromptEncoder(TOKENIZER, 3), "a prompt of 4 tokens, more than 3"),
        (None, "its caption answers a prompt, which this captioner does not read; take model=chat_vlm or"),
    ],
    ids=["too long", "not read"],
)
def test_an_example_whose_prompt_cannot_be_read_is_left_out_and_counted(tmp_path, encode_prompt, reason):
    data = data_of(Texts(RECORDS), None)
    data.attach(ENCODE, tmp_path, encode_prompt=encode_prompt)
    (batch,) = data.val_dataloader()
    assert "a" not in batch.keys and batch.keys[-1] == "c"
    skipped = [json.loads(line) for line in (tmp_path / "skipped.jsonl").read_text().splitlines()]
    assert skipped[0]["key"] == "a" and reason in skipped[0]["reason"]
    strict = data_of(Texts(RECORDS), encode_prompt, max_skipped=0)
    with pytest.raises(UsageError, match=reason):
        list(strict.val_dataloader())


def test_a_vocabulary_has_the_words_of_prompts():
    data = data_of(Texts(RECORDS))
    assert list(data.prompts("train")) == ["x y z", "y", "x"]


@pytest.mark.parametrize(
    "settings",
    [{"transform": ImageTransform(2)}, {"features": "x"}, {"captions_of": "regions", "captions_per_image": 1}],
    ids=["a transform", "features", "regions"],
)
def test_texts_alone_have_no_transform_features_or_regions(settings):
    with pytest.raises(UsageError, match=r"data.pictures=false expected examples of text alone"):
        CaptionDataModule(train=Texts(RECORDS), pictures=False, **settings)


def test_pictures_are_wanted_unless_they_are_not():
    with pytest.raises(UsageError, match="got neither; set one of them, or pictures=false"):
        CaptionDataModule(train=Texts(RECORDS))


def test_a_manifest_keeps_prompts_and_its_fingerprint_sees_them(tmp_path):
    write_manifest(tmp_path / "all.jsonl", RECORDS)
    assert list(read_manifest(tmp_path / "all.jsonl")) == RECORDS
    assert "prompt" not in row_of(RECORDS[2])["captions"][0]
    other = [Record("c", captions=[Caption("two one", prompt="x")])]
    assert fingerprint(Texts(RECORDS[2:])) != fingerprint(Texts(other))
    with pytest.raises(UsageError, match="'prompt' of a caption is a text, not 3"):
        record_from_row({"key": "a", "captions": [{"text": "b", "prompt": 3}]}, "here")
