import json

import pytest

from capkit.errors import UsageError
from capkit.metrics.chair import Chair, ObjectLexicon, chair

SYNONYMS = """person, man, woman, people, child
dog, puppy
cat
chair, seat
toilet
tie
dining table, table
traffic light, stop light
bird
train
plate
knife
"""


@pytest.fixture
def synonyms(tmp_path):
    path = tmp_path / "synonyms.txt"
    path.write_text(SYNONYMS)
    return str(path)


def test_scores_of_a_hand_worked_example():
    numbers = chair([["dog", "dog", "cat"], ["person"], []], [{"dog"}, {"person", "cat"}, {"bird"}])
    assert numbers["chair_s"] == pytest.approx(1 / 3)
    assert numbers["chair_i"] == pytest.approx(1 / 4)  # four mentions, one of them absent
    assert numbers["chair_mentions"] == pytest.approx(4 / 3)
    assert numbers["chair_recall"] == pytest.approx(2 / 4)


def test_saying_nothing_is_no_hallucination_and_shows_in_the_mentions():
    assert chair([[], []], [{"dog"}, set()]) == {"chair_s": 0, "chair_i": 0, "chair_mentions": 0, "chair_recall": 0}


def test_mentions_are_synonyms_plurals_and_the_longest_name(synonyms):
    mentions = ObjectLexicon(synonyms).mentions
    assert mentions("Two men and their puppies.") == ["person", "dog"]
    assert mentions("children with knives near the dining tables") == ["person", "knife", "dining table"]
    assert mentions("a traffic light above a table") == ["traffic light", "dining table"]
    assert mentions("a cat, a cat") == ["cat", "cat"]
    assert mentions("a catalogue of doggerel") == []


def test_coco_phrases_are_read_as_the_authors_read_them(synonyms):
    mentions = ObjectLexicon(synonyms).mentions
    assert mentions("a baby bird") == ["bird"]
    assert mentions("passenger trains") == ["train"]
    assert mentions("a toilet seat") == ["toilet"]
    assert mentions("a man with a bow tie at home plate") == ["person", "tie"]


def test_an_object_is_there_if_a_reference_names_it(synonyms):
    numbers = Chair(synonyms).score(["a puppy and a cat"], [["a dog on a chair"]], [{}])
    assert numbers["chair_i"] == pytest.approx(1 / 2)
    assert numbers["chair_recall"] == pytest.approx(1 / 2)


def test_instances_and_metadata_add_objects(synonyms, tmp_path):
    content = {
        "categories": [{"id": 1, "name": "cat"}, {"id": 7, "name": "dining table"}],
        "annotations": [{"image_id": 42, "category_id": 1}, {"image_id": 43, "category_id": 7}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    metric = Chair(synonyms, instances=str(tmp_path / "instances.json"))
    rows = ["a puppy and a cat at a table"], [["a dog"]]
    assert metric.score(*rows, [{"key": "42"}])["chair_i"] == pytest.approx(1 / 3)  # the table
    assert metric.score(*rows, [{"key": "42", "objects": ["table"]}])["chair_i"] == 0
    assert metric.score(*rows, [{"key": "44"}])["chair_i"] == pytest.approx(2 / 3)
    without = Chair(synonyms, instances=str(tmp_path / "instances.json"), use_references=False)
    assert without.score(*rows, [{"key": "42"}])["chair_i"] == pytest.approx(2 / 3)


def test_a_picture_of_unknown_content_is_an_error(synonyms):
    with pytest.raises(UsageError, match="does not know what is in image 'x'"):
        Chair(synonyms).score(["a cat"], [[]], [{"key": "x"}])


def test_state_gives_the_same_numbers(synonyms):
    metric = Chair(synonyms)
    metric.update(["a puppy"], [["a dog"]])
    metric.update(["a cat", "a bird"], [["a dog"], ["a bird"]])
    assert metric.compute()["chair_s"] == pytest.approx(1 / 3)


def test_bad_files_are_refused(synonyms, tmp_path):
    with pytest.raises(UsageError, match="one object per line"):
        Chair(str(tmp_path / "missing.txt"))
    (tmp_path / "twice.txt").write_text("cat, pet\ndog, pet\n")
    with pytest.raises(UsageError, match="'pet'"):
        Chair(str(tmp_path / "twice.txt"))
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(UsageError, match="empty"):
        Chair(str(tmp_path / "empty.txt"))
    (tmp_path / "instances.json").write_text('{"categories": [{"id": 1, "name": "unicorn"}], "annotations": []}')
    with pytest.raises(UsageError, match="'unicorn' is not in the synonyms"):
        Chair(synonyms, instances=str(tmp_path / "instances.json"))
