import unicodedata
import warnings

import pytest

from capkit.errors import UsageError
from capkit.text.normalize import normalize, normalize_all
from capkit.text.ptb import foreign, ptb_tokenize


@pytest.fixture(autouse=True)
def _forget_warning():
    foreign._warn_once.cache_clear()
    yield
    foreign._warn_once.cache_clear()


def test_english_is_the_ptb_tokenizer():
    lines = ["A man can't ride.", "Two dogs (brown)."]
    assert normalize_all(lines) == normalize_all(lines, "en-GB") == ptb_tokenize(lines)
    assert normalize("A man can't ride.") == "a man ca n't ride"


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("pt", "Uma MULHER está à beira d'água, com guarda-chuva.", "uma mulher está à beira d'água com guarda-chuva"),
        ("pt-BR", "«Não», disse o avô: 3,5 maçãs!", "não disse o avô 3,5 maçãs"),
        ("fr", "L’homme à l’œil — là-bas…", "l'homme à l'œil là-bas"),
        ("de", "Ein großer Bär, 2. Klasse (1.500 kg)", "ein großer bär 2 klasse 1.500 kg"),
        ("tr", "IŞIK İyi", "ışık iyi"),
        ("ru", "Кошка сидит на ковре.", "кошка сидит на ковре"),
        ("zh", "一只猫, 坐着。", "一 只 猫 坐 着"),
        ("hi", "लड़की किताब पढ़ रही है।", unicodedata.normalize("NFC", "लड़की किताब पढ़ रही है")),
        ("ko", "고양이가 앉아 있다.", "고양이가 앉아 있다"),
        ("es", "?! ... 😀", ""),
    ],
)
def test_other_languages_keep_their_letters_and_lose_punctuation(language, text, expected):
    assert normalize(text, language) == expected


def test_composed_and_decomposed_accents_are_the_same_word():
    word = "avião"
    assert normalize(unicodedata.normalize("NFD", word), "pt") == normalize(word, "pt") == word


def test_words_with_letters_and_digits_stay_whole():
    assert normalize("o 2º andar do A4, às 12:30", "pt") == "o 2º andar do a4 às 12:30"


def test_something_that_is_no_language_code_is_refused_with_the_fix():
    with pytest.raises(UsageError, match=r"'en', 'pt'.*got 'Portuguese language'"):
        normalize("x", "Portuguese language")


@pytest.mark.parametrize(
    "lines",
    [
        ["Um homem está em pé na praça.", "Uma criança com um avião de papel na mão."],
        ["Кошка сидит на старом ковре"],
    ],
)
def test_the_english_tokenizer_warns_once_when_fed_another_language(lines):
    with pytest.warns(foreign.LanguageWarning, match=r"set language=pt \(or de, ru"):
        ptb_tokenize(lines)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ptb_tokenize(lines)


@pytest.mark.parametrize(
    ("lines", "language"),
    [
        (["盘子放在蓝色的桌子上"], "zh"),
        (["一只猫 坐在 桌子上"], "zh"),
        (["赤い皿がテーブルにある"], "ja"),
        (["แมวนั่งบนเสื่อ"], "th"),
    ],
)
def test_one_sentence_without_spaces_warns_with_the_language_to_set(lines, language):
    with pytest.warns(foreign.LanguageWarning, match=f"single word of a sentence .*set language={language}: .*score"):
        ptb_tokenize(lines)
    assert len(normalize(lines[0], language).split()) > 5


def test_a_foreign_word_on_a_sign_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ptb_tokenize(["a sign that says 出口 hangs on the wall of a house"])


def test_english_with_borrowed_words_does_not_warn():
    lines = ["A woman sits in a café with a naïve smile, and a long sentence around it."] + [
        "A plain one about two brown dogs."
    ] * 9
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ptb_tokenize([*lines, "😀 “quoted” — text"])
