"""Ratings as training batches: all captions of a rating in their order, with their grades."""

import numpy as np
import pytest

from capkit.data.about_pictures import held_out
from capkit.data.rating_files import Rating
from capkit.data.ratings import RatingDataModule
from capkit.data.records import Caption, Record
from capkit.data.transforms import ImageTransform
from capkit.errors import UsageError
from capkit.text.tokenizers import CaptionEncoder, word_tokenizer

TOKENIZER = word_tokenizer(["a red ball", "a blue cube", "two dogs", "one cat"])
RATINGS = [
    Rating("0", ("a red ball", "two dogs", "one cat"), (-1.0, 0.0, -1.0), True),
    Rating("b.png", ("one cat", "a blue cube"), (0.0, -1.0), True),
    Rating("0", ("two dogs", "one cat"), (0.0, -1.0), True),
]
VAL = [Rating("v.png", ("two dogs", "one cat"), (0.0, -1.0), True)]


class Pictures:
    """Three pictures, by their files' names too."""

    def __len__(self):
        return 3

    def record(self, index):
        return Record(str(index), image=("a.png", "b.png", "v.png")[index], captions=[Caption("one cat")])

    def image(self, index):
        return np.full((8, 8, 3), 50 * index, np.uint8)


def data_of(train=RATINGS, val=VAL, test=None):
    transform = ImageTransform(size=8, mean=[0.5] * 3, std=[0.5] * 3)
    data = RatingDataModule(train=Pictures(), val=Pictures(), test=Pictures(), transform=transform, batch_size=3)
    data.take(train, val, test)
    data.attach(encode=CaptionEncoder(TOKENIZER, "", data.max_length))
    return data


def test_a_batch_has_every_caption_of_a_rating_with_its_grade_in_every_epoch():
    data = data_of()
    data.set_steps(0, 3)
    wanted = {rating.captions: rating for rating in RATINGS}
    for batch in data.train_dataloader():
        assert batch.tokens.shape[:2] == (3, 3)
        for row, references in enumerate(batch.references):
            rating = wanted[tuple(references)]
            real = batch.mask[row].any(-1)
            assert batch.scores[row][real].tolist() == list(rating.grades) and int(real.sum()) == len(rating.grades)
            assert int(batch.pixels[row].mean() > -0.9) == (rating.image == "b.png")


def test_test_ratings_are_of_the_test_pictures():
    data = data_of(test=[Rating("2", ("two dogs", "one cat"), (1.0, 2.0), False)])
    (batch,) = data.eval_dataloader("test")
    assert batch.keys == ["2"] and batch.scores.tolist() == [[1.0, 2.0]]
    with pytest.raises(UsageError, match=r"test ratings: expected ratings about pictures of data.test, .* such as 'x'"):
        data_of(test=[Rating("x", ("two dogs", "one cat"), (1.0, 2.0), False)])


def test_ratings_of_other_pictures_and_pictures_under_two_names_are_refused():
    with pytest.raises(UsageError, match=r"train ratings: expected ratings about pictures of data.train"):
        data_of([Rating("c.png", ("x", "y"), (0.0, 1.0), True)])
    with pytest.raises(UsageError, match=r"held-out ratings about pictures that are not trained on, got 1"):
        data_of(val=[Rating("1", ("two dogs", "one cat"), (0.0, -1.0), True)])


def test_all_ratings_of_a_picture_are_held_out_or_none():
    ratings = [Rating(str(n % 50), ("x", "y"), (0.0, 1.0), True) for n in range(200)]
    train, val = held_out(ratings, 0.2, seed=0)
    assert len(train) + len(val) == 200 and not {r.image for r in train} & {r.image for r in val} and val


def test_an_epoch_is_of_ratings_from_before_they_are_taken_and_val_is_not_read():
    transform = ImageTransform(size=8, mean=[0.5] * 3, std=[0.5] * 3)
    data = RatingDataModule(train=Pictures(), val=None, test=None, transform=transform, batch_size=1)
    assert data.has_validation and data.num_examples == 3  # pictures
    data.expect(2)
    assert data.num_steps(3) == 6
    data.take(RATINGS[:2], VAL)
    assert data.num_steps(3) == 6 == 3 * len(data.source("train"))
