"""Pairs as training batches: the order of the sides, ids that were kept, and what is held out."""

import numpy as np
import pytest
import torch

from capkit.data.about_pictures import held_out
from capkit.data.preference_files import Preference
from capkit.data.preference_pairs import PAIR, PreferenceDataModule
from capkit.data.records import Caption, Record
from capkit.data.transforms import ImageTransform
from capkit.errors import UsageError
from capkit.text.tokenizers import CaptionEncoder, word_tokenizer

TEXTS = ["a red ball", "a blue cube", "two dogs", "one cat"]
TOKENIZER = word_tokenizer(TEXTS)
IDS = {text: tuple(TOKENIZER(text, add_special_tokens=False)["input_ids"]) for text in TEXTS}
PAIRS = [
    Preference("0", "a red ball", "a blue cube", criterion="x", scores=(1.0, 0.0)),
    Preference("b.png", "two dogs", "one cat", tokens=(IDS["two dogs"], (*IDS["one cat"], TOKENIZER.eos_token_id))),
    Preference("0", "two dogs", "a red ball"),
]

VAL = [Preference("v.png", "a red ball", "one cat")]


class Pictures:
    """Three pictures, by their files' names too; PAIRS are about the first two."""

    def __len__(self):
        return 3

    def record(self, index):
        return Record(
            str(index), image=("a.png", "b.png", "v.png")[index], captions=[Caption("one cat")], metadata={"n": index}
        )

    def image(self, index):
        return np.full((8, 8, 3), 50 * index, np.uint8)


def data_of(pairs=PAIRS, val=VAL, **settings):
    transform = ImageTransform(size=8, mean=[0.5] * 3, std=[0.5] * 3)
    data = PreferenceDataModule(
        train=Pictures(), val=Pictures(), test=Pictures(), transform=transform, batch_size=3, max_length=8, **settings
    )
    data.take(pairs, val)
    encode = CaptionEncoder(TOKENIZER, "", data.max_length)
    data.attach(encode=encode)
    return data, encode


def sides(batch):
    return [
        [row[real].tolist()[1:] for row, real in zip(*both, strict=True)]
        for both in zip(batch.tokens, batch.mask, strict=True)
    ]


def test_chosen_comes_before_rejected_in_every_epoch_and_ids_are_those_that_were_kept():
    data, _ = data_of()
    data.set_steps(0, 4)
    eos = TOKENIZER.eos_token_id
    for batch in data.train_dataloader():
        for metadata, both, pixels in zip(batch.metadata, sides(batch), batch.pixels, strict=True):
            pair = PAIRS[metadata[PAIR]["number"]]
            wanted = pair.tokens or [(*IDS[text], eos) for text in (pair.chosen, pair.rejected)]
            assert both == [list(ids) for ids in wanted]  # the first of the kept ones without its end
            assert metadata["n"] == int(pair.image == "b.png") == int(pixels.mean() > -0.9)
        assert batch.references == [[PAIRS[m[PAIR]["number"]].chosen] for m in batch.metadata]


def test_the_test_split_stays_as_it_is():
    data, _ = data_of()
    (batch,) = data.test_dataloader()
    assert batch.keys == ["0", "1", "2"] and batch.tokens.shape[1] == 1 and batch.references == [["one cat"]] * 3
    (held,) = data.val_dataloader()
    assert held.keys == ["2"] and held.tokens.shape[1] == 2


def test_pairs_of_other_pictures_are_refused():
    with pytest.raises(UsageError, match=r"1 of 1 are about others, such as 'c.png'"):
        data_of([Preference("c.png", "two dogs", "one cat")])


def test_a_picture_under_two_names_is_not_trained_on_and_held_out():
    named = Preference("b.png", "two dogs", "one cat"), Preference("1", "two dogs", "one cat")
    with pytest.raises(UsageError, match=r"got 1 that are, such as '1'; leave it out of one of the files, or name"):
        data_of([named[0]], [named[1]])


@pytest.mark.parametrize(
    ("pair", "told"),
    [
        (Preference("0", "a red ball a", "a red ball b"), "differ within data.max_length=8"),
        (Preference("0", "two dogs", "one cat", tokens=(IDS["one cat"], IDS["two dogs"])), "got those of 'one cat'"),
        (Preference("0", "two dogs", "one cat", tokens=((9999,), IDS["one cat"])), "got those of another vocabulary"),
    ],
)
def test_what_the_captioner_cannot_tell_apart_or_read_is_refused(pair, told):
    data, encode = data_of([pair])
    if "differ" in told:
        encode = CaptionEncoder(TOKENIZER, "", 4)
        told = "differ within data.max_length=4"
    with pytest.raises(UsageError, match=f"train pair 1 .of '0'.*{told}"):
        data.check_pairs(encode)


def test_sound_pairs_pass_the_check():
    data, encode = data_of()
    data.check_pairs(encode)


def test_all_pairs_of_a_picture_are_held_out_or_none():
    pairs = [Preference(str(number % 50), "x", str(number)) for number in range(200)]
    train, val = held_out(pairs, 0.2, seed=0)
    assert len(train) + len(val) == 200 and not {p.image for p in train} & {p.image for p in val}
    assert 4 < len({p.image for p in val}) < 18
    assert held_out(pairs[::-1], 0.2, seed=0)[1] == val[::-1]  # by the picture, not by its place
    assert held_out(pairs, 0.2, seed=1)[1] != val
    assert torch.tensor([len(held_out(pairs, share, 0)[1]) for share in (0.0, 1.0)]).tolist() == [0, 200]
