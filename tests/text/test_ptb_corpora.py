import json

import pytest

from benchmarks.ptb import corpora as ptb_corpora
from benchmarks.ptb import parity as ptb_parity
from capkit.errors import UsageError


def test_wordnet_glosses_are_split_into_definition_and_examples(tmp_path):
    (tmp_path / "data.noun").write_text(
        '  1 a | licence line\n0001 03 n 01 hut 0 000 | a small house; "a mud hut"; "x; y"  \n'
    )
    assert ptb_corpora.wordnet_lines(tmp_path) == ["a small house", '"a mud hut"', '"x; y"']


def test_stamp_captions_are_the_first_lines(tmp_path):
    (tmp_path / "cat.txt").write_text("A cat.\npt.utf8=Um gato.\n")
    (tmp_path / "none.txt").write_text("\nde.utf8=Nichts.\n")
    assert ptb_corpora.stamp_lines(tmp_path) == ["A cat."]


def test_clipart_texts_are_unescaped_and_on_one_line(tmp_path):
    (tmp_path / "a.svg").write_text(
        "<dc:title>Salt &amp; pepper</dc:title><dc:description>two\r\nlines</dc:description>"
    )
    assert ptb_corpora.clipart_lines(tmp_path) == ["Salt & pepper", "two lines"]


def test_emoji_names_tags_and_skins_are_read(tmp_path):
    (tmp_path / "en").mkdir()
    entry = {"label": "waving hand", "emoji": "👋", "tags": ["hello"], "skins": [{"label": "waving hand: light"}]}
    (tmp_path / "en" / "data.json").write_text(json.dumps([entry]))
    assert ptb_corpora.emoji_lines(tmp_path) == ["waving hand", "hello", "waving hand: light", "👋 waving hand"]


def test_a_package_that_cannot_be_fetched_names_the_option(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"no apt-get here.*--wordnet DIR"):
        ptb_corpora.debian_package("wordnet-base", tmp_path / "cache")


def test_an_empty_corpus_folder_is_an_error_without_traceback(tmp_path, capsys):
    assert ptb_parity.main(["--wordnet", str(tmp_path)]) == 2
    assert "wanted the wordnet corpus" in capsys.readouterr().err


def test_only_unequal_lines_are_differences():
    assert ptb_parity.differences(["a", "b", "c"], ["a", "x", None], ["a", "b", "c"]) == [
        ("b", "x", "b"),
        ("c", None, "c"),
    ]
