from capkit.curation.samples import NUM_SAMPLES, Samples, merged_samples
from capkit.data.records import Added, Caption, Record

BOX = {"kind": "tag", "text": "toy", "box": None, "score": 0.5, "expert": "tagger"}


def record(number):
    added = (Added("toy", "tagger", 0.5),)
    return Record(f"k{number}", f"{number}.png", [Caption("new", added=added)], metadata={"findings": [BOX]})


def original(key):
    return Record(key, captions=[Caption(f"old {key}")])


def rows(numbers):
    samples = Samples(original)
    assert len(list(samples.passing(map(record, numbers)))) == len(numbers)
    return samples.rows()


def test_samples_of_shards_are_those_of_all_records_and_no_run_of_neighbours():
    whole = rows(range(200))
    assert len({row["key"] for row in whole}) == NUM_SAMPLES
    for size in (7, 100):
        assert merged_samples(rows(range(i, min(i + size, 200))) for i in range(0, 200, size)) == whole
    numbers = sorted(int(row["key"][1:]) for row in whole)
    assert numbers[0] < 50 and numbers[-1] > 150, "of 200 by key: not the first twenty"


def test_fewer_records_than_samples_are_all_shown_with_captions_before_and_after():
    (row,) = rows([3])
    assert (row["key"], row["image"], row["findings"]) == ("k3", "3.png", [BOX])
    assert [caption["text"] for caption in row["before"]] == ["old k3"]
    assert list(row["after"][0]["added"]) == [{"text": "toy", "expert": "tagger", "score": 0.5}]
