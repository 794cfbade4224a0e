import json

import numpy as np
import pytest
import torch
from PIL import Image

from capkit.data.transforms import ImageTransform
from capkit.errors import UsageError
from capkit.methods.memes.datamodule import MemeDataModule
from capkit.methods.memes.scene_source import SceneMemes
from capkit.methods.memes.source import Memes, candidate_captions
from capkit.models.dual_encoders.trainable import EncodeTexts
from capkit.sceneworld.memes import make_meme
from capkit.sceneworld.world.render import render

SAYS_HI = "a cat that says hi"
ROWS = [
    {"id": 1, "img": "a.png", "text": "look at this", "label": 1, "gemini": "a cat", "ivl": SAYS_HI, "split": "train"},
    {"id": 2, "img": "b.png", "text": "", "label": 0, "gemini": "", "ivl": "a dog", "split": "train"},
    {"id": 3, "img": "c.png", "text": "so it is", "label": 0, "gemini": None, "split": "train"},
    {"id": 4, "img": "a.png", "text": "other", "label": 1, "gemini": "a cat", "ivl": "", "split": "dev_seen"},
]


class Words:
    """Ids by length of the word: enough to see which text went where."""

    max_length = 8

    def __call__(self, texts):
        rows = [[len(word) for word in text.split()] or [1] for text in texts]
        length = max(map(len, rows))
        ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
        return ids, torch.tensor([[True] * len(row) + [False] * (length - len(row)) for row in rows])

    def is_cut(self, texts):
        return [False] * len(texts)


@pytest.fixture
def folder(tmp_path):
    for name in "abc":
        Image.new("RGB", (8, 8), (10, 20, 30)).save(tmp_path / f"{name}.png")
    (tmp_path / "memes.json").write_text(json.dumps(ROWS))
    return tmp_path


def source(folder, **arguments):
    settings = {"split": "train", "candidates": ["gemini", "ivl"], **arguments}
    return Memes(str(folder), str(folder / "memes.json"), **settings)


def texts(source):
    return [[caption.text for caption in source.record(i).captions] for i in range(len(source))]


def test_candidates_stand_in_the_order_of_their_names_and_may_be_empty_null_or_missing(folder):
    memes = source(folder)
    assert texts(memes) == [["a cat", "a cat that says hi"], ["", "a dog"], ["", ""]]
    assert texts(source(folder, candidates=["ivl", "gemini"]))[0] == ["a cat that says hi", "a cat"]
    record = memes.record(0)
    assert (record.key, record.image) == ("1", "a.png") and memes.image(0).shape == (8, 8, 3)
    assert record.metadata == {"label": 1, "text": "look at this", "candidates": ["gemini", "ivl"]}


def test_json_lines_are_read_as_a_list_is(folder):
    (folder / "memes.json").write_text("\n".join(map(json.dumps, ROWS)) + "\n\n")
    assert texts(source(folder))[1] == ["", "a dog"]


def test_any_split_of_the_file_can_be_named(folder):
    assert len(source(folder, split="dev_seen")) == 1
    with pytest.raises(UsageError, match="'dev'; the file has dev_seen, train"):
        len(source(folder, split="dev"))


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("none", ["a cat", ""]),
        ("caption", ["hi there. a cat", ""]),
        ("candidate", ["a cat", "", "hi there"]),
    ],
)
def test_the_text_on_a_meme_enters_as_asked(mode, expected):
    found = candidate_captions({"x": " a  cat", "y": ""}, "hi\nthere", mode)
    assert [caption.text for caption in found] == expected


def test_the_text_alone_can_be_what_is_read(folder):
    assert texts(source(folder, candidates=[], text="candidate")) == [["look at this"], [""], ["so it is"]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": 2}, "item 0: wanted a label of 0 or 1; got 2"),
        ({"label": None}, "wanted a label"),
        ({"img": None}, "wanted 'img'"),
        ({"gemini": ["a cat"]}, "'gemini' should be a text"),
        ({"id": 2}, "two records have the key '2'"),
    ],
)
def test_a_wrong_row_is_told_with_its_place(folder, change, message):
    (folder / "memes.json").write_text(json.dumps([{**ROWS[0], **change}, *ROWS[1:]]))
    with pytest.raises(UsageError, match=message):
        len(source(folder))


def test_a_mistyped_candidate_is_told_with_the_right_name(folder):
    with pytest.raises(UsageError, match="no meme has a caption 'gemni'; did you mean 'gemini'"):
        len(source(folder, candidates=["gemni"]))


@pytest.mark.parametrize("arguments", [{"candidates": []}, {"candidates": ["ivl", "ivl"]}, {"text": "both"}])
def test_wrong_arguments_are_told_at_once(folder, arguments):
    with pytest.raises(UsageError):
        source(folder, **arguments)


def test_a_file_of_another_form_is_told(folder):
    for content in ("{", '["a"]', "[1]"):
        (folder / "memes.json").write_text(content)
        with pytest.raises(UsageError, match=r"memes\.json"):
            len(source(folder))


def module(train, **arguments):
    data = MemeDataModule(train=train, test=train, transform=ImageTransform(8), eval_batch_size=3, **arguments)
    data.attach(encode=EncodeTexts(Words(), ""))
    return data


def test_a_batch_has_every_candidate_at_its_place_and_masks_the_empty_ones(folder):
    batch = next(iter(module(source(folder)).test_dataloader()))
    assert batch.references == [["a cat", "a cat that says hi"], ["", "a dog"], ["", ""]]
    assert batch.mask.any(-1).tolist() == [[True, True], [False, True], [False, False]]
    assert batch.tokens[0, 0][batch.mask[0, 0]].tolist() == [1, 3] and batch.tokens[1, 1, :2].tolist() == [1, 3]
    assert batch.conditions["label"].tolist() == [1.0, 0.0, 0.0]


def test_memes_of_one_batch_may_have_different_numbers_of_candidates(folder):
    memes = source(folder)
    memes.record(1).captions.append(candidate_captions({"z": "a third one"}, "", "none")[0])
    batch = next(iter(module(memes).test_dataloader()))
    assert batch.mask.any(-1).tolist() == [[True, True, False], [False, True, True], [False, False, False]]


def test_training_keeps_a_meme_without_any_caption(folder):
    data = module(source(folder), batch_size=3)
    data.set_steps(0, 1)
    batch = next(iter(data.train_dataloader()))
    assert sorted(batch.keys) == ["1", "2", "3"] and batch.tokens.shape[:2] == (3, 2)


def test_scene_memes_keep_their_candidates_and_the_place_of_the_informative_one():
    memes = SceneMemes("train", 8, size=32)
    for index in range(8):
        record = memes.record(index)
        informative, meme = record.metadata["informative"], make_meme(0, "train", index)
        assert record.captions[informative].source == "informative" == record.metadata["candidates"][informative]
        assert [c.text for c in record.captions] == [f"{meme.text}. {caption}" for caption in meme.captions]
        assert meme.meaning in record.captions[informative].text and record.metadata["label"] == meme.label
        assert np.array_equal(memes.image(index), render(meme.scene, 32)) and memes.image(index).std() > 0
    alone = SceneMemes("train", 8, size=32, text="none").record(0)
    assert tuple(caption.text for caption in alone.captions) == make_meme(0, "train", 0).captions
    refused = SceneMemes("train", 8, size=32, refused=1.0).record(0)
    assert refused.metadata["informative"] is None and sorted(c.text == "" for c in refused.captions) == [False, True]


@pytest.mark.parametrize("arguments", [
    {"split": "holdout", "count": 8}, {"split": "train", "count": 8, "refused": 1.5}, {"split": "train", "count": 12},
    {"split": "train", "count": 0}, {"split": "train", "count": 8, "without": "pictures"},
    {"split": "train", "count": 8, "ironic": -0.1},
])  # fmt: skip
def test_scene_memes_of_impossible_settings_are_refused(arguments):
    with pytest.raises(UsageError):
        SceneMemes(**arguments)


def test_a_control_takes_one_source_away_and_leaves_the_others():
    whole = SceneMemes("test", 8, size=32)
    controls = {without: SceneMemes("test", 8, size=32, without=without) for without in ("picture", "text", "captions")}
    for index in range(8):
        text, captions = whole.record(index).metadata["text"], make_meme(0, "test", index).captions
        found = {without: [c.text for c in source.record(index).captions] for without, source in controls.items()}
        assert found == {
            "picture": [f"{text}. {caption}" for caption in captions], "text": list(captions), "captions": [text],
        }  # fmt: skip
        assert not controls["picture"].image(index).any()
        assert all(np.array_equal(controls[kept].image(index), whole.image(index)) for kept in ("text", "captions"))
        assert controls["captions"].record(index).metadata["informative"] is None
        assert {source.record(index).metadata["label"] for source in controls.values()} == {
            whole.record(index).metadata["label"]
        }


def test_rare_irony_is_drawn_and_even_irony_is_the_default():
    memes = [SceneMemes("train", 160, ironic=share) for share in (None, 0.0, 1.0)]
    even, never, always = ([source.record(index).metadata["label"] for index in range(160)] for source in memes)
    assert never == [1 - label for label in always] and even != never
    assert [even[index] for index in range(0, 160, 2)] == [never[index] for index in range(0, 160, 2)]
