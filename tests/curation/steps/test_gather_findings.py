import json

import numpy as np
import pytest

from capkit.curation.base import Step, scope_of
from capkit.curation.steps.gather_findings import GatherFindings, findings_of
from capkit.data.images import BadImage
from capkit.data.records import Caption, Record
from capkit.errors import UsageError
from capkit.experts.base import Finding

LEFT, MIDDLE = (0.0, 0.0, 0.4, 0.4), (0.2, 0.0, 0.6, 0.4)  # IoU a third


class Fixed:
    """Finds the same in every picture, and remembers at how many it looked."""

    def __init__(self, name, *found):
        self.name, self.found, self.num_looks = name, found, 0

    def about(self):
        return {"model": self.name, "found": [repr(item) for item in self.found]}

    def look(self, pictures):
        self.num_looks += len(pictures)
        return [list(self.found) for _ in pictures]


def one():
    return Fixed("one", Finding("object", "dog", LEFT, 0.6, "one"), Finding("text", "hi", MIDDLE, 0.2, "one"))


def two():
    return Fixed("two", Finding("object", "dog", MIDDLE, 0.7, "two"), Finding("tag", "park", None, 0.5, "two"))


def read(key):
    if key == "bad":
        raise BadImage("empty file (0 bytes)")
    return np.full((4, 4, 3), int(key), np.uint8)


def gathered(tmp_path, experts, keys=("0", "1", "2"), **settings):
    failures, step = [], GatherFindings(experts, cache_dir=str(tmp_path), **settings)
    step.attach_failures(failures.append)
    step.attach_images(read)
    given = [Record(key, captions=[Caption("a dog")], metadata={"id": key}) for key in keys]
    return list(step(lambda: given)), failures, step


def test_the_sure_ones_are_kept_and_of_one_name_in_one_place_the_surest(tmp_path):
    """Floor .3: the text of .2 goes. The two dogs overlap by a third: above .3, below .5."""
    (first, *_), failures, step = gathered(tmp_path, {"one": one(), "two": two()}, max_overlap=0.3)
    assert not failures and first.metadata["id"] == "0" and first.captions == [Caption("a dog")]
    assert findings_of(first, "x") == [two().found[0], two().found[1]]
    assert first.metadata["findings"][1] == {"kind": "tag", "text": "park", "box": None, "score": 0.5, "expert": "two"}
    assert step.counts == {
        "below_score": 3, "duplicates": 3, "objects": 3, "tags": 3, "without_findings": 0,
        "one_cached": 0, "one_looked": 3, "two_cached": 0, "two_looked": 3,
    }  # fmt: skip
    (first, *_), _, _ = gathered(tmp_path, {"one": one(), "two": two()}, max_overlap=0.5, min_score=0.0)
    assert findings_of(first, "x") == [*one().found, *two().found]


def test_findings_are_the_same_after_a_manifest(tmp_path):
    (first, *_), _, _ = gathered(tmp_path, {"one": one()})
    again = Record("0", metadata=json.loads(json.dumps(first.metadata)))
    assert findings_of(again, "x") == findings_of(first, "x") == [one().found[0]]


def test_an_unreadable_picture_is_listed_and_the_others_go_on(tmp_path):
    records, failures, step = gathered(tmp_path, {"one": one()}, ("0", "bad", "2"), batch_size=2)
    assert [record.key for record in records] == ["0", "2"]
    assert [(f.key, f.step, f.reason) for f in failures] == [
        ("bad", "gather_findings", "picture: empty file (0 bytes)")
    ]
    assert step.counts["one_looked"] == 2


def test_a_run_that_was_stopped_looks_only_at_what_it_had_not(tmp_path):
    gathered(tmp_path, {"one": one()}, ("0", "1"))
    again = one()
    records, _, step = gathered(tmp_path, {"one": again}, min_score=0.1)
    assert again.num_looks == 1 and step.counts["one_cached"] == 2
    assert [len(record.metadata["findings"]) for record in records] == [2, 2, 2], "another floor costs no look"


def test_batches_change_nothing(tmp_path):
    whole, _, _ = gathered(tmp_path / "a", {"one": one(), "two": two()})
    assert gathered(tmp_path / "b", {"one": one(), "two": two()}, batch_size=1)[0] == whole


@pytest.mark.unchecked
def test_it_is_a_step_and_wants_experts(tmp_path):
    step = GatherFindings({"one": one(), "none": None}, cache_dir=str(tmp_path))
    assert isinstance(step, Step) and scope_of(step) == "record"
    for experts in (None, {}, {"one": None}):
        with pytest.raises(UsageError, match=r"add expert=\[ocr,tagger\]"):
            GatherFindings(experts)
    with pytest.raises(UsageError, match=r"expert\.blind: expected an object with about and look"):
        GatherFindings({"blind": object()}, cache_dir=str(tmp_path))
    with pytest.raises(UsageError, match=r"record '0' has no findings; .*step=\[gather_findings,fuse_findings\]"):
        findings_of(Record("0"), "fuse_findings")
