"""The file of attention per word, and its page."""

import numpy as np
import pytest

from capkit.errors import UsageError
from capkit.reports.word_attention import AttentionFile, overlay

SHARES = np.array([[[0.25, 0.25], [0.25, 0.25]], [[0.0, 1 / 3], [0.0, 2 / 3]]])


@pytest.fixture
def file(tmp_path):
    made = AttentionFile(tmp_path / "out.jsonl")
    made.append("a.png", "a <red> circle", ["red", "circle"], SHARES)
    made.append("b.png", "", [], SHARES[:0])
    return made


def test_lines_name_image_caption_words_and_cells(file):
    assert file.path.name == "out.attention.jsonl"
    first, second = file.rows()
    assert (first["image"], first["caption"], first["words"]) == ("a.png", "a <red> circle", ["red", "circle"])
    assert first["attention"] == [[[0.25, 0.25], [0.25, 0.25]], [[0.0, 0.3333], [0.0, 0.6667]]]
    assert second["words"] == second["attention"] == []


def test_it_goes_on_behind_what_has_captions(file):
    file.start({"a.png"})  # of b.png the caption was not written: it is written again
    file.append("b.png", "", [], SHARES[:0])
    assert [row["image"] for row in file.rows()] == ["a.png", "b.png", "b.png"]
    with pytest.raises(UsageError, match=r"expected the attention of all 2 images .*, got none of c\.png"):
        file.start({"a.png", "c.png"})
    file.start([])
    assert list(file.rows()) == []


def test_a_line_that_was_cut_off_is_none(file):
    file.path.write_bytes(file.path.read_bytes()[:-5])
    assert [row["image"] for row in file.rows()] == ["a.png"]
    file.start({"a.png"})
    file.append("b.png", "", [], SHARES[:0])
    assert [row["image"] for row in file.rows()] == ["a.png", "b.png"]


def test_other_lines_are_told_by_number(file):
    file.path.write_text(file.path.read_text() + "[1]\n")
    with pytest.raises(UsageError, match="expected an object"):
        list(file.rows())


def test_the_page_has_a_picture_for_each_word(file):
    file.write_page("mine & yours", lambda key: np.full((8, 8, 3), 40, dtype=np.uint8), most=1)
    page = file.page.read_text()
    assert "mine &amp; yours" in page and "a &lt;red&gt; circle" in page and "<red>" not in page
    assert page.count("<img") == 3 and page.count("b.png") == 0
    file.write_page("both", lambda key: np.full((8, 8, 3), 40, dtype=np.uint8), most=5)
    assert file.page.read_text().count("<img") == 4


def test_the_strongest_cell_is_the_reddest_and_stands_where_it_is():
    """Rows are rows: of [[0, 0], [1, .5]] the lower left is red."""
    picture = overlay(np.full((8, 8, 3), 128, dtype=np.uint8), np.array([[0.0, 0.0], [1.0, 0.5]])).astype(int)
    redness = picture[..., 0] - picture[..., 2]
    cells = redness.reshape(2, 48, 2, 48).mean((1, 3))
    assert cells[1, 0] > cells[1, 1] > cells[0, 0] == cells[0, 1] == 0
