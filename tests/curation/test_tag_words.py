"""Captions get tags, once, which go through manifests into batches."""

import json

import pytest

from capkit.cli import main
from capkit.curation.steps.tag_words import TagWords
from capkit.data.records import Caption, Record, record_from_row, row_of
from capkit.errors import UsageError
from capkit.text.lexicon_tagger import LexiconTagger

WORDS = "a,DET\nred,ADJ\ncircle,NOUN\nabove,ADP\n.,PUNCT\n"


@pytest.fixture
def tagger(tmp_path):
    (tmp_path / "words.csv").write_text(WORDS)
    return LexiconTagger(str(tmp_path / "words.csv"))


def test_each_word_and_mark_gets_a_tag_and_classes_are_counted(tagger):
    step = TagWords(tagger)
    (record,) = step(lambda: [Record("0", captions=[Caption("A red circle."), Caption("blue above a circle")])])
    assert [caption.tags for caption in record.captions] == [
        ("DET", "ADJ", "NOUN", "PUNCT"), ("X", "ADP", "DET", "NOUN"),
    ]  # fmt: skip
    assert step.counts == {
        "captions": 2, "function": 2, "object": 4, "relation": 1, "attribute": 1, "unknown_tags": 0,
    }  # fmt: skip
    with pytest.raises(UsageError, match="tag_words needs a tagger"):
        TagWords()


def test_manifests_keep_tags():
    record = Record("0", captions=[Caption("a circle", tags=("DET", "NOUN")), Caption("red")])
    row = json.loads(json.dumps(row_of(record)))
    assert row["captions"] == [
        {"text": "a circle", "source": "human", "language": "en", "tags": ["DET", "NOUN"]},
        {"text": "red", "source": "human", "language": "en"},
    ]
    assert record_from_row(row, "manifest").captions == record.captions
    row["captions"][0]["tags"] = "DET NOUN"
    with pytest.raises(UsageError, match="'tags' of a caption is a list of texts"):
        record_from_row(row, "manifest")


@pytest.mark.integration
def test_a_modular_captioner_is_trained_on_tagged_captions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    classes = "capkit.text.word_classes.WordClasses"
    scenes = "capkit.sceneworld.language.tagging.SceneTagger"
    words = [f"data.word_classes={{_target_: {classes}, tagger: {{_target_: {scenes}}}}}"]
    words += ["model=modular", "objective=modular", "debug=tiny", "data.train.count=40"]
    assert main([*words, "run_dir=run"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert any("train/controller_accuracy" in row for row in rows)
