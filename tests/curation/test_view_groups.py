"""Groups of views, and shards that are cut between them."""

import json

import pytest
from record_source import Records

from capkit.curation.base import scope_of
from capkit.curation.folder import CuratedFolder
from capkit.curation.groups import group_starts, groups
from capkit.curation.shard_work import Work, curate
from capkit.data.fingerprint import fingerprint
from capkit.data.records import Added, Caption, Record, read_manifest, record_from_row, row_of, write_manifest
from capkit.data.sources.manifest import Manifest
from capkit.errors import UsageError
from capkit.llm.ledger import Ledger


def views(*names):
    return [Record(str(place), object=name) for place, name in enumerate(names)]


def written(tmp_path, *names):
    write_manifest(tmp_path / "views.jsonl", views(*names))
    return Manifest(str(tmp_path / "views.jsonl"))


def test_views_of_one_object_are_a_group(tmp_path):
    found = [[record.key for record in group] for group in groups(views("a", "a", "b", "c", "c", "c"), "x")]
    assert found == [["0", "1"], ["2"], ["3", "4", "5"]]
    assert group_starts(written(tmp_path, "a", "a", "b", "c", "c", "c"), "x") == [0, 2, 3]


def test_a_record_without_object_and_views_in_two_places_are_refused():
    with pytest.raises(
        UsageError, match="x works on the views of an object, but record '1' does not say what it shows"
    ):
        list(groups(views("a", None), "x"))
    with pytest.raises(UsageError, match="got those of 'a' in two places; sort the records by `object`"):
        list(groups(views("a", "b", "a"), "x"))


def test_a_cut_within_a_group_moves_to_its_end(tmp_path):
    """Groups start at 0, 2, 3 of 6. Two shards cut at 3: it is a start. Four cut at 1, 3, 4: 1 moves to 2, 4 to 6."""

    def cuts(num_shards, starts):
        ranges = [CuratedFolder(tmp_path, "x", shard, num_shards).indices(6, starts) for shard in range(num_shards)]
        assert [i for own in ranges for i in own] == list(range(6))
        return [(own.start, own.stop) for own in ranges]

    assert cuts(2, [0, 2, 3]) == [(0, 3), (3, 6)]
    assert cuts(4, [0, 2, 3]) == [(0, 2), (2, 3), (3, 6), (6, 6)]
    assert cuts(2, [0]) == [(0, 6), (6, 6)]
    assert cuts(4, None) == [(0, 1), (1, 3), (3, 4), (4, 6)]


class GroupSizes:
    """Writes down how many views each record's group has."""

    scope = "group"

    def __call__(self, records):
        for group in groups(records(), "group_sizes"):
            for record in group:
                record.metadata["size"] = len(group)
                yield record


def curated(tmp_path, out, num_shards):
    for shard in range(num_shards):
        source = Records(views("a", "a", "b", "c", "c", "c"))
        folder = CuratedFolder(tmp_path / out, "train", shard, num_shards)
        curate(Work(source, {"group_sizes": GroupSizes()}, folder, Ledger(), {}))
    folder.merge()
    return (tmp_path / out / "train.jsonl").read_bytes()


@pytest.mark.parametrize("num_shards", [2, 4])
def test_a_step_on_groups_gives_the_same_in_shards(tmp_path, num_shards):
    whole = curated(tmp_path, "one", 1)
    assert [json.loads(line)["metadata"]["size"] for line in whole.splitlines()] == [2, 2, 1, 3, 3, 3]
    assert curated(tmp_path, "many", num_shards) == whole


def test_scopes_are_one_of_three_and_old_steps_keep_theirs():
    class Old:
        by_record = True

    class Odd:
        scope = "records"

    assert (scope_of(GroupSizes()), scope_of(Old()), scope_of(object())) == ("group", "record", "all")
    with pytest.raises(UsageError, match=r"Odd\.scope: expected one of record, group, all; got 'records'"):
        scope_of(Odd())


# what manifests keep --------------------------------------------------------------------------------------------------

ADDED = (Added("STOP", "rapidocr", 0.55), Added("sign", "detector", 0.9))


def test_a_manifest_keeps_the_object_and_what_was_added_to_captions(tmp_path):
    record = Record("k", captions=[Caption("a sign", added=ADDED), Caption("plain")], object="sign 7")
    row = row_of(record)
    assert row["object"] == "sign 7" and "added" not in row["captions"][1]
    assert row["captions"][0]["added"][0] == {"text": "STOP", "expert": "rapidocr", "score": 0.55}
    assert record_from_row(json.loads(json.dumps(row)), "x") == record
    write_manifest(tmp_path / "m.jsonl", [record])
    assert list(read_manifest(tmp_path / "m.jsonl")) == [record]


def test_which_captions_hold_an_uncertain_ocr_finding_is_a_filter_on_the_manifest(tmp_path):
    captions = {
        "low": ADDED,
        "high": (Added("GO", "rapidocr", 0.8),),
        "other": (Added("sign", "detector", 0.1),),
        "none": (),
    }
    write_manifest(
        tmp_path / "m.jsonl", [Record(key, captions=[Caption("x", added=added)]) for key, added in captions.items()]
    )
    held = [
        record.key
        for record in read_manifest(tmp_path / "m.jsonl")
        for caption in record.captions
        if any(item.expert == "rapidocr" and item.score < 0.6 for item in caption.added)
    ]
    assert held == ["low"]


def test_manifests_of_before_are_read_and_written_as_they_were(tmp_path):
    row = {"key": "k", "captions": [{"text": "a", "source": "human", "language": "en"}], "bag": "b"}
    assert row_of(record_from_row(row, "x")) == row and record_from_row(row, "x").object is None


@pytest.mark.parametrize(
    ("added", "problem"),
    [
        ({}, "'added' of a caption is a list"),
        (["STOP"], "lists {text, expert, score}"),
        ([{"text": "STOP", "expert": "x"}], "lists {text, expert, score}"),
        ([{"text": "STOP", "expert": "x", "score": "high"}], "lists {text, expert, score}"),
        ([{"text": 1, "expert": "x", "score": 0.5}], "are texts"),
    ],
)
def test_broken_provenance_is_refused_with_its_line(added, problem):
    with pytest.raises(UsageError, match=f"line 3: .*{problem}"):
        record_from_row({"key": "k", "captions": [{"text": "a", "added": added}]}, "m.jsonl line 3")


def test_the_hash_of_records_without_an_object_is_what_it_was(tmp_path):
    """Checkpoints hold it: without `object` it must not change."""
    first = fingerprint(written(tmp_path, None, None))
    assert first == "35aa450e7bb13968a0f1b0ecb3aac738"
    assert fingerprint(written(tmp_path, "a", "a")) != first
