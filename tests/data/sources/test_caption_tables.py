"""Tables as people hand them round; each is read with the right captions, or refused with line and separator."""

from pathlib import Path

import pytest

from capkit.data.sources.caption_tables import read_table
from capkit.errors import UsageError

TWO = {"a.jpg": ["A plate , one .", "A plate , two ."], "b.png": ["A cup ."]}
TOKEN = "a.jpg#0\tA plate , one .\na.jpg#1\tA plate , two .\nb.png#0\tA cup .\n"


def read(text: str, name: str = "c.csv") -> dict[str, list[str]]:
    captions: dict[str, list[str]] = {}
    for row in read_table(text, Path(name)):
        captions.setdefault(row.file, []).extend(text.strip() for text in row.captions)
    return captions


@pytest.mark.parametrize(
    "text",
    [
        TOKEN,
        "image\tcaption\n" + TOKEN,
        TOKEN.replace("\t", " | "),
        "image_name| comment_number| comment\n"
        "a.jpg| 0| A plate , one .\na.jpg| 1| A plate , two .\nb.png| 0| A cup .\n",
        "a.jpg| 0| A plate , one .\na.jpg| 1| A plate , two .\nb.png| 0| A cup .\n",
        "a.jpg, A plate , one .\na.jpg, A plate , two .\nb.png,A cup .\n",
        'a.jpg,"A plate , one ."\na.jpg,"A plate , two ."\nb.png,A cup .\n',
        "a.jpg: A plate , one .\na.jpg: A plate , two .\nb.png: A cup .\n",
        "filepath\ttitle\na.jpg\tA plate , one .\na.jpg\tA plate , two .\nb.png\tA cup .\n",
        'image,caption_0,caption_1\na.jpg,"A plate , one .","A plate , two ."\nb.png,A cup .,\n',
        "image;caption;caption\na.jpg;A plate , one .;A plate , two .\nb.png;A cup .;\n",
        "sep=;\nimage;caption\na.jpg;A plate , one .\na.jpg;A plate , two .\nb.png;A cup .\n",
        "\n\nFile Name|x\n".replace("File Name|x", "FILENAME|Text")
        + "a.jpg|A plate , one .\na.jpg|A plate , two .\nb.png|A cup .\n",
    ],
    ids=[
        "Flickr8k token", "token with header", "token with bars", "Flickr30k results", "results without header",
        "no header", "no header, quotes", "colons", "tabs", "wide", "two caption columns", "Excel", "blank lines",
    ],
)  # fmt: skip
def test_tables_as_they_are_handed_round_are_read(text):
    assert read(text) == TWO


@pytest.mark.filterwarnings("ignore:captions hold lists")
def test_lists_in_a_cell_are_its_captions_with_their_split():
    text = 'raw,sentids,split,filename,img_id\n"[""A plate , one ."", ""A plate , two .""]","[0, 1]",train,a.jpg,0\n'
    (row,) = read_table(text, Path("c.csv"))
    assert (row.file, row.captions, row.split) == ("a.jpg", TWO["a.jpg"], "train")
    printed = "image,captions\na.jpg,\"['A plate , one .', 'A plate , two .']\"\n"
    assert read(printed) == {"a.jpg": TWO["a.jpg"]}


def test_quotes_are_plain_characters_beside_tabs():
    text = 'file\tcaption\np00.jpg\t"open" says the sign\np01.jpg\t"A plate\np02.jpg\tone"\n'
    assert read(text, "c.tsv") == {"p00.jpg": ['"open" says the sign'], "p01.jpg": ['"A plate'], "p02.jpg": ['one"']}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a plate\thttp://x.org/a.jpg\n", "line 1: expected a header that names a column of files"),
        ("a plate\thttp://x.org/a.jpg\n", "download pictures"),
        (
            "a.jpg a plate on a table\n",
            "or rows of a file name and a caption, parted by commas, semicolons, tabs, bars",
        ),
        ("file,title,x\na.jpg,t\n", "line 2: 2 cells for 3 columns; put captions with commas in quotes"),
        (
            "image|n|comment\na.jpg| 4 a dog\n",
            "line 2: 2 cells for 3 columns; they are parted by bars, got 'a.jpg| 4 a dog'",
        ),
        (
            "a.jpg\tx y\nb.jpg,x y\n",
            "line 2: expected a file name and a caption parted by tabs, as in line 1, got 'b.jpg,x",
        ),
        ("a.jpg\tx y\ncaption alone\n", "line 2: expected a file name and a caption parted by tabs"),
        ("a.jpg\ttrain\tx y\n", "line 1: 3 cells, and no header that names them"),
        ('a.jpg,"x" y\n', "line 1: not CSV"),
        ('file,caption\na.jpg,"x\nb.jpg,y"\n', "line 2: a quote opens a cell that takes in further rows"),
        ('file,caption\na.jpg,"x" y\n', "line 2: not CSV"),
        ("id,name\n1,x\n", "got 'id,name'"),
        ("image,when\n", "line 1: no column named caption or text"),
    ],
)
def test_what_cannot_be_read_is_told_with_line_and_separator(text, message):
    with pytest.raises(UsageError) as caught:
        read(text)
    assert message in str(caught.value)
    assert "the columns are" not in str(caught.value) or text.startswith("image,when")


def test_columns_of_captions_that_are_not_read_are_told():
    with pytest.warns(UserWarning, match="captions are read from caption and not from title"):
        assert read("image,title,caption\na.jpg,t,a dog\n") == {"a.jpg": ["a dog"]}
