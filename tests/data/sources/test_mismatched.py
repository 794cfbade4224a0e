import pytest

from capkit.data.records import Caption, Record
from capkit.data.sources.mismatched import Mismatched
from capkit.errors import UsageError


class Numbers:
    """Image n is described as "n"."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def record(self, index):
        return Record(f"image {index}", captions=[Caption(str(index))], metadata={"number": index})

    def image(self, index):
        raise AssertionError("not asked for")


def captions(source):
    return [source.record(i).captions[0].text for i in range(len(source))]


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_exactly_that_share_of_images_has_anothers_captions(share):
    found = captions(Mismatched(Numbers(100), share))
    assert sum(text != str(i) for i, text in enumerate(found)) == round(share * 100)
    assert sorted(found, key=int) == [str(i) for i in range(100)], "captions are exchanged, none is lost"


def test_keys_stay_and_metadata_goes_with_the_captions():
    source = Mismatched(Numbers(50), 0.4)
    for index in range(50):
        record = source.record(index)
        assert record.key == f"image {index}"
        assert str(record.metadata["number"]) == record.captions[0].text
        assert record.metadata["mismatched"] == (record.captions[0].text != str(index))


def test_the_same_seed_exchanges_the_same_captions():
    assert captions(Mismatched(Numbers(60), 0.5)) == captions(Mismatched(Numbers(60), 0.5))
    assert captions(Mismatched(Numbers(60), 0.5)) != captions(Mismatched(Numbers(60), 0.5, seed=1))
    assert captions(Mismatched(Numbers(60), 0.0)) == [str(i) for i in range(60)]


@pytest.mark.parametrize(("share", "message"), [(1.5, "from 0 to 1"), (0.01, "two are needed")])
def test_a_share_that_cannot_be_is_refused(share, message):
    with pytest.raises(UsageError, match=message):
        Mismatched(Numbers(100), share)
