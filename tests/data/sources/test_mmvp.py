import numpy as np
import pytest
from PIL import Image

from capkit.data.sources.mmvp import MMVP
from capkit.errors import UsageError

QUESTIONS = """\
Question ID,Type,Statement
1,Quantity and Count,one dog
2,Quantity and Count,"two dogs, both asleep"
3,Color and Appearance,a red car
4,Color and Appearance,a blue car
"""


@pytest.fixture
def folder(tmp_path):
    for number, kind in enumerate(["Quantity and Count"] * 2 + ["Color and Appearance"] * 2, 1):
        place = tmp_path / "MLLM_VLM Images" / kind
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((3, 5, 3), 50 * number, np.uint8)).save(place / f"{number}.jpg")
    (tmp_path / "Questions.csv").write_text(QUESTIONS)
    return tmp_path


def test_each_picture_has_its_statement_and_odd_and_next_question_share_a_bag(folder):
    source = MMVP(str(folder))
    records = [source.record(index) for index in range(len(source))]
    assert [record.key for record in records] == ["1", "2", "3", "4"]
    assert [record.captions[0].text for record in records] == [
        "one dog", "two dogs, both asleep", "a red car", "a blue car",
    ]  # fmt: skip
    assert [record.bag for record in records] == ["1", "1", "3", "3"]
    assert records[3].metadata == {"kind": "Color and Appearance"}
    assert [round(float(source.image(index).mean())) for index in range(4)] == [50, 100, 150, 200]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Question ID", "id", "line 1: expected the columns Question ID, Type, Statement"),
        (
            "2,Quantity and Count",
            "5,Quantity and Count",
            "expected an odd question and the next as a pair, got 1 and 5",
        ),
        ("1,Quantity and Count,one dog\n", "", "got 3 rows"),
        ("4,Color", "x,Color", "line 5: expected a whole number"),
        ("a red car", "", "line 4: expected a whole number, a type and a statement"),
    ],
)
def test_other_tables_are_refused(folder, old, new, message):
    (folder / "Questions.csv").write_text(QUESTIONS.replace(old, new))
    with pytest.raises(UsageError, match=message):
        MMVP(str(folder))


def test_pairs_that_start_with_an_even_question_are_refused(folder):
    """Each question would be paired with a stranger."""
    lines = QUESTIONS.splitlines()
    (folder / "Questions.csv").write_text("\n".join([lines[0], *lines[2:4]]) + "\n")
    with pytest.raises(UsageError, match="got 2 and 3"):
        MMVP(str(folder))
