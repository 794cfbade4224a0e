import warnings

import pytest

from capkit.errors import UsageError
from capkit.text.caption_text import are_words, caption_texts, clean_text, printed_list


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        ("a dog", ["a dog"]),
        ("dog", ["dog"]),
        (["dog"], ["dog"]),
        (["a dog", "dog"], ["a dog", "dog"]),
        (["dog", "puppy"], ["dog", "puppy"]),
        ({"raw": "a dog", "tokens": ["a", "dog"]}, ["a dog"]),
        ([{"text": "dog"}, {"caption": "puppy"}], ["dog", "puppy"]),
        (["一只狗", "狗在跑"], ["一只狗", "狗在跑"]),
        ("[laughs] a dog", ["[laughs] a dog"]),
        ("[laughs]", ["[laughs]"]),
        ([], []),
    ],
)
def test_captions_are_read_as_they_stand(value, texts):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert caption_texts(value, "f") == texts


@pytest.mark.parametrize(
    ("text", "texts"),
    [
        ("['a dog', \"a dog's ball\"]", ["a dog", "a dog's ball"]),
        ('["a dog", "one \\ud83d\\ude00 dog"]', ["a dog", "one 😀 dog"]),
        ("['a dog runs'\n 'one\n dog']", ["a dog runs", "one  dog"]),
        ("['a dog',]", ["a dog"]),
        ("[]", []),
        ("['a', b]", None),
        ("['a'] and more", None),
        ("'a'", None),
        ("[" + "'a' " * 5000 + "x", None),
    ],
    ids=["Python", "JSON", "numpy", "comma at the end", "empty", "names", "text behind it", "no list", "hostile"],
)
def test_printed_lists_are_recognised(text, texts):
    assert printed_list(text) == texts


def test_printed_list_is_read_as_its_captions_with_a_warning():
    with pytest.warns(UserWarning, match="captions hold lists printed as text"):
        assert caption_texts(["['a dog', 'one dog']", "it runs"], "f") == ["a dog", "one dog", "it runs"]


@pytest.mark.parametrize(
    "value", [["a", "dog", "."], ["a", "dog"], ["dogs", "run", "fast"], ["一只", "狗", "在", "跑"]]
)
def test_words_of_one_caption_are_refused(value):
    assert are_words(value)
    with pytest.raises(UsageError, match=r"f line 3: expected captions, got the words of one, .*join them with spaces"):
        caption_texts(value, "f line 3")


@pytest.mark.filterwarnings("ignore:captions hold lists")
def test_words_in_a_printed_list_are_refused():
    with pytest.raises(UsageError, match="the words of one"):
        caption_texts("['a', 'dog']", "f")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "null"),
        (3, "3"),
        (True, "true"),
        ([None], "null"),
        ([["a dog"]], "a list ['a dog']"),
        ({"text": 4}, "4"),
        ({"tokens": ["a"]}, "an object {'tokens': ['a']}"),
    ],
)
def test_captions_of_another_type_are_told(value, shown):
    with pytest.raises(UsageError) as caught:
        caption_texts(value, "f entry 2")
    assert str(caught.value) == f"f entry 2: expected a caption as text, or a list of them; got {shown}"


def test_cleaning_leaves_one_line_that_tokenizers_take():
    assert clean_text(" a\x00b\t\n c \ud83d d\u2028e ") == "a b c d e"
