import math

import numpy as np
import pytest

from capkit.curation.mining import overlap
from capkit.curation.mining.neighbors import VECTORS, Neighbors, write_neighbors
from capkit.curation.mining.overlap import near_duplicates
from capkit.curation.mining.search import Found
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
    return {kept.key: [caption.text for caption in kept.captions] for kept in rule(lambda: iter(records))}


def found(rule):
    return {name: count for name, count in rule.counts.items() if count}


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
    stayed = filtered(AlignFilter(max_texts_per_image=4), [*records, other])
    assert (len(stayed) == num_texts + 1) is kept and "other" in stayed


@pytest.mark.parametrize(("num_images", "kept"), [(10, True), (11, False)])
def test_a_text_of_more_than_ten_images_goes_whatever_its_case_and_punctuation(num_images, kept):
    spellings = ["image for this post", "Image for this post!", "IMAGE, for this post"]
    records = [record(f"k{i}", spellings[i % 3], f"a text of its own {i}") for i in range(num_images)]
    stayed = filtered(AlignFilter(), records)
    assert len(stayed) == num_images
    assert all((len(texts) == 2) is kept for texts in stayed.values())


def test_a_text_that_one_image_has_often_is_shared_by_one_image():
    repeated = record("k", *["the very same text"] * 20)
    assert len(filtered(AlignFilter(), [repeated])["k"]) == 20
    records = [record(f"k{i}", "the very same text", image="same.jpg") for i in range(20)]
    assert len(filtered(AlignFilter(), records)) == 20


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
    assert found(rule) == {"small": 1, "aspect": 1, "words": 2, "kept": 1}
    assert filtered(rule, records[:1]) == {} and found(rule) == {"small": 1}, "each run counts anew"


def test_what_was_dropped_is_reported_with_the_rule():
    failures = []
    rule = AlignFilter()
    rule.attach_failures(failures.append)
    filtered(rule, [record("small", "one two three", width=100), record("mixed", "one", "one two three"),
                    record("short", "one", "two"), record("mute")])  # fmt: skip
    assert [(failure.key, failure.step, failure.reason) for failure in failures] == [
        ("small", "align_filter", "small"),
        ("short", "align_filter", "no text stays: words"),
        ("mute", "align_filter", "no text stays: it has none"),
    ]


def test_records_keep_everything_else_and_are_not_changed_in_place():
    source = Record("k", "a.jpg", [Caption("x"), Caption("a good text", "alt_text", "en")], bag="b",
                    metadata={"width": 300, "height": 300})  # fmt: skip
    (kept,) = AlignFilter()(lambda: [source])
    assert (kept.image, kept.bag, kept.metadata) == ("a.jpg", "b", source.metadata)
    assert kept.captions == [source.captions[1]] and len(source.captions) == 2


def test_wrong_arguments_say_what_is_wanted():
    with pytest.raises(UsageError, match="min_side"):
        AlignFilter(min_side=0)
    with pytest.raises(UsageError, match="max_words must not be below min_words=3; got 2"):
        AlignFilter(max_words=2)
    with pytest.raises(UsageError, match=r"expected both neighbors .* or neither; got neighbors='runs/mine'"):
        AlignFilter(neighbors="runs/mine")


@pytest.mark.parametrize("size", [{"width": 3}, {}, {"width": 300, "height": None}, {"width": 300, "height": "300"}])
def test_missing_sizes_name_the_step_that_fills_them_in(size):
    with pytest.raises(UsageError, match=r"metadata of 'k', got width=.*first: step=\[image_size,align_filter\]"):
        list(AlignFilter()(lambda: [Record("k", captions=[Caption("a b c")], metadata=size)]))


# near-duplicates of evaluation sets -----------------------------------------------------------------------------------


def mined(folder, keys, vectors, by="image", encoder="a"):
    """What `capkit mine` writes of images with these unit vectors."""
    folder.mkdir()
    vectors = np.array(vectors, np.float32)
    np.save(folder / VECTORS, vectors)
    nothing = np.full((len(keys), 1), -1)
    chunk = Found(nothing, np.full((len(keys), 1), 0.5, np.float32), nothing, np.zeros(len(keys), int))
    about = {"by": by, "fingerprints": {"image": encoder}, "keys_hash": f"{keys}", "num_neighbors": 1}
    write_neighbors(folder, keys, [chunk], {**about, "duplicate_threshold": 0.98})
    return str(folder)


def at(degrees):
    return [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]


def test_near_duplicates_of_any_evaluation_set_go_and_other_neighbours_stay(tmp_path):
    # cos 11 degrees = .982 is above .98, cos 12 degrees = .978 is not
    ours = mined(tmp_path / "ours", ["copy", "near", "far", "of b"], [at(0), at(11), at(12), at(90)])
    a, b = mined(tmp_path / "a", ["a0"], [at(0)]), mined(tmp_path / "b", ["b0", "b1"], [at(200), at(91)])
    records = [record(key, f"a text of {key}") for key in ("copy", "near", "far", "of b")]
    rule = AlignFilter(neighbors=ours, evaluation_sets=[a, b])
    assert set(filtered(rule, records)) == {"far"} and found(rule) == {"evaluation_duplicate": 3, "kept": 1}
    assert set(filtered(AlignFilter(neighbors=ours, evaluation_sets=[a]), records)) == {"far", "of b"}
    loose = AlignFilter(neighbors=ours, evaluation_sets=[a], duplicate_threshold=0.99)
    assert set(filtered(loose, records)) == {"near", "far", "of b"}
    assert rule.fingerprint_fields() != loose.fingerprint_fields()


def test_an_image_that_was_not_mined_goes_and_a_foreign_folder_is_refused(tmp_path):
    ours, theirs = mined(tmp_path / "ours", ["k"], [at(0)]), mined(tmp_path / "theirs", ["e"], [at(90)])
    rule = AlignFilter(neighbors=ours, evaluation_sets=[theirs])
    assert set(filtered(rule, [record("k", "a b c"), record("new", "a b c")])) == {"k"}
    assert found(rule) == {"not_mined": 1, "kept": 1}
    with pytest.raises(UsageError, match="has not one of these records' images; give neighbors=RUN"):
        filtered(rule, [record("new", "a b c")])


@pytest.mark.parametrize(
    ("other", "message"),
    [({"by": "combined"}, "expected images mined by=image, got by=combined"), ({"encoder": "b"}, "different encoders")],
)
def test_vectors_that_cannot_be_compared_are_refused(tmp_path, other, message):
    ours, theirs = mined(tmp_path / "ours", ["k"], [at(0)]), mined(tmp_path / "theirs", ["e"], [at(0)], **other)
    with pytest.raises(UsageError, match=message):
        filtered(AlignFilter(neighbors=ours, evaluation_sets=[theirs]), [record("k", "a b c")])


def test_blocks_do_not_change_what_is_found(tmp_path, monkeypatch):
    draw = np.random.default_rng(0).normal(size=(40, 4))
    vectors = draw / np.linalg.norm(draw, axis=1, keepdims=True)
    ours = Neighbors(mined(tmp_path / "ours", [f"k{i}" for i in range(23)], vectors[:23]))
    theirs = Neighbors(mined(tmp_path / "theirs", [f"e{i}" for i in range(17)], vectors[23:]))
    wanted = {f"k{i}" for i in range(23) if (vectors[i] @ vectors[23:].T).max() > 0.7}
    assert 0 < len(wanted) < 23 and near_duplicates(ours, [theirs], 0.7) == wanted
    monkeypatch.setattr(overlap, "_BLOCK", 5)
    assert near_duplicates(ours, [theirs], 0.7) == wanted
