"""A small folder in the stamps' form, drawn here: the real ones are under another licence and are never committed."""

import numpy as np
import pytest
from PIL import Image

from capkit.data.records import Caption
from capkit.data.sources.stamps import Stamps, normalized_caption, read_captions, split_of
from capkit.errors import UsageError


def stamp(root, name, lines, suffix=".png", mode="RGBA"):
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.with_suffix(".txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if suffix == ".png":
        picture = Image.new(mode, (6, 4))
        if mode == "RGBA":
            picture.putpixel((0, 0), (255, 0, 0, 255))
        picture.save(file.with_suffix(".png"))
    elif suffix:
        file.with_suffix(suffix).write_text("<svg/>")


@pytest.fixture
def root(tmp_path):
    stamp(tmp_path, "animals/cats/lion", ["A lion.", "pt_BR.utf8=Um leão.", "pt.utf8=Um leão."])
    stamp(tmp_path, "animals/cats/lion2", ["A lion."])
    stamp(tmp_path, "town/house", ["A house.", "sr@latin.utf8=Kuća."])
    stamp(tmp_path, "town/drawn", ["A tower."], suffix=".svg")
    stamp(tmp_path, "seasonal/gift", ["A gift."], suffix="")
    stamp(tmp_path, "symbols/alphabets/a", ["The letter a."])
    return str(tmp_path)


def keys(source):
    return [source.record(index).key for index in range(len(source))]


def test_pictures_pair_with_the_english_first_line_and_symbols_stay_out(root):
    source = Stamps(root)
    assert keys(source) == ["animals/cats/lion", "animals/cats/lion2", "town/house"]
    record = source.record(0)
    assert record.captions == [Caption("A lion.")]
    assert record.image == "animals/cats/lion.png"
    assert record.metadata == {"category": "animals"}


def test_what_is_excluded_is_a_choice(root):
    assert "symbols/alphabets/a" in keys(Stamps(root, exclude=[]))
    assert keys(Stamps(root, exclude=["symbols", "animals/cats"])) == ["town/house"]


def test_an_excluded_folder_that_does_not_exist_is_an_error(root):
    with pytest.raises(UsageError, match=r"exclude: \['animal'\] are no folders"):
        Stamps(root, exclude=["animal"])


def test_other_languages_keep_their_tags(root):
    everything = Stamps(root, languages=None)
    assert everything.record(0).captions == [
        Caption("A lion."),
        Caption("Um leão.", language="pt-BR"),
        Caption("Um leão.", language="pt"),
    ]
    assert everything.record(2).captions[1] == Caption("Kuća.", language="sr-Latn")
    assert [c.language for c in Stamps(root, languages=["pt"]).record(0).captions] == ["pt"]
    assert keys(Stamps(root, languages=["pt"])) == ["animals/cats/lion"]


def test_lines_that_are_no_captions_are_passed_over(tmp_path):
    file = tmp_path / "x.txt"
    file.write_text(
        " A cat. \n\n# a comment\nfr.utf8=\nde.utf8=Eine Katze = Tier.\nca@valencia.utf8=Un gat.\n", "utf-8"
    )
    assert list(read_captions(file)) == [
        Caption("A cat."),
        Caption("Eine Katze = Tier.", language="de"),
        Caption("Un gat.", language="ca-valencia"),
    ]


def test_transparency_becomes_white(root):
    image = Stamps(root).image(0)
    assert image.shape == (4, 6, 3)
    assert image[0, 0].tolist() == [255, 0, 0]
    assert (np.delete(image.reshape(-1, 3), 0, axis=0) == 255).all()


@pytest.mark.parametrize(
    ("left", "right"), [("A lion.", "a  LION!"), ("The lion", "lion"), ("An “ant”", "ant"), ("Some milk", "Milk.")]
)
def test_captions_that_say_the_same_share_a_split(left, right):
    assert normalized_caption(left) == normalized_caption(right)
    assert {split_of(left, 0.3, 0.3, seed) == split_of(right, 0.3, 0.3, seed) for seed in range(50)} == {True}


def test_an_article_alone_and_other_words_stay():
    assert normalized_caption("The.") == "the"
    assert normalized_caption("A lion") != normalized_caption("A lioness")


def test_splits_are_disjoint_cover_everything_and_never_part_equal_captions(tmp_path):
    for number in range(200):
        stamp(tmp_path, f"things/{number}", [f"Thing {number % 80}."])
    (tmp_path / "symbols").mkdir()
    parts = {split: Stamps(str(tmp_path), split) for split in ("train", "val", "test")}
    names = {split: set(keys(source)) for split, source in parts.items()}
    assert sum(map(len, names.values())) == 200 == len(set.union(*names.values()))
    captions = {
        split: {source.record(i).captions[0].text for i in range(len(source))} for split, source in parts.items()
    }
    assert len(set.union(*captions.values())) == sum(map(len, captions.values())) == 80
    # 80 captions at 70/10/20: within four standard deviations of a binomial
    assert abs(len(captions["test"]) - 16) <= 14 and abs(len(captions["train"]) - 56) <= 16


def test_the_seed_moves_captions_between_splits():
    captions = [f"Thing {number}." for number in range(60)]
    assert [split_of(c, 0.1, 0.2, 0) for c in captions] != [split_of(c, 0.1, 0.2, 1) for c in captions]


def test_the_split_never_changes():
    """Pinned: published numbers belong to this split."""
    captions = ["A zebra.", "Our moon.", "A key.", "A boat."]
    assert [split_of(c, 0.1, 0.2, 0) for c in captions] == ["train", "test", "train", "test"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "dev"}, "expected split to be one of all, train, val, test; got 'dev'"),
        ({"val": 0.5, "test": 0.5}, "together below 1"),
        ({"val": -0.1}, "val: expected a finite number of at least 0 and less than 1"),
        ({"root": "/nowhere"}, "capkit prepare data=stamps"),
    ],
)
def test_wrong_arguments_are_usage_errors(root, arguments, message):
    with pytest.raises(UsageError, match=message):
        Stamps(**{"root": root, **arguments})


def test_nothing_left_is_an_error_that_says_what_to_check(root):
    with pytest.raises(UsageError, match=r"check exclude, and data.languages: captions are in en, pt, pt-BR"):
        len(Stamps(root, languages=["xx"]))
