"""Embeddings of pictures by key: those of the encoder, each computed once."""

import numpy as np
import pytest
import torch
from table_judge import TableJudge, picture, reader, unit_rows

from capkit.errors import UsageError
from capkit.scorers.image_embeddings import ImageEmbeddings
from capkit.testing import models as tiny


class CountingReader:
    def __init__(self, read):
        self.read, self.keys = read, []

    def __call__(self, key):
        self.keys.append(key)
        return self.read(key)


def table(count=80, width=4):
    return TableJudge(unit_rows(count, width), {})


def test_rows_are_the_encoders_in_the_order_of_the_keys():
    encoder = tiny.two_tower().eval()
    random = np.random.default_rng(0)
    pictures = {key: random.integers(0, 255, (20 + i, 30, 3), dtype=np.uint8) for i, key in enumerate("abc")}
    images = ImageEmbeddings(encoder)
    images.attach_images(pictures.get)
    rows = images(["c", "a", "c", "b"])
    alone = {key: encoder.encode_image(encoder.preprocess([image]))[0] for key, image in pictures.items()}
    torch.testing.assert_close(rows, torch.stack([alone[key] for key in "cacb"]))
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(4))


def test_a_row_does_not_depend_on_which_pictures_were_asked_for_with_it():
    """To the last bit: after a resume other pictures are missing at a step than without it."""
    encoder = tiny.two_tower().eval()
    random = np.random.default_rng(0)
    pictures = {str(i): random.integers(0, 255, (32, 32, 3), dtype=np.uint8) for i in range(9)}
    together, apart = ImageEmbeddings(encoder), ImageEmbeddings(encoder)
    for images in (together, apart):
        images.attach_images(pictures.get)
    apart(["0", "1", "2"])
    apart(["4"])
    assert torch.equal(together(list(pictures)), apart(list(pictures)))


@pytest.mark.parametrize("count", [1, 64, 65])
def test_a_picture_is_read_and_encoded_once_however_often_it_is_asked_for(count):
    encoder, read = table(), CountingReader(reader())
    images = ImageEmbeddings(encoder)
    images.attach_images(read)
    keys = [str(i) for i in range(count)]
    for _ in range(2):
        assert torch.equal(images([*keys, *reversed(keys)])[:count], encoder.images_table[:count])
    assert read.keys == keys and encoder.num_encoded == count


@pytest.mark.parametrize("unreadable", [["1"], ["0", "1", "2"]])
def test_an_unreadable_picture_has_a_row_of_nan_and_the_others_theirs(unreadable):
    encoder, read = table(), CountingReader(reader(unreadable))
    images = ImageEmbeddings(encoder)
    images.attach_images(read)
    for _ in range(2):
        rows = images(["0", "1", "2"])
        wanted = encoder.images_table[:3].clone()
        wanted[[int(key) for key in unreadable]] = torch.nan
        torch.testing.assert_close(rows, wanted, equal_nan=True)
    assert len(read.keys) == 3


def test_no_keys_give_no_rows_of_the_right_width():
    assert ImageEmbeddings(table(width=4))([]).shape == (0, 4)


def test_a_missing_reader_is_said():
    with pytest.raises(UsageError, match="has no reader"):
        ImageEmbeddings(table())(["0"])


def test_what_lies_in_the_folder_is_not_encoded_again(tmp_path):
    for encoded in (3, 0):
        encoder = table()
        images = ImageEmbeddings(encoder, str(tmp_path))
        images.attach_images(reader())
        assert torch.equal(images(["0", "1", "2"]), encoder.images_table[:3])
        assert encoder.num_encoded == encoded


def test_a_picture_that_changed_under_its_key_is_another_picture(tmp_path):
    for number in (5, 6):
        encoder = table()
        images = ImageEmbeddings(encoder, str(tmp_path))
        images.attach_images(lambda key, number=number: picture(number))
        assert torch.equal(images(["photo"])[0], encoder.images_table[number])


def test_pictures_that_a_worker_preprocessed_give_the_same_rows_and_are_not_read_again():
    read_here, read_there = table(), CountingReader(reader(["1"]))
    images = ImageEmbeddings(read_here)
    images.attach_images(read_there)
    keys = ["2", "1", "0"]
    assert images.unseen([*keys, "2"]) == keys
    arrived = images.preprocess(keys)
    assert images.unseen(keys) == keys and read_here.num_encoded == 0  # a worker changes nothing
    images.look(arrived)
    assert images.unseen([*keys, "3"]) == ["3"] and images.readable(keys) == [True, False, True]
    wanted = read_here.images_table[[2, 1, 0]].clone()
    wanted[1] = torch.nan
    torch.testing.assert_close(images(keys), wanted, equal_nan=True)
    assert read_there.keys == keys and read_here.num_encoded == 2


def test_a_batch_without_a_readable_picture_arrives_empty():
    images = ImageEmbeddings(table())
    images.attach_images(reader(["0", "1"]))
    arrived = images.preprocess(["0", "1"])
    assert arrived.pixels is None
    images.look(arrived)
    assert images(["0", "1"]).isnan().all() and images.unseen(["0", "1"]) == []


def test_pixels_whose_embeddings_lie_in_the_folder_do_not_travel(tmp_path):
    for travelled, encoded in ((["0", "1", "2"], 3), ([], 0)):
        encoder = table()
        images = ImageEmbeddings(encoder, str(tmp_path))
        images.attach_images(reader())
        arrived = images.preprocess(["0", "1", "2"])
        assert [arrived.found[place] for place in arrived.places] == travelled and len(arrived.pixels) == encoded
        images.look(arrived)
        assert torch.equal(images(["0", "1", "2"]), encoder.images_table[:3]) and encoder.num_encoded == encoded


def test_the_row_of_a_key_is_not_that_of_an_equal_place_in_another_batch(tmp_path):
    """Some pixels are known on disk: those that travel have other places among themselves."""
    first = ImageEmbeddings(table(), str(tmp_path))
    first.attach_images(reader())
    first(["0", "2"])
    encoder = table()
    images = ImageEmbeddings(encoder, str(tmp_path))
    images.attach_images(reader())
    arrived = images.preprocess(["0", "1", "2", "3"])
    assert arrived.places == [1, 3]
    images.look(arrived)
    assert torch.equal(images(["3", "2", "1", "0"]), encoder.images_table[[3, 2, 1, 0]]) and encoder.num_encoded == 2
