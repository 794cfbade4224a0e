"""A source whose captions are translated by a table of the training split."""

from dataclasses import replace

import pytest
from PIL import Image

from capkit.data.records import Caption, Record
from capkit.data.sources.stamps import Stamps
from capkit.data.sources.word_for_word import WordForWord, translated
from capkit.errors import UsageError

TRAINING = [
    ("A red car.", "Um carro vermelho."),
    ("A red cat.", "Um gato vermelho."),
    ("A car.", "Um carro."),
    ("A blue cat.", "Um gato azul."),
    ("A blue car.", "Um carro azul."),
    ("A small cat.", "Um gato pequeno."),
]


class Listed:
    """Records in a list, without pictures."""

    def __init__(self, *captions, languages=("en", "pt-BR")):
        self.records = [
            Record(str(index), captions=[Caption(*pair) for pair in zip(texts, ["human"] * 2, languages, strict=False)])
            for index, texts in enumerate(captions)
        ]

    def __len__(self):
        return len(self.records)

    def record(self, index):
        return self.records[index]

    def image(self, index):
        raise NotImplementedError


def test_captions_are_translated_in_the_order_of_the_original():
    source = WordForWord(Listed(("A small red car!",), ("An ostrich; a cat.",)), Listed(*TRAINING))
    rows = [source.record(index) for index in range(len(source))]
    assert rows[0].captions == [Caption("Um pequeno vermelho carro!", "word table", "pt-BR")]
    assert rows[1].captions[0].text == "An ostrich; um gato."  # words without a translation stay
    assert rows[0].metadata == {"original": ["A small red car!"]} and rows[0].key == "0"


def test_the_table_comes_from_the_training_source_alone():
    more = Listed(*TRAINING, ("A zebra.", "Uma zebra listrada."))
    few = WordForWord(more, Listed(*TRAINING))
    assert "zebra" not in few.table
    other = Listed(*(("A zebra.", "Uma onça.") for _ in range(20)))
    assert WordForWord(other, Listed(*TRAINING)).table == few.table


def test_capitals_punctuation_and_unknown_words_stay():
    assert translated("“Stop!” A red-hot t-shirt, 2 Cats.", {"a": "um", "stop": "pare", "cats": "gatos"}) == (
        "“Pare!” Um red-hot t-shirt, 2 Gatos."
    )


def test_splits_of_the_stamps_are_unchanged(tmp_path):
    for name, (english, native) in zip("abcdefghijkl", TRAINING * 2, strict=True):
        english = english.replace(".", f" {name}.")
        (tmp_path / f"{name}.txt").write_text(f"{english}\npt_BR.utf8={native}\n", encoding="utf-8")
        Image.new("RGB", (2, 2)).save(tmp_path / f"{name}.png")

    def stamps(split, *languages):
        return Stamps(str(tmp_path), split, 0.2, 0.3, exclude=(), languages=languages)

    training = stamps("train", "en", "pt-BR")
    for split in ("train", "val", "test"):
        literal, native = WordForWord(stamps(split, "en"), training), stamps(split, "pt-BR")
        keys = [[source.record(index).key for index in range(len(source))] for source in (literal, native)]
        assert keys[0] == keys[1] and keys[0]
        assert {literal.record(0).captions[0].language, native.record(0).captions[0].language} == {"pt-BR"}


def test_what_has_no_pairs_is_refused():
    with pytest.raises(UsageError, match="two languages"):
        WordForWord(Listed(), Listed(), language="en")
    with pytest.raises(UsageError, match="no training picture has captions in en and in pt-BR"):
        _ = WordForWord(Listed(("A car.",)), Listed(("A car.",))).table


def test_captions_in_other_languages_are_left_out():
    source = Listed(("A car.", "Un coche."), languages=("en", "es"))
    source.records.append(replace(source.records[0], key="1", captions=[Caption("Un coche.", language="es")]))
    literal = WordForWord(source, Listed(*TRAINING))
    assert len(literal.record(0).captions) == 1 and literal.record(1).captions == []
