"""Portuguese from a file to a score: contractions, "ã" and "ç" survive, in composed and in decomposed Unicode."""

import json
import unicodedata
import warnings

import numpy as np
import pytest

from capkit.data.prediction_files import read_captions
from capkit.data.sources.base import clean_captions
from capkit.data.sources.folder import Folder
from capkit.errors import UsageError
from capkit.metrics.coco.bleu import bleu_scores
from capkit.metrics.coco.cider import cider_scores
from capkit.metrics.coco.collected import Bleu, Cider, Meteor, RougeL, Spice
from capkit.metrics.coco.meteor import LANGUAGES, meteor_scores
from capkit.metrics.coco.rouge import rouge_l_scores
from capkit.metrics.diversity import Diversity
from capkit.text.caption_text import clean_text
from capkit.text.normalize import normalize, normalize_all
from capkit.text.ptb import foreign, ptb_words
from capkit.text.tokenizers import decode_captions, encode_captions, split_words, word_tokenizer

CONTRACTIONS = [
    *("do", "da", "dos", "das", "no", "na", "nos", "nas", "pelo", "pela", "pelos", "pelas"),
    *("ao", "à", "às", "num", "numa", "dum", "àquela", "àquele", "d'água"),
]
CAPTIONS = [
    "Um avião pousa na pista, pela manhã.",
    "A criança põe a mão no copo d'água.",
    "O cão do vizinho vai àquela praça.",
    "Corações de maçã à beira d’água",
]
REFERENCES = [
    ["Um avião na pista do aeroporto.", "Avião pousando pela manhã."],
    ["Uma criança com a mão num copo d'água."],
    ["Um cão vai à praça.", "O cão do vizinho foi àquela praça"],
    ["Maçãs em forma de coração à beira d'água."],
]


def decomposed(texts):
    return [unicodedata.normalize("NFD", text) for text in texts]


def composed(texts):
    return [unicodedata.normalize("NFC", text) for text in texts]


assert decomposed(CAPTIONS) != CAPTIONS == composed(CAPTIONS)


@pytest.mark.parametrize("form", [composed, decomposed])
def test_contractions_are_one_word_each_in_every_tokenizer(form):
    text = " ".join(form(CONTRACTIONS))
    assert normalize(text, "pt-BR").split() == CONTRACTIONS
    assert split_words(text) == CONTRACTIONS
    assert clean_text(text).split() == CONTRACTIONS


@pytest.mark.filterwarnings("ignore::capkit.text.ptb.foreign.LanguageWarning")
def test_the_english_tokenizer_keeps_composed_letters_and_contractions():
    words = ptb_words("O cão do vizinho vai àquela praça pela manhã, com um copo d'água.")
    assert " ".join(words) == "o cão do vizinho vai àquela praça pela manhã com um copo d'água"
    # As the COCO tools' does. It is language=pt, or the cleaning of the data, that makes the two forms one word.
    assert ptb_words(unicodedata.normalize("NFD", "cão")) != ["cão"] == ptb_words(clean_text("ca\u0303o"))


@pytest.mark.parametrize("scores", [bleu_scores, rouge_l_scores, cider_scores])
def test_both_forms_score_alike(scores):
    expected = scores(CAPTIONS, REFERENCES, language="pt")
    assert expected.min() < expected.max()
    assert np.array_equal(scores(decomposed(CAPTIONS), REFERENCES, language="pt"), expected)
    assert np.array_equal(scores(CAPTIONS, [decomposed(texts) for texts in REFERENCES], language="pt-BR"), expected)
    foreign._warn_once.cache_clear()
    with pytest.warns(foreign.LanguageWarning):
        assert scores(decomposed(CAPTIONS), REFERENCES).mean() < expected.mean()  # the control: as if English
    foreign._warn_once.cache_clear()


@pytest.mark.java
def test_meteor_matches_portuguese_stems_and_both_forms_alike():
    expected = meteor_scores(CAPTIONS, REFERENCES, language="pt")
    assert meteor_scores(decomposed(CAPTIONS), REFERENCES, language="pt").tolist() == expected.tolist()
    # "meninos correndo" has the stems of "menino correr" in Portuguese only.
    stems = [
        meteor_scores(["dois meninos correndo"], [["um menino correr"]], language=code)[0] for code in ("pt", "nl")
    ]
    assert stems[0] > 0.2 and stems[1] == 0  # Dutch knows neither stem


def test_a_metric_says_so_where_it_does_not_know_the_language():
    with pytest.raises(UsageError, match=r"SPICE: expected language=en.*got 'pt-BR'"):
        Spice(language="pt-BR")
    assert "de" not in LANGUAGES
    with pytest.raises(UsageError, match=r"METEOR: expected a language of .*pt.*got 'de'"):
        Meteor(language="de")
    for metric in (Bleu, RougeL, Cider, Diversity, Meteor):
        with pytest.raises(UsageError, match=r"language must be a code.*'Portuguese language'"):
            metric(language="Portuguese language")
        for unknown, told in (("xx", "got 'xx'"), ("jp-JP", r"ja \(not jp\)"), ("eng", "give en$")):
            with pytest.raises(UsageError, match=told):
                metric(language=unknown)


def test_codes_of_languages_are_taken_in_every_form():
    for code in ("en-GB", "pt_BR", "ZH-tw", "iw", "yue", "fil"):
        assert normalize_all(["Um 2."], code)


def numbers(metric, captions):
    metric.update(captions, REFERENCES)
    return metric.compute()


@pytest.mark.filterwarnings("ignore::capkit.text.ptb.foreign.LanguageWarning")
def test_diversity_knows_where_a_portuguese_caption_breaks_off():
    broken = ["uma mulher na", "um cão com", "um avião", "um copo d'água"]
    assert numbers(Diversity(language="pt"), broken)["bad_endings"] == 0.5
    assert numbers(Diversity(), broken)["bad_endings"] == 0  # the English list has none of these words
    assert "bad_endings" not in numbers(Diversity(language="de"), broken)
    assert numbers(Diversity(language="pt"), decomposed(broken)) == numbers(Diversity(language="pt"), broken)


def test_both_forms_have_one_vocabulary_and_equal_tokens():
    tokenizer = word_tokenizer(CAPTIONS + decomposed(CAPTIONS))
    assert tokenizer.get_vocab() == word_tokenizer(CAPTIONS).get_vocab()
    tokens, mask, start = encode_captions(tokenizer, [CAPTIONS, decomposed(CAPTIONS)], "", 32)
    assert tokens[0].tolist() == tokens[1].tolist()
    texts = decode_captions(tokenizer, tokens, mask, start)
    assert texts[1] == [text.lower() for text in CAPTIONS]


@pytest.mark.parametrize("form", [composed, decomposed])
@pytest.mark.parametrize("escaped", [True, False])
def test_prediction_files_give_the_composed_text(form, escaped, tmp_path):
    file = tmp_path / "predictions.json"
    rows = [{"image_id": number, "caption": text} for number, text in enumerate(form(CAPTIONS))]
    file.write_text(json.dumps(rows, ensure_ascii=escaped), encoding="utf-8")
    read = read_captions(file, "predictions")
    assert [texts for texts in read.captions.values()] == [[text] for text in CAPTIONS]


@pytest.mark.parametrize("form", [composed, decomposed])
def test_a_folder_of_captions_is_learned_in_the_composed_form(form, tmp_path):
    """A GPT-2 or a BERT would read the two forms as different tokens."""
    file = tmp_path / "captions.tsv"
    file.write_text("\n".join(["file\tcaption", *(f"{i}.png\t{text}" for i, text in enumerate(form(CAPTIONS)))]))
    folder = Folder(str(tmp_path), str(file))
    assert [clean_captions(folder.record(i).captions)[0] for i in range(len(folder))] == CAPTIONS


def test_portuguese_metrics_warn_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for metric in (Bleu, RougeL, Cider, Diversity):
            numbers(metric(language="pt"), CAPTIONS)
