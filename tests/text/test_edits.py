from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capkit.errors import UsageError
from capkit.text.corruption import KINDS, Edits, vocabulary_of, words_and_end

CAPTION = "a red circle to the left of a blue square"
EDITS = Edits(["zebra", "yak", "xylophone"])  # none of them in CAPTION
WORDS = st.text(st.sampled_from("aAbB.,!"), min_size=1, max_size=3)


def words(text: str) -> list[str]:
    return text.casefold().split()


def longest_common(a: list[str], b: list[str]) -> int:
    """Length of the longest common subsequence."""
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


def edited(kind: str, caption: str = CAPTION, count: int = 300) -> list[list[str]]:
    edits = [EDITS.of_kind(kind, caption, i) for i in range(count)]
    return [words(edit.text) for edit in edits if edit is not None]


def test_repeat_adds_one_to_three_copies_of_one_ngram_and_loses_nothing():
    source, added = words(CAPTION), set()
    for result in edited("repeat"):
        extra = Counter(result) - Counter(source)
        added.add(extra.total())
        assert longest_common(source, result) == len(source)
        assert any(
            extra == Counter({word: n * copies for word, n in Counter(source[start : start + length]).items()})
            for copies in (1, 2, 3)
            for length in (1, 2, 3)
            for start in range(len(source) - length + 1)
        )
    assert added == {1, 2, 3, 4, 6, 9}


def test_remove_drops_one_to_three_neighbouring_words():
    source, found = words(CAPTION), set()
    for result in edited("remove"):
        dropped = [(s, n) for n in (1, 2, 3) for s in range(len(source)) if source[:s] + source[s + n :] == result]
        assert dropped
        found.add(len(source) - len(result))
    assert found == {1, 2, 3}


def test_insert_puts_in_one_to_three_vocabulary_words():
    found = set()
    for result in edited("insert"):
        assert [word for word in result if word not in EDITS.vocabulary] == words(CAPTION)
        found.add(len(result) - len(words(CAPTION)))
    assert found == {1, 2, 3}


def test_swap_replaces_one_to_three_words_by_vocabulary_words():
    source, found = words(CAPTION), set()
    for result in edited("swap"):
        changed = [new for old, new in zip(source, result, strict=True) if old != new]
        assert set(changed) <= set(EDITS.vocabulary)
        found.add(len(changed))
    assert found == {1, 2, 3}


def test_shuffle_keeps_the_words_and_changes_their_order():
    results = edited("shuffle")
    assert all(sorted(result) == sorted(words(CAPTION)) and result != words(CAPTION) for result in results)
    assert len({tuple(result) for result in results}) > 250


def test_a_swapped_word_is_never_replaced_by_itself():
    # One of two words is "left alone" in half of all draws if the vocabulary word may be the same.
    edits = Edits(["cat", "dog"])
    assert {edits.of_kind("swap", "Cat", i).text for i in range(50)} == {"dog"}
    assert {edits.of_kind("swap", "cat, dog", i).text for i in range(200)} == {"dog, dog", "cat, cat", "dog, cat"}


@pytest.mark.parametrize(
    ("caption", "vocabulary", "possible"),
    [
        ("cat", ["cat"], ["repeat", "insert"]),  # swap would need another word
        ("cat", ["cat", "dog"], ["repeat", "insert", "swap"]),
        ("cat", [], ["repeat"]),
        ("The the", ["dog"], ["repeat", "remove", "insert", "swap"]),  # every order reads the same
        ("a cat", ["dog"], list(KINDS)),
        ("Stop!", ["dog"], ["repeat", "insert", "swap"]),  # the mark at the end is no word
    ],
)
def test_kinds_that_cannot_change_a_short_caption_are_not_drawn(caption, vocabulary, possible):
    edits = Edits(vocabulary)
    assert edits.possible(caption) == possible
    assert {edits.draw(caption, i).kind for i in range(300)} == set(possible)
    assert all(edits.of_kind(kind, caption, 0) is None for kind in set(KINDS) - set(possible))


@given(st.lists(WORDS, min_size=1, max_size=5), st.lists(st.sampled_from(["a", "b", "ab"]), max_size=3), st.integers())
def test_a_negative_is_never_empty_and_never_equals_its_source(caption, vocabulary, key):
    source = " ".join(caption)
    edit = Edits(vocabulary).draw(source, key)
    assert edit.text.strip() and words(edit.text) != words(source)


@pytest.mark.unchecked
def test_all_kinds_are_equally_likely():
    counts = Counter(EDITS.draw(CAPTION, i).kind for i in range(5000))
    # 1,000 each, standard deviation 28: five of them
    assert set(counts) == set(KINDS) and all(abs(n - 1000) < 140 for n in counts.values())


def test_an_edit_is_a_function_of_its_key_alone():
    first = [EDITS.draw(CAPTION, 0, epoch, 7, 0) for epoch in range(20)]
    other = Edits(["yak", "xylophone", "zebra", "zebra"])
    assert [other.draw(CAPTION, 0, epoch, 7, 0) for epoch in reversed(range(20))] == first[::-1]
    assert len(set(first)) > 15


def test_the_mark_that_ends_a_caption_stays_at_the_end():
    assert words_and_end("A dog barks.") == (["A", "dog", "barks"], ".")
    assert words_and_end("Really ?!") == (["Really"], " ?!")
    assert words_and_end("...") == (["..."], "")
    for kind in KINDS:
        assert all(EDITS.of_kind(kind, "A dog barks.", i).text.endswith(".") for i in range(20))
        assert all("." not in EDITS.of_kind(kind, "A dog barks.", i).text[:-1] for i in range(20))


def test_the_vocabulary_has_each_word_once_without_case_and_marks():
    assert vocabulary_of(["A dog, a cat.", 'The "Dog" isn\'t - here']) == ["a", "cat", "dog", "here", "isn't", "the"]


def test_a_caption_without_words_is_refused():
    with pytest.raises(UsageError, match="at least one word"):
        EDITS.draw("  ")
    with pytest.raises(UsageError, match="did you mean 'shuffle'"):
        EDITS.of_kind("shufle", CAPTION)
