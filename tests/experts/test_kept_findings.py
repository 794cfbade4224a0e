import numpy as np
import pytest

from capkit.experts.base import Expert, Finding
from capkit.experts.kept import KeptFindings, kept_findings
from capkit.llm.base import Answer, Picture
from capkit.llm.cache import AnswerStore


class Brightness:
    """Says how bright a picture is, and remembers at how many it looked."""

    def __init__(self, unit=1):
        self.unit, self.num_looks = unit, 0

    def about(self):
        return {"model": "brightness", "unit": self.unit}

    def look(self, pictures):
        self.num_looks += len(pictures)
        return [[Finding("tag", str(int(p.pixels.mean()) * self.unit), None, 0.25, "brightness")] for p in pictures]


def picture(value):
    return Picture(np.full((3, 4, 3), value, np.uint8))


def test_a_picture_is_looked_at_once_whatever_the_batch_and_the_process(tmp_path):
    first = KeptFindings(Brightness(), tmp_path)
    assert isinstance(first, Expert)
    plain = Brightness().look([picture(5), picture(7), picture(5)])
    assert first.look([picture(5), picture(7), picture(5)]) == plain
    assert first._expert.num_looks == 2, "equal pictures are one"
    again = KeptFindings(Brightness(), tmp_path)
    assert again.look([picture(7), picture(9)]) == Brightness().look([picture(7), picture(9)])
    assert again._expert.num_looks == 1 and dict(again.counts) == {"cached": 1, "looked": 1}


def test_another_setting_of_the_expert_is_another_expert(tmp_path):
    KeptFindings(Brightness(), tmp_path).look([picture(5)])
    other = KeptFindings(Brightness(unit=2), tmp_path)
    assert other.look([picture(5)])[0][0].text == "10" and other._expert.num_looks == 1


def test_a_picture_of_another_shape_with_the_same_bytes_is_another(tmp_path):
    kept = KeptFindings(Brightness(), tmp_path)
    kept.look([Picture(np.zeros((3, 4, 3), np.uint8))])
    kept.look([Picture(np.zeros((4, 3, 3), np.uint8))])
    assert kept._expert.num_looks == 2


def test_boxes_kinds_and_scores_come_back_as_they_were(tmp_path):
    found = [[Finding("text", "é", (0.1, 0.2, 0.3, 1.0), 0.123456789, "x"), Finding("tag", "", None, 0.0, "y")], []]
    store = AnswerStore(tmp_path, {"findings": 1})
    assert kept_findings(store, ["a", "b"], lambda places: [found[i] for i in places]) == (found, 0)
    again = AnswerStore(tmp_path, {"findings": 1})
    assert kept_findings(again, ["b", "a"], lambda places: pytest.fail("was known")) == (found[::-1], 2)


def test_lines_of_earlier_versions_are_objects(tmp_path):
    store = AnswerStore(tmp_path, {"detections": 1})
    store.add("k", Answer('[["dog", [0.0, 0.0, 0.5, 1.0], 0.75]]'))
    found, _ = kept_findings(store, ["k"], lambda places: pytest.fail("was known"))
    assert found == [[Finding("object", "dog", (0.0, 0.0, 0.5, 1.0), 0.75)]]
