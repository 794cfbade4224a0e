import pytest

from capkit.curation.steps.align_filter import (
    AlignFilter,
    Counts,
    has_length,
    is_large_enough,
    is_made_of_common_words,
    is_well_proportioned,
    ngrams_of,
    words_of,
)
from capkit.data.records import Caption, Record
from capkit.errors import UsageError


def record(key, *texts, width=640, height=480, image=None):
    return Record(key, image, [Caption(text) for text in texts], metadata={"width": width, "height": height})


def filtered(rule, records):
    return {found.key: [caption.text for caption in found.captions] for found in rule(lambda: iter(records))}


def test_words_are_lower_case_without_punctuation():
    assert words_of("  A Dog's well-worn ball, 2 for 1!\n") == ["a", "dog's", "well-worn", "ball", "2", "for", "1"]
    assert ngrams_of("A red dog") == ["a", "red", "dog", "a red", "red dog"]
    assert ngrams_of("") == []


@pytest.mark.parametrize(("width", "height", "kept"), [(200, 200, True), (199, 900, False), (900, 199, False)])
def test_the_shorter_side_has_200_pixels(width, height, kept):
    assert is_large_enough(width, height, 200) is kept
    assert (
        filtered(AlignFilter(max_aspect=9.0), [record("k", "one two three", width=width, height=height)]) != {}
    ) is kept


@pytest.mark.parametrize(("width", "height", "kept"), [(600, 200, True), (601, 200, False), (200, 601, False)])
def test_the_aspect_is_at_most_three(width, height, kept):
    assert is_well_proportioned(width, height, 3.0) is kept
    assert (filtered(AlignFilter(), [record("k", "one two three", width=width, height=height)]) != {}) is kept


@pytest.mark.parametrize(("num_texts", "kept"), [(4, True), (5, False)])
def test_an_image_with_too_many_texts_goes_even_where_they_stand_in_several_records(num_texts, kept):
    records = [record(f"k{i}", f"number {i} of many", image="same.jpg") for i in range(num_texts)]
    other = record("other", "number 0 of one")
    found = filtered(AlignFilter(max_texts_per_image=4), [*records, other])
    assert (len(found) == num_texts + 1) is kept and "other" in found


@pytest.mark.parametrize(("num_images", "kept"), [(10, True), (11, False)])
def test_a_text_of_more_than_ten_images_goes_whatever_its_case_and_punctuation(num_images, kept):
    spellings = ["image for this post", "Image for this post!", "IMAGE, for this post"]
    records = [record(f"k{i}", spellings[i % 3], f"a text of its own {i}") for i in range(num_images)]
    found = filtered(AlignFilter(), records)
    assert len(found) == num_images
    assert all((len(texts) == 2) is kept for texts in found.values())


def test_a_text_that_one_image_has_often_is_shared_by_one_image():
    repeated = record("k", *["the very same text"] * 20)
    assert len(filtered(AlignFilter(), [repeated])["k"]) == 20


@pytest.mark.parametrize(("num_words", "kept"), [(2, False), (3, True), (20, True), (21, False)])
def test_a_text_has_3_to_20_words(num_words, kept):
    text = " ".join(["word"] * num_words)
    assert has_length(text, 3, 20) is kept
    assert (filtered(AlignFilter(), [record("k", text)]) != {}) is kept


def test_a_text_with_a_rare_word_or_a_rare_pair_of_words_goes():
    common = set(ngrams_of("a red dog runs"))
    assert is_made_of_common_words("a red dog", common)
    assert not is_made_of_common_words("a red cat", common), "cat is rare"
    assert not is_made_of_common_words("red a dog", common), "each word is common, the pair is not"
    # a, red, dog, "a red", "red dog" occur three times each; all else twice or once
    records = [record(f"k{i}", "a red dog") for i in range(3)] + [record("rare", "a red cat"), record("b", "dog red a")]
    assert set(filtered(AlignFilter(num_common=5), records)) == {"k0", "k1", "k2"}
    assert len(filtered(AlignFilter(num_common=100), records)) == 5


def test_equally_frequent_words_are_taken_by_the_alphabet_whatever_the_order_of_records():
    one, other = record("x", "b c d"), record("y", "e f g")
    counts = [AlignFilter(num_common=3).count(order) for order in ([one, other], [other, one])]
    assert counts[0] == counts[1] and counts[0].common == {"b", "b c", "c"}
    assert isinstance(counts[0], Counts)


def test_the_first_rule_that_applies_is_counted_and_only_bad_texts_leave_a_record():
    records = [
        record("small", "one two three", width=100, height=1000),
        record("long", "one two three", width=1000, height=250),
        record("mixed", "one two", "one two three"),
        record("short", "one"),
    ]
    rule = AlignFilter()
    assert filtered(rule, records) == {"mixed": ["one two three"]}
    assert dict(rule.dropped) == {"small": 1, "aspect": 1, "words": 2}
    assert filtered(rule, records[:1]) == {} and dict(rule.dropped) == {"small": 1}, "each run counts anew"


def test_records_keep_everything_else_and_are_not_changed_in_place():
    source = Record("k", "a.jpg", [Caption("x"), Caption("a good text", "alt_text", "en")], bag="b",
                    metadata={"width": 300, "height": 300})  # fmt: skip
    (kept,) = AlignFilter()(lambda: [source])
    assert (kept.image, kept.bag, kept.metadata) == ("a.jpg", "b", source.metadata)
    assert kept.captions == [source.captions[1]] and len(source.captions) == 2


def test_wrong_arguments_and_missing_sizes_say_what_is_wanted():
    with pytest.raises(UsageError, match="must be 1 or more"):
        AlignFilter(min_side=0)
    with pytest.raises(UsageError, match="max_words must not be below min_words=3; got 2"):
        AlignFilter(max_words=2)
    with pytest.raises(UsageError, match="metadata of 'k' has no 'height'"):
        list(AlignFilter()(lambda: [Record("k", captions=[Caption("a b c")], metadata={"width": 3})]))
