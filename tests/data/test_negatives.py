"""Negatives in the data workers: another in every epoch, the same in every batch, worker and resumed run."""

import numpy as np
import pytest
import torch

from capkit.data.datamodule import CaptionDataModule
from capkit.data.dataset import CaptionDataset, Request
from capkit.data.negatives import EditedCaptions, without_unchanged
from capkit.data.records import Caption, Record
from capkit.data.transforms import ImageTransform
from capkit.text.tokenizers import encode_captions, word_tokenizer

CAPTIONS = [f"the {size} {color} {noun} sleeps" for size in ("big", "small") for color in ("red", "blue", "green")
            for noun in ("cat", "dog", "fox", "cow")]  # fmt: skip
TOKENIZER = word_tokenizer(CAPTIONS)


class Source:
    """Image i has two captions: caption i and the one after it."""

    def __init__(self, size=24):
        self.size = size

    def __len__(self):
        return self.size

    def record(self, index):
        captions = [Caption(CAPTIONS[(index + k) % len(CAPTIONS)]) for k in range(2)]
        return Record(f"k{index}", f"{index}.png", captions)

    def image(self, index):
        return np.full((4, 4, 3), index, np.uint8)


def encode(captions, max_length=32):
    return encode_captions(TOKENIZER, captions, "", max_length)


def dataset(split="train", captions_per_image=1, encoder=encode):
    negatives = EditedCaptions()
    negatives.fit(CAPTIONS)
    return CaptionDataset(
        Source(), split, ImageTransform(4), None, encoder, captions_per_image, 0, split == "train", negatives
    )


def texts(tokens, mask):
    return [[TOKENIZER.decode(ids[real], skip_special_tokens=True) for ids, real in zip(*row, strict=True)]
            for row in zip(tokens, mask, strict=True)]  # fmt: skip


def module(**changes):
    options = dict(
        train=Source(), val=Source(6), test=Source(6), transform=ImageTransform(4), batch_size=8, eval_batch_size=4
    )
    made = CaptionDataModule(**(options | dict(negatives=EditedCaptions()) | changes))
    made.attach(encode=encode)
    return made


def test_each_caption_has_one_negative_that_differs_from_it():
    batch = dataset(captions_per_image=2)[Request(0, list(range(20)))].batch
    positives, negatives = texts(batch.tokens, batch.mask), texts(batch.negative_tokens, batch.negative_mask)
    assert all(text in CAPTIONS for row in positives for text in row)
    pairs = [(p, n) for row in zip(positives, negatives, strict=True) for p, n in zip(*row, strict=True)]
    assert len(pairs) == 40 and all(p != n and n for p, n in pairs)
    known = {word for caption in CAPTIONS for word in caption.split()}
    assert all(set(n.split()) <= known for _, n in pairs)
    assert batch.negative_mask[..., 0].all()


def test_negatives_change_with_the_epoch_and_not_with_the_batch():
    data = dataset(captions_per_image=2)
    drawn = [data[Request(epoch, [3])].batch for epoch in range(6)]
    rows = [tuple(texts(b.negative_tokens, b.negative_mask)[0]) for b in drawn]
    assert len(set(rows)) == 6
    again = dataset(captions_per_image=2)[Request(4, [9, 3, 1])].batch
    assert tuple(texts(again.negative_tokens, again.negative_mask)[1]) == rows[4]


def test_the_same_caption_of_two_images_gets_two_negatives():
    rows = dataset("val")[Request(0, list(range(len(CAPTIONS))))].batch
    others = dataset("val", captions_per_image=2)[Request(0, list(range(len(CAPTIONS))))].batch
    first = [row[0] for row in texts(rows.negative_tokens, rows.negative_mask)]
    second = [row[1] for row in texts(others.negative_tokens, others.negative_mask)]
    same_caption = [a == b for a, b in zip(first[1:], second[:-1], strict=True)]
    assert sum(same_caption) < len(same_caption) / 3


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_run_that_is_resumed_sees_the_negatives_of_one_that_was_not(num_workers):
    def read(start, workers):
        made = module(num_workers=workers)
        made.set_steps(start, 7)
        return [texts(b.negative_tokens, b.negative_mask) for b in made.train_dataloader()]

    assert read(4, num_workers) == read(0, 0)[4:]


def test_two_ranks_make_the_negatives_of_one():
    def read(**ranks):
        made = module()
        made.attach(encode=encode, **ranks)
        batch = next(iter(made.train_dataloader()))
        rows = texts(batch.negative_tokens, batch.negative_mask)
        return dict(zip(batch.keys, map(tuple, rows), strict=True))

    halves = [read(rank=rank, world_size=2) for rank in range(2)]
    assert halves[0] | halves[1] == read() and len(halves[0]) == len(halves[1]) == 4


def test_only_splits_with_a_loss_get_negatives():
    made = module()
    for loader, has in (
        (made.train_dataloader(), True),
        (made.val_dataloader(), True),
        (made.test_dataloader(), False),
    ):
        batch = next(iter(loader))
        assert (batch.negative_tokens is not None) == has and (batch.negative_mask is not None) == has
    assert next(iter(module(negatives=None).train_dataloader())).negative_tokens is None


def test_a_negative_whose_tokens_are_those_of_its_caption_is_no_negative():
    tokens = torch.tensor([[[1, 5, 6, 2, 0]], [[1, 5, 6, 2, 0]], [[1, 7, 2, 2, 2]], [[1, 3, 3, 2, 0]]])
    mask = torch.tensor([[[1, 1, 1, 1, 0]], [[1, 1, 1, 1, 0]], [[1, 1, 1, 0, 0]], [[1, 1, 1, 1, 0]]]).bool()
    edited = torch.tensor([[[1, 6, 5, 2]], [[1, 5, 6, 2]], [[1, 7, 2, 2]], [[1, 3, 3, 2]]])
    edited_mask = torch.tensor([[[1, 1, 1, 1]], [[1, 1, 1, 1]], [[1, 1, 1, 1]], [[1, 1, 1, 1]]]).bool()
    kept = without_unchanged(edited, edited_mask, tokens, mask)
    # row 0: another order; row 1: equal but for padding; row 2: one token more; row 3: two unknown words exchanged
    assert kept.any(-1)[:, 0].tolist() == [True, False, True, False]
    assert torch.equal(kept[0], edited_mask[0]) and torch.equal(kept[2], edited_mask[2])


def test_an_edit_behind_the_longest_length_is_left_out():
    # BOS and two words are kept of five: an edit of the last three cannot be seen.
    data = dataset(encoder=lambda captions: encode(captions, max_length=3))
    batch = data[Request(0, list(range(len(CAPTIONS))))].batch
    hidden = ~batch.negative_mask.any(-1)
    assert 0 < int(hidden.sum()) < len(CAPTIONS)
    for b in range(len(CAPTIONS)):
        assert bool(hidden[b, 0]) == torch.equal(batch.negative_tokens[b, 0, :3], batch.tokens[b, 0, :3])


def test_a_batch_takes_its_negatives_along():
    batch = dataset(captions_per_image=2)[Request(0, [1, 2, 3])].batch
    part = batch.select([2, 0])
    assert torch.equal(part.negative_tokens, batch.negative_tokens[[2, 0]])
    batch.negative_mask[..., 3:] = False
    trimmed = batch.trim()
    assert trimmed.negative_tokens.shape[-1] == trimmed.negative_mask.shape[-1] == 3
    assert trimmed.tokens.shape == batch.tokens.shape
    assert batch.to("meta").negative_mask.device.type == "meta"
